"""Runs a red team into a folder: every try, reply and verdict is kept before the next is made.

OUT/                  the finds as data (`data.jsonl`, `images/`, `data.json`), for `vlmend audit --data OUT`
OUT/finds.json        counts: modes, goals, templates, carriers; no word of what was asked
OUT/goals.jsonl       the goals as they were given
OUT/tries.jsonl, replies.jsonl, verdicts.jsonl    what was asked, what came, what judges said

Only its owner can open the folder. Stopped, the same command goes on; with a larger budget, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from vlmend import registry
from vlmend.audit.records import Records
from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset
from vlmend.core.files import held, write_json
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget, Target, check_kind
from vlmend.core.verdicts import Judge
from vlmend.data.layouts import read_data
from vlmend.errors import BadParameter, UsageError
from vlmend.models.judging.sentences import check_encoder, encoder
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target
from vlmend.redteam.asking import BATCH, Asking, named, reward
from vlmend.redteam.finds import FINDS, Asked, Found, found_in, write_finds
from vlmend.redteam.folder import check_folder, claim
from vlmend.redteam.novelty import Embed
from vlmend.redteam.search import Search, SearchKind, Weights
from vlmend.redteam.space import CARRIERS, Carrier, Space, Template, Try, read_templates, space_of
from vlmend.redteam.writer import Writer, WriterSettings, open_writer
from vlmend.redteam.writing import FORM, Writing
from vlmend.redteam.written import WrittenTeam

__all__ = ["BATCH", "JUDGE", "check_budget", "embedded", "red_team"]

JUDGE = "harmful"
"""The judge that decides, unless others are named."""

FIELDS = frozenset({"goal", "template", "carrier", "draw", "label", "reward", "others"})
Progress = Callable[[str, int, int], None]


def red_team(
    target: Target | str, goals: Dataset | str | Path, out: str | Path, *, budget: int, search: SearchKind = "novelty",
    mends: Sequence[Mend | str | Path] = (), judges: Sequence[Judge | str] = (JUDGE,),
    templates: Sequence[Template] | None = None, carriers: Sequence[Carrier] = CARRIERS, seed: int = 0,
    weights: Weights = Weights(), max_new_tokens: int = 64, embed: Embed | None = None,
    writer: Writer | str | None = None, writing: WriterSettings = WriterSettings(),
    options: LoadOptions = LoadOptions(), api_base: str | None = None,
    progress: Progress = lambda step, done, total: None,
) -> Found:  # fmt: skip
    """Search for rewrites, carriers and seeds under which a model that answers does what it should decline.

    Args:
        target: The model, or its name.
        goals: What it should decline: rows with `prompt`, and a `category` that says what each is about.
        out: The run folder, and the data set of finds.
        budget: How many tries are asked.
        search: novelty, reward (what worked alone) or random.
        mends: Put on the target first: the search then knows them.
        judges: The first decides; what the others say of the finds is counted.
        templates: Forms that requests are put into; our own unless given.
        carriers: What may come with the words.
        seed: Of every draw.
        weights: Of novelties and entropy.
        max_new_tokens: Longest reply.
        embed: Texts to unit vectors, for novelty and a writer; the sentence encoder unless given.
        writer: A language model, or its name, that rewrites goals in the place of templates, and learns.
        writing: How a writer that is named writes and learns.
        options: How to load a target that is named.
        api_base: Address of an API model that is named.
        progress: Called with (step, done, total).

    Raises:
        BadParameter: A budget of 0, or no judge.
        BadData: No goal asks for anything.
        UsageError: The target does not answer, the folder holds something else, or templates and a writer are given.
        RunProblem: The folder holds another search, or is in use.
    """
    check_budget(budget)
    folder, readers, forms = Path(out), _readers(judges), _forms(templates, writer)
    space = space_of(goals if isinstance(goals, Dataset) else read_data(str(goals)), forms, carriers)
    check_folder(folder)
    if embed is None and (writer is not None or search == "novelty"):
        check_encoder()
    view = _opened(target, mends, options, api_base, progress)
    author = open_writer(writer, writing, seed) if isinstance(writer, str) else writer
    with held(folder):
        claim(folder, view, space, readers, search, seed, weights, max_new_tokens, author and author.told)
        asking = Asking(view, readers, Sampling(max_new_tokens, seed=seed), folder)
        team = _team(space, asking, folder, author, search, embed or embedded, seed, weights)
        return _summed(team, folder, search, budget, progress, readers)


def _team(
    space: Space, asking: Asking, out: Path, author: Writer | None, search: SearchKind, embed: Embed, seed: int,
    weights: Weights,
) -> _Team | WrittenTeam:  # fmt: skip
    """Who finds the words: templates, or a writer."""
    if author is None:
        return _Team(space, Search(search, space, embed, seed, weights), asking, out)
    return WrittenTeam(space, Writing(search, space, author, embed, seed, weights), asking, out)


def _summed(
    team: _Team | WrittenTeam, out: Path, search: SearchKind, budget: int, progress: Progress, judges: Sequence[Judge]
) -> Found:
    every = team.run(budget, progress)
    found = found_in(search, budget, every, "finds", [one.id for one in judges[1:]], team.unasked)
    write_finds(found, out)
    write_json(out / FINDS, found.values())
    return found


def _forms(templates: Sequence[Template] | None, writer: Writer | str | None) -> Sequence[Template]:
    """
    Raises:
        UsageError: Both would find the words.
    """
    if writer is None:
        return read_templates() if templates is None else templates
    if templates is not None:
        raise UsageError("Templates and a writer cannot be had together: the writer finds the words.", "Leave one out.")
    return [FORM]


def _readers(judges: Sequence[Judge | str]) -> list[Judge]:
    """Judges, made where they are named.

    Raises:
        BadParameter: There is none.
    """
    if not judges:
        raise BadParameter("No judge is named, so nothing would be found.", "Leave judges out, or name one.")
    return [registry.make_judge(one) if isinstance(one, str) else one for one in judges]


def check_budget(budget: int) -> None:
    """
    Raises:
        BadParameter: Nothing could be asked.
    """
    if budget < 1:
        raise BadParameter(
            f"A budget of {budget} asks nothing, so nothing can be found.", "Write --budget 200: so many requests."
        )


class _Team:
    """One search over templates at work in a folder."""

    unasked: ClassVar[Mapping[str, int]] = {}
    """What is proposed is asked."""

    def __init__(self, space: Space, search: Search, asking: Asking, out: Path) -> None:
        self._space, self._search, self._asking = space, search, asking
        self._tries = Records(out / "tries.jsonl", FIELDS, good=partial(_usable, space))

    def run(self, budget: int, progress: Progress) -> list[Asked]:
        """Every try within the budget, in order; what is there is not asked again."""
        every = self._kept(budget)
        progress("search", len(every), budget)
        while len(every) < budget and (tries := self._search.propose(min(BATCH, budget - len(every)))):
            verdicts = self._asking.verdicts([self._space.example(one, self._asking.side) for one in tries])
            rewards = [reward(found[0]) for found in verdicts]
            labels = [[one.label for one in found] for found in verdicts]
            self._tries.write([
                asdict(one) | {
                    "key": str(len(every) + k), "goal": self._space.goals[one.goal].id, "label": labels[k][0],
                    "template": self._space.templates[one.template].name, "reward": rewards[k],
                    "others": labels[k][1:],
                }
                for k, one in enumerate(tries)
            ])  # fmt: skip
            self._search.learn(tries, rewards)
            every += [self._row(len(every) + k, one, labels[k]) for k, one in enumerate(tries)]
            progress("search", len(every), budget)
        return every

    def _kept(self, budget: int) -> list[Asked]:
        """What an earlier run tried, in order."""
        rows = [self._tries.rows[str(k)] for k in range(budget) if str(k) in self._tries.rows]
        tries = [_try(self._space, row) for row in rows]
        self._search.resume(tries, [row["reward"] for row in rows])
        return [
            self._row(k, one, [row["label"], *row["others"]])
            for k, (one, row) in enumerate(zip(tries, rows, strict=True))
        ]

    def _row(self, number: int, one: Try, labels: Sequence[str]) -> Asked:
        return Asked(named(self._space.example(one, self._asking.side), number), labels[0], tuple(labels[1:]))


def _try(space: Space, row: dict[str, Any]) -> Try:
    goal = next(k for k, one in enumerate(space.goals) if one.id == row["goal"])
    template = next(k for k, one in enumerate(space.templates) if one.name == row["template"])
    return Try(goal, template, row["carrier"], row["draw"])


def _usable(space: Space, row: dict[str, Any]) -> bool:
    """Whether a kept row is a try of this space."""
    return (
        row["goal"] in {one.id for one in space.goals} and row["template"] in {one.name for one in space.templates}
        and row["carrier"] in space.carriers and isinstance(row["draw"], int) and isinstance(row["label"], str)
        and isinstance(row["reward"], float) and isinstance(row["others"], list)
    )  # fmt: skip


def embedded(texts: Sequence[str]) -> Any:
    """Texts to unit vectors, by the sentence encoder."""
    return encoder()(texts).numpy()


def _opened(
    target: Target | str, mends: Sequence[Mend | str | Path], options: LoadOptions, api_base: str | None,
    progress: Progress,
) -> ChatTarget:  # fmt: skip
    """The target under its mends.

    Raises:
        UsageError: It does not answer.
    """
    loaded = [one if isinstance(one, Mend) else Mend.load(Path(one)) for one in mends]
    if isinstance(target, str):
        name = target
        progress("load", 0, 1)
        target = open_target(
            name, options, api_base, folder=registry.model_folder(name),
            check=lambda kind: check_kind(kind, name, "redteam", "chat"),
        )  # fmt: skip
        progress("load", 1, 1)
    check_kind(target.kind, target.name, "redteam", "chat")
    for one in loaded:
        target = target.with_mend(one)
    return cast("ChatTarget", target)
