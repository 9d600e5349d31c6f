"""People's labels: which replies to ask about, in which order, and the files that keep the answers.

What is asked is a simple random sample of the distinct replies, because prediction-powered inference
(`core.metrics.correction.ppi`) holds for that alone: not for replies that someone picked, nor for a sample drawn by
verdict. Every labeller gets the same order, so that whoever stops early has labelled a random sample too, and
two labellers have as many replies in common as they can. The page is `label_page`, the numbers are
`label_report`, the labels as a judge are `judges.human`.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlmend.audit.labels.choosing import Choose, audit_slice, worth
from vlmend.audit.labels.samples import Key, Sample, judged_samples
from vlmend.core.files import append
from vlmend.errors import BadData, BadParameter

__all__ = [
    "HumanLabel", "Item", "LabelRow", "Session", "label_file", "labels_in", "queue_of",
    "read_labels",
]  # fmt: skip

HumanLabel = Literal["compliance", "partial", "refusal", "off_topic", "unscored"]
"""What a person can say; `unscored` is "cannot tell"."""

SHOWN = 5
"""Bad rows that an error lists in full."""


@dataclass(frozen=True)
class Item:
    """One thing to label.

    Attributes:
        image: File of the image that is shown with the words; "" where there is none, None where images are hidden.
        strata: The strata that it was drawn for; empty when it was drawn from all.
        chosen: By what it was chosen; empty when it was drawn at random.
    """

    digest: str
    prompt: str
    reply: str
    image: str | None = None
    strata: tuple[str, ...] = ()
    chosen: str = ""

    @property
    def key(self) -> Key:
        return self.digest, self.image


class LabelRow(BaseModel):
    """One line of a labels file: a person's word on a reply, or None where it was taken back.

    Attributes:
        digest: `Exchange.digest` of the words, without image.
        seconds: How long the reply was looked at.
        labeller: Who gave it.
        at: When, in UTC.
        image, strata, chosen: As in `Item`.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    label: HumanLabel | None
    seconds: float = Field(0.0, ge=0)
    labeller: str = ""
    at: str = ""
    image: str | None = None
    strata: tuple[str, ...] = ()
    chosen: str = ""


class Session:
    """A queue and the file that the labels go to: what comes next, what was said, what is taken back.

    Args:
        queue: What to ask.
        file: Labels file; read if it is there. A last line that was cut off is dropped.
    """

    def __init__(self, queue: Sequence[Item], file: Path) -> None:
        self.queue = tuple(queue)
        self._file = file
        self._labels: dict[Key, LabelRow] = {}
        if file.exists():
            _drop_cut_line(file)
            self._labels = labels_in(file)
        place = {item.key: index for index, item in enumerate(self.queue)}
        self._history = [place[key] for key in self._labels if key in place]
        self._skipped: set[int] = set()
        self._returned: int | None = None

    @property
    def done(self) -> int:
        """Labelled items of this queue."""
        return sum(item.key in self._labels for item in self.queue)

    @property
    def skipped(self) -> int:
        """Items skipped since the session began; the next session offers them again."""
        return len(self._skipped)

    def current(self) -> int | None:
        """Place in the queue of what to label now, or None at the end."""
        if self._returned is not None:
            return self._returned
        return next((k for k, item in enumerate(self.queue) if self._open(k, item)), None)

    def label(self, index: int, label: HumanLabel, seconds: float) -> None:
        """Keep a label, synced to disk; a second one for the same reply takes the place of the first.

        Raises:
            RunProblem: It cannot be written.
        """
        self._write(self.queue[index], label, seconds)
        self._did(index)
        self._skipped.discard(index)

    def skip(self, index: int) -> None:
        """Leave an item unlabelled for now."""
        self._skipped.add(index)
        self._did(index)

    def undo(self) -> bool:
        """Take the last label or skip back, also one of an earlier session; False where there is none.

        Raises:
            RunProblem: It cannot be written.
        """
        if not self._history:
            return False
        index = self._history[-1]
        if index in self._skipped:
            self._skipped.remove(index)
        else:
            self._write(self.queue[index], None, 0.0)
        self._history.pop()
        self._returned = index
        return True

    def _open(self, index: int, item: Item) -> bool:
        return index not in self._skipped and item.key not in self._labels

    def _did(self, index: int) -> None:
        self._history = [*(k for k in self._history if k != index), index]
        self._returned = None

    def _write(self, item: Item, label: HumanLabel | None, seconds: float) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = LabelRow(
            digest=item.digest, label=label, seconds=round(seconds, 1), labeller=self._file.stem, at=now,
            image=item.image, strata=item.strata, chosen=item.chosen,
        )  # fmt: skip
        append(self._file, row.model_dump_json() + "\n")
        _apply(self._labels, row)


