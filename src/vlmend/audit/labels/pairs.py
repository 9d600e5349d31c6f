"""Pairs side by side: replies about two people who differ in their group alone, and people's word on which is better.

Of one run, the two replies of a pair stand side by side: which speaks better of its person? Of two runs, say before and
after a mend, each side holds both replies of one of them: which treats its two people more alike? The page gets the
words, and images if asked: never a group, a model, a run or a mend. Which reply stands on the left is drawn by the seed
and the rater's name, for as many pairs each way.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from vlmend.audit.labels.samples import Key
from vlmend.audit.labels.session import Row, Shown
from vlmend.audit.people import known
from vlmend.core.files import plain_name
from vlmend.core.replies import spoken
from vlmend.core.samples import read_samples
from vlmend.errors import BadParameter, UsageError

__all__ = ["Pair", "PairItem", "PairRow", "Preference", "counterparts", "pair_folder", "pair_queue"]

Preference = Literal["first", "alike", "second", "unscored"]
"""A person's word on a pair, whatever side it stood on; `unscored` is "cannot tell"."""

AXIS = "fairness/"


@dataclass(frozen=True)
class Said:
    """One reply and what it was asked with; `image` is its file."""

    prompt: str
    reply: str
    image: str | None


@dataclass(frozen=True)
class Pair:
    """What stands side by side.

    Attributes:
        first, second: Of one run, one reply each; of two runs, the replies of each about both people.
        names: Groups, or runs, of the two sides.
        category: What pairs are drawn again with, such as the occupation.
    """

    first: tuple[Said, ...]
    second: tuple[Said, ...]
    names: tuple[str, str]
    category: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the words and the groups; runs may be moved."""
        groups = self.names if len(self.first) == 1 else ()
        words = [groups, *([(said.prompt, said.reply) for said in side] for side in (self.first, self.second))]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()

    @property
    def equal(self) -> bool:
        """Whether both sides say the same, so that nobody need be asked."""
        return [said.reply for said in self.first] == [said.reply for said in self.second]

    @property
    def images(self) -> str:
        """The files of all images."""
        return "|".join(said.image or "" for said in (*self.first, *self.second))


class PairRow(Row):
    """A person's word on a pair.

    Attributes:
        swapped: Whether the first side stood on the right.
    """

    label: Preference | None
    swapped: bool


@dataclass(frozen=True)
class PairItem:
    """A pair to be asked about; `image` is None where images are hidden."""

    pair: Pair
    swapped: bool
    image: str | None = None

    @property
    def key(self) -> Key:
        return self.pair.digest, self.image

    def row(self, label: str | None, **told: Any) -> PairRow:
        sides = ("second", "first") if self.swapped else ("first", "second")
        words = {None: None, "left": sides[0], "right": sides[1], "alike": "alike", "unscored": "unscored"}
        fields = {"digest": self.pair.digest, "image": self.image, "swapped": self.swapped}
        return PairRow.model_validate(fields | {"label": words.get(label, "no label")} | told)

    def shown(self, image: Shown) -> dict[str, Any]:
        sides = [self.pair.first, self.pair.second]
        if int(self.pair.digest[:2], 16) % 2:  # of two people, which comes first on both sides
            sides = [tuple(reversed(side)) for side in sides]
        if self.swapped:
            sides.reverse()
        asked = {said.prompt for side in sides for said in side}
        prompt = asked.pop() if len(asked) == 1 else ""
        return {
            "prompt": prompt,
            "sides": [
                [
                    {
                        "prompt": "" if prompt else said.prompt, "reply": said.reply,
                        "image": None if self.image is None else image(said.image),
                    }
                    for said in side
                ]
                for side in sides
            ],
        }  # fmt: skip


def counterparts(run: Path, against: Path | None = None, suites: Sequence[str] = ()) -> list[Pair]:
    """The pairs of a run in its order, those of equal words included.

    Two replies are counterparts where their suite, their repeat and what the data call their pair (`of`) are the same
    and their groups, both known, are not. Where the data tell no pairs: where request and category (the occupation) are
    the same, the first of one group with the first of the other, and so on.

    Args:
        run: The run folder.
        against: Another run of the same questions, to be held against it.
        suites: Only these, by full or short name; those of the fairness axis unless given.

    Raises:
        UsageError: A run holds no such pairs, or the two share none.
    """
    found = [both for both in _of_run(run, suites) if against is not None or _usable(both)]
    if not found:
        raise UsageError(
            f"{run} holds no replies about people who differ in their group alone.",
            'Audit fairness/caption_polarity, or give rows with attributes {"of": what the two share}.',
        )
    if against is None:
        return [Pair((_said(a),), (_said(b),), (a["group"], b["group"]), a.get("category", "")) for a, b in found]
    other = {_place(row): row for row in read_samples(against)}
    shared = [
        (both, tuple(other[_place(row)] | {"image": row.get("image")} for row in both))
        for both in found
        if all(_place(row) in other for row in both)
    ]  # fmt: skip
    pairs = [
        Pair(tuple(map(_said, ours)), tuple(map(_said, theirs)), (str(run), str(against)), ours[0].get("category", ""))
        for ours, theirs in shared
        if _usable((*ours, *theirs)) and [row["prompt"] for row in ours] == [row["prompt"] for row in theirs]
    ]
    if not pairs:
        raise UsageError(f"{run} and {against} share no such pairs.", "Audit both with the same suites and data.")
    return pairs


def pair_queue(
    run: Path, n: int, seed: int, rater: str, *, against: Path | None = None, suites: Sequence[str] = (),
    images: bool = False,
) -> list[PairItem]:  # fmt: skip
    """A seeded simple random sample of a run's distinct pairs whose words differ, in one random order for all raters.

    A larger `n` only adds to the end. Sides are drawn for two pairs at a time: of any even number of pairs, half have
    the first side on the left.

    Raises:
        UsageError: As for `counterparts`, or the two sides of every pair say the same.
        BadParameter: n is below 1.
    """
    if n < 1:
        raise BadParameter(f"n={n} is no number of pairs to label.", "Pass 1 or more.")
    every = counterparts(run, against, suites)
    distinct: dict[Key, Pair] = {}
    for pair in every:
        if not pair.equal:
            distinct.setdefault((pair.digest, pair.images if images else None), pair)
    if not distinct:
        raise UsageError(f"The two sides of all {len(every)} pairs say the same.", "There is nothing to ask.")
    order = sorted(distinct, key=lambda key: (key[0], key[1] or ""))
    random.Random(f"pairs:{seed}").shuffle(order)
    rng = random.Random(f"sides:{seed}:{rater}")
    sides = [side for _ in range(0, len(order), 2) for side in rng.sample((False, True), 2)]
    return [PairItem(distinct[key], swapped, key[1]) for key, swapped in zip(order, sides, strict=False)][:n]


def pair_folder(run: Path, against: Path | None = None) -> Path:
    """Where the labels of pairs are kept, apart from those of replies."""
    return run / "labels" / ("fairness" if against is None else f"fairness-{plain_name(against.resolve().name)}")


def _of_run(run: Path, suites: Sequence[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of two groups that belong together."""
    held: defaultdict[tuple[str, ...], defaultdict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in read_samples(run):
        wanted = row["suite"].startswith(AXIS) if not suites else {row["suite"], row["suite"].split("/")[1]} & {*suites}
        told = ("pair", row["pair"]) if row.get("pair") else ("alike", row["prompt"], row.get("category", ""))
        if wanted and known(row["group"]) and told[-1]:
            repeat = row["id"].removeprefix(row.get("asked") or row["id"])
            held[row["suite"], repeat, *told][row["group"]].append(row)
    for groups in held.values():
        for one, other in combinations(sorted(groups), 2):
            yield from zip(groups[one], groups[other], strict=False)


def _usable(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether every reply was given and holds words."""
    return all((spoken(row["reply"]) or "").strip() and not row.get("problem") for row in rows)


def _said(row: dict[str, Any]) -> Said:
    return Said(row["prompt"], spoken(row["reply"]) or "", row.get("image"))


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return row["suite"], row["id"]
