"""robustness/anomaly_segmentation: where in a picture is what the model has no name for?

Windows over the picture are named among the known things. A window's anomaly score is its largest logit, negated
(Hendrycks et al., ICML 2022, arXiv 1911.11132), and a pixel's the mean over the windows that it lies in. Scores are
held against a mask, picture by picture as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.means import FLOOR, mean_row
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.calibration import as_probabilities
from vlmend.core.metrics.detection import max_logit
from vlmend.core.metrics.pixels import PixelDetection, pixel_detection, spread_over_pixels, windows
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData
from vlmend.pictures.galleries import PHOTO, UNKNOWN, scenes_with_unknown

__all__ = ["ACROSS", "SUITE", "AnomalySegmentation"]

COUNT = 40
"""Built-in scenes, each with an unknown thing and, as the control, with a known one in its place."""

ACROSS = 3
"""Windows that fit the short side of a picture."""

DARK, LIGHT = 64, 192
"""A mask is darker than the one where things are known, and at least as light as the other where they are not; what
lies between is void."""

ROWS: dict[str, tuple[Better, Unit]] = {
    "auroc": ("higher", "number"), "aupr": ("higher", "number"), "fpr95": ("lower", "share"),
    "msp_auroc": ("higher", "number"),
}  # fmt: skip

SAYS = "finds the pixels of unknown things with an AUROC of {value}"


class AnomalySegmentation(SampleSuite[DualTarget]):
    """AUROC, AUPR and FPR95 of pixels by the largest logit, and the AUROC by the largest probability beside it."""

    name: ClassVar[str] = "robustness/anomaly_segmentation"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "where in a picture a thing is that the model has no name for (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return bool(self.uses(data))

    def uses(self, data: Dataset) -> list[Example]:
        return [row for row in data.examples if row.image is not None and row.more_images and row.answers]

    def sample_data(self) -> Dataset:
        return scenes_with_unknown("held_out", 3, 0)

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = scenes_with_unknown(split, COUNT, seed) if data is None else data
        rows = self.uses(given)
        names = sorted({name for row in rows for name in row.answers})
        if len(names) < 2:
            raise BadData(
                f"{given.name} has {len(rows)} pictures with a mask, and {len(names)} names of known things.",
                "Pass rows with image, its mask as a further image (white where a thing is unknown, black where all is "
                "known, grey where nothing counts), and the names of all known things as answers.",
            )
        texts = [PHOTO.format(name) for name in names]
        groups = dict.fromkeys(map(_group, rows))
        chosen = [row for group in groups for row in [one for one in rows if _group(one) == group][:limit]]
        return [_sample(subject, row, texts) for row in chosen]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        groups = list(dict.fromkeys(sample.group for sample in samples))
        rows = [
            mean_row(self.axis, self.name, name, group, samples, better, unit, seed, ceiling=1.0)
            for group in groups
            for name, (better, unit) in ROWS.items()
        ]
        return [replace(rows[0], says=SAYS), *rows[1:]] if rows else []


def _sample(target: DualTarget, row: Example, texts: Sequence[str]) -> Sample:
    """The numbers of one picture; none where it or its mask cannot be read, or holds nothing to tell apart."""
    found = Sample(row.id, _group(row), row.attributes.get("of", row.id), row.caption or row.id)
    problem = problem_of(target, row)
    if problem or row.image is None:
        return replace(found, reason=problem)
    mask = np.asarray(row.more_images[0].decode().convert("L"))
    unknown, counted = mask >= LIGHT, (mask < DARK) | (mask >= LIGHT)
    size = row.image.decode().size
    if mask.shape != (size[1], size[0]):
        return replace(
            found, reason=f"Its mask is {mask.shape[1]} x {mask.shape[0]}, the picture {size[0]} x {size[1]}."
        )
    if not (unknown & counted).any() or not (~unknown & counted).any():
        return replace(found, reason="Its mask has no unknown or no known pixel.")
    by_logit, by_share = (pixel_detection(-one, unknown, counted) for one in _maps(target, row.image, texts))
    return replace(found, values=_values(by_logit, by_share))


def _maps(
    target: DualTarget, image: Image, texts: Sequence[str]
) -> tuple[Float[npt.NDArray[np.float64], "height width"], Float[npt.NDArray[np.float64], "height width"]]:
    """The largest logit and the largest probability at each pixel."""
    pixels = image.decode()
    places = windows(*pixels.size, ACROSS)
    logits = target.logits([Image.from_pixels(pixels.crop(place), image.name) for place in places], texts)

    def spread(scores: Float[Tensor, " window"]) -> Float[npt.NDArray[np.float64], "height width"]:
        return spread_over_pixels(places, scores.double().tolist(), *pixels.size)

    return spread(max_logit(logits)), spread(max_logit(as_probabilities(logits, target.pair_kind)))


def _values(by_logit: PixelDetection, by_share: PixelDetection) -> dict[str, float]:
    return {
        "auroc": by_logit.auroc, f"auroc{FLOOR}": 0.5, "aupr": by_logit.aupr, f"aupr{FLOOR}": by_logit.base_rate,
        "fpr95": by_logit.fpr95, f"fpr95{FLOOR}": 0.95, "msp_auroc": by_share.auroc, f"msp_auroc{FLOOR}": 0.5,
    }  # fmt: skip


def _group(row: Example) -> str:
    return row.group or UNKNOWN


SUITE = AnomalySegmentation()
