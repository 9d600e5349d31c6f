"""robustness/ood: does the model know a picture of something that it has no name for?

Pictures of known things are classified among the names of known things; so are pictures of others, which have no
right answer. Two scores tell them apart, maximum concept matching and the largest logit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.means import JUDGE, mean_row
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.metrics.calibration import as_probabilities, nll
from vlmend.core.metrics.detection import Detection, Several, detection, detection_over, max_logit, mcm
from vlmend.core.metrics.stats import Interval
from vlmend.core.readable import each_read
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData
from vlmend.pictures.galleries import FRAMES, PHOTO, object_pictures

__all__ = ["SCORES", "SUITE", "OutOfDistribution"]

SCORES = ("mcm", "max_logit")
NOTHING = Interval(math.nan, math.nan, math.nan)
"""Where fewer than two pictures of a kind could be scored, nothing can be told apart."""

FLOORS: dict[str, tuple[float, Better]] = {
    "auroc": (0.5, "higher"), "fpr95": (0.95, "lower"), "auroc_spread": (math.nan, "lower"),
    "fpr95_spread": (math.nan, "lower"),
}  # fmt: skip
"""What a coin gives, and the direction that is better."""

WORDINGS = range(len(FRAMES))

SAYS = "tells pictures of unknown things from those of known ones with an AUROC of {value}"


class OutOfDistribution(SampleSuite[DualTarget]):
    """AUROC and FPR95 of two scores, what a fitted threshold accepts, and accuracy and calibration on what is known."""

    name: ClassVar[str] = "robustness/ood"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "telling pictures of unknown things from those of known ones (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        known, other = _kinds(data, None)
        return bool(known and other)

    def uses(self, data: Dataset) -> list[Example]:
        return [example for example in data.examples if example.image is not None]

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = object_pictures(split) if data is None else data
        names = sorted({example.answers[0] for example in _kinds(given, None)[0]})
        known, other = _kinds(given, limit)
        if not names or not other:
            raise BadData(
                f"{given.name} has {len(known)} pictures of known things and {len(other)} of others.",
                "Pass rows with image: those of known things with their name as answers, the others without answers.",
            )
        rows = [*known, *other]
        values, bad = each_read(subject, rows, lambda good: _values(subject, good, names))
        return [
            Sample(
                e.id, "known" if e.answers else "other", e.id, "".join(e.answers[:1]), values.get(e.id, {}),
                reason=bad.get(e.id, ""),
            )
            for e in rows
        ]  # fmt: skip

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        known, other = ([s for s in samples if s.values and s.group == group] for group in ("known", "other"))
        several = min(len(known), len(other)) > 1
        n = len(known) + len(other) if several else 0
        found: list[Measure] = []
        for score in SCORES:
            scores = [[s.values[score] for s in of_kind] for of_kind in (known, other)]
            told = detection(scores[0], scores[1], seed=seed) if several else Detection(NOTHING, NOTHING)
            found.append(self._row("auroc", score, told.auroc, n, len(samples) - n))
            found.append(self._row("fpr95", score, told.fpr95, n, len(samples) - n))
        for score in SCORES:
            tables = [np.array([[s.values[_key(score, k)] for k in WORDINGS] for s in one]) for one in (known, other)]
            over = detection_over(tables[0], tables[1], seed=seed) if several else {}
            for name in ("auroc", "fpr95"):
                each = over.get(name, Several(NOTHING, NOTHING))
                group = f"{score}, {len(FRAMES)} wordings"
                found.append(self._row(name, group, each.mean, n, len(samples) - n))
                found.append(self._row(f"{name}_spread", group, each.spread, n, len(samples) - n))
        return [
            *found,
            mean_row(self.axis, self.name, "accepted", "known", samples, "higher", "share", seed),
            mean_row(self.axis, self.name, "accepted", "other", samples, "lower", "share", seed),
            mean_row(self.axis, self.name, "accuracy", "known", samples, "higher", "share", seed),
            mean_row(self.axis, self.name, "nll", "known", samples, "lower", "number", seed),
            mean_row(self.axis, self.name, "overconfidence", "known", samples, "neither", "number", seed),
        ]

    def _row(self, name: str, group: str, interval: Interval, n: int, unscored: int) -> Measure:
        floor, better = FLOORS[name]
        return Measure(
            self.axis, self.name, name, group, *interval, n, unscored, better,
            judge=JUDGE, unit="number" if name.startswith("auroc") else "share", floor=floor,
            says=SAYS if (name, group) == ("auroc", "mcm") else "", ceiling=1.0,
        )  # fmt: skip


def _kinds(data: Dataset, limit: int | None) -> tuple[list[Example], list[Example]]:
    """Pictures of known things and of others, the first `limit` of each."""
    pictures = [example for example in data.examples if example.image is not None]
    return [e for e in pictures if e.answers][:limit], [e for e in pictures if not e.answers][:limit]


def _values(target: DualTarget, rows: Sequence[Example], names: Sequence[str]) -> list[dict[str, float]]:
    """The numbers of each picture; those that need a right answer for known things only."""
    images = [example.image for example in rows if example.image is not None]
    texts = [PHOTO.format(name) for name in names]
    logits = target.logits(images, texts).double()
    columns = _scores(target, images, names, logits) | {"accepted": target.accepts(images).double()}
    known = [k for k, example in enumerate(rows) if example.answers]
    right = torch.tensor([names.index(rows[k].answers[0]) for k in known], dtype=torch.long)
    hit = (logits[known].argmax(1) == right).double()
    of_known = {
        "accuracy": hit,
        "nll": nll(logits[known], right, target.pair_kind),
        "overconfidence": as_probabilities(logits[known], target.pair_kind).amax(1) - hit,
    }
    values = [{name: float(column[k]) for name, column in columns.items()} for k in range(len(rows))]
    for place, k in enumerate(known):
        values[k] |= {name: float(column[place]) for name, column in of_known.items()}
    return values


def _scores(
    target: DualTarget, images: Sequence[Image], names: Sequence[str], logits: Float[Tensor, "image text"]
) -> dict[str, Float[Tensor, " image"]]:
    """Both scores in each wording; in all but the first the largest cosine stands for the largest logit.

    Scale and bias of logits are one for all, so that pictures rank alike by either.
    """
    embedded, found = target.embed_images(images), {"max_logit": max_logit(logits)}
    for place, frame in enumerate(FRAMES):
        cosines = embedded @ target.embed_texts([frame.format(name) for name in names]).T
        found[_key("mcm", place)] = mcm(cosines)
        if place:
            found[_key("max_logit", place)] = max_logit(cosines)
    return found


def _key(score: str, wording: int) -> str:
    """The name of a score among the values of a sample: that of the first wording is the score's own."""
    return f"{score}:{wording}" if wording else score


SUITE = OutOfDistribution()