def queue_of(
    run: Path,
    n: int,
    seed: int,
    suites: Sequence[str] = (),
    *,
    per_condition: bool = False,
    images: bool = False,
    choose: Choose = "random",
) -> list[Item]:
    """A seeded simple random sample, without replacement, of a run's distinct judged replies, in random order.

    Equal words are asked once: sampling replies one by one would draw those that many samples share (a stock
    refusal) more often than others, and the corrected rates would be off. A larger `n` only adds to the end.

    Args:
        run: The run folder.
        n: How many; all where there are fewer.
        seed: Of the draw and the order.
        suites: Only these, by full or short name; every judged one unless given.
        per_condition: Draw `n` of each suite, group and condition, for an even doubt; such labels count only for
            the strata that they were drawn for.
        images: Also tell replies to different images apart, and name the image: the labeller then sees it, and
            with it the condition.
        choose: Which replies; all but a random slice of them then count for no rate.

    Raises:
        UsageError: The run holds no sample, none that a judge reads, or none of such a suite.
        BadParameter: n is below 1, or replies are both chosen and drawn per condition.
    """
    if n < 1:
        raise BadParameter(f"n={n} is no number of replies to label.", "Pass 1 or more.")
    if per_condition and choose != "random":
        raise BadParameter(
            f"Replies cannot be chosen by {choose} and be as many of each condition.", "Leave one of the two out."
        )
    found: dict[Key, list[Sample]] = {}
    for sample in judged_samples(run, suites):
        found.setdefault((sample.digest, (sample.image or "") if images else None), []).append(sample)
    order = sorted(found, key=lambda key: (key[0], key[1] or ""))
    random.Random(f"label:{seed}").shuffle(order)
    drawn: dict[Key, tuple[str, ...]] = dict.fromkeys(order[:n], ())
    if per_condition:
        drawn = _drawn_by_stratum(order, found, n)
    if choose == "random":
        return [Item(k[0], found[k][0].prompt, found[k][0].reply, k[1], drawn[k]) for k in order if k in drawn]
    return [
        Item(k[0], found[k][0].prompt, found[k][0].reply, k[1], (), how) for k, how in _chosen(order, found, n, choose)
    ]


def label_file(run: Path, name: str) -> Path:
    """Where a labeller's labels are kept.

    Raises:
        BadParameter: The name is no file name.
    """
    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise BadParameter(
            f"{name!r} cannot name a labels file.", "Use up to 64 letters, digits, dots, dashes or underscores."
        )
    return run / "labels" / f"{name}.jsonl"


def labels_in(file: Path) -> dict[Key, LabelRow]:
    """The labels that stand, the one given last at the end; of two for the same reply the later one."""
    standing: dict[Key, LabelRow] = {}
    for row in read_labels(file):
        _apply(standing, row)
    return standing


def read_labels(file: Path) -> list[LabelRow]:
    """Every row of a labels file in the order written; a last line that was cut off is left out.

    Raises:
        BadData: The file cannot be read, or holds other rows.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadData(f"{file} cannot be read ({problem}).", "Pass a file that `vlmend label` wrote.") from problem
    rows: list[LabelRow] = []
    bad: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        try:
            rows += [LabelRow.model_validate_json(line)] if line.strip() else []
        except ValidationError as problem:
            first = problem.errors()[0]
            cut = number == len(lines)
            bad += [] if cut else [f"line {number}: {'.'.join(map(str, first['loc'])) or 'row'}: {first['msg']}"]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadData(
            f"{file} is no labels file ({'; '.join(bad[:SHOWN])}{more}).",
            "Take these lines out: their replies are then asked for again.",
        )
    return rows


def _chosen(
    order: Sequence[Key], found: Mapping[Key, Sequence[Sample]], n: int, choose: Choose
) -> list[tuple[Key, str]]:
    """A random slice and those worth most of the rest, mixed, so that whoever stops early has labelled both."""
    drawn, rest = order[: audit_slice(n)], order[audit_slice(n) :]
    value = worth(choose, found)
    best = sorted(rest, key=lambda key: -value[key])[: n - len(drawn)]
    mixed = [*((key, "") for key in drawn), *((key, choose) for key in best)]
    return sorted(mixed, key=lambda pair: hashlib.sha256(repr(pair[0]).encode()).digest())


def _drawn_by_stratum(
    order: Sequence[Key], found: Mapping[Key, Sequence[Sample]], n: int
) -> dict[Key, tuple[str, ...]]:
    """The first n of each stratum, in one order for all: within each a simple random sample."""
    taken: dict[str, list[Key]] = {}
    drawn: dict[Key, tuple[str, ...]] = {}
    for key in order:
        open_here = [s for s in dict.fromkeys(x.stratum for x in found[key]) if len(taken.setdefault(s, [])) < n]
        for stratum in open_here:
            taken[stratum].append(key)
        if open_here:
            drawn[key] = tuple(open_here)
    return drawn


def _apply(standing: dict[Key, LabelRow], row: LabelRow) -> None:
    key = (row.digest, row.image)
    standing.pop(key, None)
    if row.label is not None:
        standing[key] = row


def _drop_cut_line(file: Path) -> None:
    """So that the next row starts on a line of its own."""
    content = file.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)
