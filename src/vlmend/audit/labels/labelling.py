"""People's labels of replies: which to ask about, in which order, and what a label of one is.

What is asked is a simple random sample of the distinct replies, because prediction-powered inference
(`core.metrics.correction.ppi`) holds for that alone: not for replies that someone picked, nor for a sample drawn by
verdict. Every labeller gets the same order, so that whoever stops early has labelled a random sample too, and
two labellers have as many replies in common as they can. The files are kept by `session`, the page is `page`, the
numbers are `report`, the labels as a judge are `judges.human`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmend.audit.labels.choosing import Choose, audit_slice, worth
from vlmend.audit.labels.samples import Key, Sample, judged_samples
from vlmend.audit.labels.session import LabelRow, Shown, read_rows, rows_in
from vlmend.errors import BadParameter

__all__ = ["Item", "labels_in", "queue_of", "read_labels"]


@dataclass(frozen=True)
class Item:
    """One reply to label.

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

    def row(self, label: str | None, **told: Any) -> LabelRow:
        fields = {"digest": self.digest, "image": self.image, "strata": self.strata, "chosen": self.chosen}
        return LabelRow.model_validate(fields | {"label": label} | told)

    def shown(self, image: Shown) -> dict[str, Any]:
        return {"prompt": self.prompt, "reply": self.reply, "image": image(self.image)}


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


def labels_in(file: Path) -> dict[Key, LabelRow]:
    """The labels of replies that stand, the one given last at the end; of two for the same reply the later one."""
    return rows_in(file, LabelRow)


def read_labels(file: Path) -> list[LabelRow]:
    """Every row of a labels file in the order written; a last line that was cut off is left out.

    Raises:
        BadData: The file cannot be read, or holds other rows.
    """
    return read_rows(file, LabelRow)


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
