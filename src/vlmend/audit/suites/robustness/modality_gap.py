"""robustness/modality_gap: how far apart do images and texts lie, and does it matter when they are moved or attacked?

Each picture has a text of its own. The pairs are measured as they are, with the gap between the two clouds made smaller
or larger, and as an attack left the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.attacked import CLEAN, OF_SHIFT, group_of
from vlmend.audit.means import FLOOR, JUDGE, mean_row
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.modality import gap_floor, gap_shares, moved, told_apart
from vlmend.core.metrics.resampling import paired_bootstrap
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData
from vlmend.pictures.galleries import PHOTO, object_pictures

__all__ = ["FACTORS", "SUITE", "ModalityGap"]

FACTORS = (0.0, 0.5, 1.5, 2.0)
"""Of the gap, to which the clouds of clean pictures and texts are moved."""

MEANS: dict[str, tuple[Better, Unit]] = {
    "gap": ("neither", "number"), "separability": ("neither", "share"), "pair_cosine": ("higher", "number"),
    "recall_at_1": ("higher", "share"),
}  # fmt: skip

SAYS = "keeps pictures and texts {value} apart (0 is no gap, 2 the largest)"


class ModalityGap(SampleSuite[DualTarget]):
    """Size of the gap, how well images and texts are told apart, cosine and recall of pairs."""

    name: ClassVar[str] = "robustness/modality_gap"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "how far apart pictures and their texts lie (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return len({_text(row) for row in _rows(data)}) > 1

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = object_pictures(split) if data is None else data
        rows = _rows(given)
        if len({_text(row) for row in rows}) < 2:
            raise BadData(
                f"{given.name} has {len(rows)} pictures with fewer than two different texts.",
                "Pass rows with image and caption, or with answers (the name): two or more that differ.",
            )
        found: list[Sample] = []
        for group in dict.fromkeys([CLEAN, *map(group_of, rows)]):
            chosen = [row for row in rows if group_of(row) == group][:limit]
            bad = {row.id: why for row in chosen if (why := problem_of(subject, row))}
            good = [row for row in chosen if row.id not in bad]
            values = _values(subject, good, group, seed) if good else {}
            for told in values or {group: []}:
                known = dict(zip([row.id for row in good], values.get(told, []), strict=True))
                found += [_sample(row, told, known.get(row.id, {}), bad.get(row.id, "")) for row in chosen]
        return found

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        groups = list(dict.fromkeys(sample.group for sample in samples))
        rows = [
            mean_row(
                self.axis, self.name, name, group, samples, better, unit, seed,
                says=SAYS if (name, group) == ("gap", CLEAN) else "",
            )
            for group in groups
            for name, (better, unit) in MEANS.items()
        ]  # fmt: skip
        others = [
            group for group in groups if group != CLEAN and not group.startswith(f"{CLEAN}, ") and OF_SHIFT not in group
        ]
        changes = [
            self._change(name, group, samples, seed)
            for group in others
            for name in ("gap", "pair_cosine")
            if CLEAN in groups
        ]
        return [*rows, *changes]

    def _change(self, name: str, group: str, samples: Sequence[Sample], seed: int) -> Measure:
        """A mean under attack or shift less that of the same pictures as they were."""
        before, after = (
            {s.cluster: s.values[name] for s in samples if s.group == one and s.values} for one in (CLEAN, group)
        )
        shared = [cluster for cluster in before if cluster in after]
        change = paired_bootstrap([before[one] for one in shared], [after[one] for one in shared], seed=seed)
        unscored = sum(s.group == group and not s.values for s in samples)
        return Measure(
            self.axis, self.name, f"{name}_change", group, *change, len(shared), unscored, "neither",
            judge=JUDGE, unit="number", floor=0.0,
        )  # fmt: skip


def _rows(data: Dataset) -> list[Example]:
    return [row for row in data.examples if row.image is not None and _text(row)]


def _text(row: Example) -> str:
    """The caption, or the name as a caption."""
    return row.caption or (PHOTO.format(row.answers[0]) if row.answers else "")


def _sample(row: Example, group: str, values: dict[str, float], reason: str) -> Sample:
    return Sample(f"{row.id}@{group}", group, row.attributes.get("of", row.id), _text(row), values, reason=reason)


def _values(target: DualTarget, rows: Sequence[Example], group: str, seed: int) -> dict[str, list[dict[str, float]]]:
    """By group the numbers of each pair: as the pairs are, and of clean ones with the gap moved."""
    own = [_text(row) for row in rows]
    names = list(dict.fromkeys(own))
    places = torch.tensor([names.index(text) for text in own])
    images = target.embed_images([row.image for row in rows if row.image is not None]).double()
    texts = target.embed_texts(names).double()[places]
    found = {group: _of_pairs(images, texts, places, seed)}
    if group == CLEAN:
        for factor in FACTORS:
            found[f"{CLEAN}, gap x{factor:g}"] = _of_pairs(*moved(images, texts, factor), places, seed)
    return found


def _of_pairs(
    images: Float[Tensor, "pair width"], texts: Float[Tensor, "pair width"], places: Tensor, seed: int
) -> list[dict[str, float]]:
    """The numbers of each pair, with what chance gives; pairs of one place have one text."""
    cosines, other = images @ texts.T, places[:, None] != places[None, :]
    own = cosines.diagonal()
    columns = {
        "gap": gap_shares(images, texts),
        "separability": told_apart(images, texts, seed=seed),
        "pair_cosine": own,
        f"pair_cosine{FLOOR}": (cosines * other).sum(1) / other.sum(1),
        "recall_at_1": (own > cosines.masked_fill(~other, -torch.inf).amax(1)).double(),
    }
    floors = {
        f"gap{FLOOR}": gap_floor(images, texts, seed=seed), f"separability{FLOOR}": 0.5,
        f"recall_at_1{FLOOR}": 1 / len(places.unique()),
    }  # fmt: skip
    return [
        {name: float(column[k]) for name, column in columns.items() if math.isfinite(column[k])} | floors
        for k in range(len(images))
    ]


SUITE = ModalityGap()
