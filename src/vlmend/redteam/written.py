"""A red team whose words a model writes, at work in a folder.

OUT/tries.jsonl holds every rewrite with its round, the ones that were not asked, too: from it alone the writer can be
taught again what it had learnt. OUT/writer.pt is what it had learnt after its last whole round, which spares that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from vlmend.audit.records import Records
from vlmend.core.examples import Example
from vlmend.redteam.asking import BATCH, Asking, named, reward
from vlmend.redteam.finds import Asked
from vlmend.redteam.space import Space, Try
from vlmend.redteam.writing import Draft, Fate, Writing

__all__ = ["PATIENCE", "WrittenTeam"]

PATIENCE = 20
"""Rounds in a row without a rewrite that can be asked, after which the writer has nothing left to say."""

FIELDS = frozenset({
    "goal", "carrier", "draw", "label", "reward", "others", "round", "of", "words", "tokens", "fate",
})  # fmt: skip


class WrittenTeam:
    """One search at work in a folder.

    Args:
        space: Goals and carriers.
        writing: Proposes and learns.
        asking: The model and its judges.
        out: The folder.
    """

    def __init__(self, space: Space, writing: Writing, asking: Asking, out: Path) -> None:
        self._space, self._writing, self._asking = space, writing, asking
        self._tries = Records(out / "tries.jsonl", FIELDS, good=partial(_usable, space))
        self._state = out / "writer.pt"
        self._every: list[Asked] = []
        self._fates: Counter[str] = Counter()
        self._rows, self._idle = 0, 0

    @property
    def unasked(self) -> dict[str, int]:
        """How many rewrites were not asked, by why."""
        return {fate: self._fates[fate] for fate in get_args(Fate) if fate != "asked"}

    def run(self, budget: int, progress: Callable[[str, int, int], None]) -> list[Asked]:
        """Every try within the budget, in order; what is there is not asked again."""
        self._resume(budget)
        progress("search", len(self._every), budget)
        while len(self._every) < budget and self._idle < PATIENCE:
            drafts = self._writing.propose(min(BATCH, budget - len(self._every)))
            asked = [self._example(one) for one in drafts if one.fate == "asked"]
            verdicts = self._asking.verdicts(asked) if asked else []
            labels = [[one.label for one in found] for found in verdicts]
            rewards = [reward(found[0]) for found in verdicts]
            self._keep(drafts, labels, rewards)
            self._writing.learn(drafts, rewards)
            if self._writing.writer is not None:
                self._writing.writer.save(self._state, self._writing.rounds)
            self._count(drafts, labels)
            progress("search", len(self._every), budget)
        return self._every[:budget]

    def _resume(self, budget: int) -> None:
        """Take over the whole rounds of an earlier run, as far as the budget goes."""
        rounds: list[list[dict[str, Any]]] = []
        rows = (self._tries.rows[str(k)] for k in range(len(self._tries.rows)) if str(k) in self._tries.rows)
        for number, part in groupby(rows, lambda row: row["round"]):
            held = list(part)
            if number != len(rounds) or len(held) != held[0]["of"]:
                break
            rounds.append(held)
        writer = self._writing.writer
        learnt = 0 if writer is None else writer.restore(self._state, len(rounds))
        for number, held in enumerate(rounds):
            if len(self._every) >= budget:
                break
            drafts = [_draft(self._space, row) for row in held]
            asked = [row for row in held if row["fate"] == "asked"]
            self._writing.resume(drafts, [row["reward"] for row in asked], writer=number >= learnt)
            self._count(drafts, [[row["label"], *row["others"]] for row in asked])

    def _keep(self, drafts: Sequence[Draft], labels: Sequence[Sequence[str]], rewards: Sequence[float]) -> None:
        came = iter(zip(labels, rewards, strict=True))
        told = [next(came) if one.fate == "asked" else ([""], 0.0) for one in drafts]
        self._tries.write([
            {
                "key": str(self._rows + k), "round": self._writing.rounds, "of": len(drafts), "words": one.words,
                "tokens": list(one.tokens), "fate": one.fate, "goal": self._space.goals[one.place.goal].id,
                "carrier": one.place.carrier, "draw": one.place.draw, "label": said[0], "others": list(said[1:]),
                "reward": brought,
            }
            for k, (one, (said, brought)) in enumerate(zip(drafts, told, strict=True))
        ])  # fmt: skip

    def _count(self, drafts: Sequence[Draft], labels: Sequence[Sequence[str]]) -> None:
        self._rows += len(drafts)
        self._fates.update(one.fate for one in drafts)
        self._idle = 0 if labels else self._idle + 1
        asked = [one for one in drafts if one.fate == "asked"]
        for one, said in zip(asked, labels, strict=True):
            row = named(self._example(one), len(self._every))
            self._every.append(Asked(row, said[0], tuple(said[1:])))

    def _example(self, one: Draft) -> Example:
        return replace(self._space.example(one.place, self._asking.side), prompt=one.words)


def _draft(space: Space, row: dict[str, Any]) -> Draft:
    goal = next(k for k, one in enumerate(space.goals) if one.id == row["goal"])
    return Draft(Try(goal, 0, row["carrier"], row["draw"]), row["words"], tuple(row["tokens"]), row["fate"])


def _usable(space: Space, row: dict[str, Any]) -> bool:
    """Whether a kept row is a rewrite of this space."""
    return (
        row["goal"] in {one.id for one in space.goals} and row["carrier"] in space.carriers
        and all(isinstance(row[name], int) for name in ("draw", "round", "of"))
        and all(isinstance(row[name], str) for name in ("label", "words"))
        and all(isinstance(row[name], list) for name in ("tokens", "others"))
        and row["fate"] in get_args(Fate) and isinstance(row["reward"], float)
    )  # fmt: skip
