"""privacy/clip_memorisation: how much more alike are picture and text of a pair because a model was trained on it?

Alignment of a pair is its cosine, over changed views of the picture, less what picture and text have with the texts and
pictures of pairs that nobody was trained on. Memorisation is the alignment under the model less that under a reference,
which was trained on other pairs of the same pool.

Wang et al. 2025 (CLIPMem), arXiv 2502.07830.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.separating import MEMBER, blind_columns, cluster_of, excess_row, pairs_of, separation_rows, words_of
from vlmend.core.contracts import ReferenceSuite, Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Axis, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData, UsageError
from vlmend.pictures.changes import variants

__all__ = ["SUITE", "ClipMemorisation", "alignment"]

GROUPS: Mapping[str, str] = {**MEMBER, "reference": "reference_only", "both": "both"}
"""Values of the attribute `member`, and the groups that they make: trained on by the model, by nobody, by the reference
alone, by both."""

SAYS = "holds pairs that it was trained on {value} more together than a model that was not"
TOLD = "gives away with an AUROC of {value} what it was trained on and a reference was not"


@dataclass(frozen=True)
class ClipMemorisation(ReferenceSuite[DualTarget]):
    """Mean memorisation by who was trained on a pair, and how well it tells members from pairs of nobody."""

    name: ClassVar[str] = "privacy/clip_memorisation"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    own_rows: ClassVar[bool] = False
    about: ClassVar[str] = "how much more a pair's picture and text agree for being trained on, beside a reference"

    reference: DualTarget | None = None

    def beside(self, reference: DualTarget) -> Self:
        return replace(self, reference=reference)

    def applies(self, data: Dataset) -> bool:
        return {row.attributes.get("member") for row in pairs_of(data)} >= set(MEMBER)

    def sample_data(self) -> Dataset | None:
        rows = (
            Example(str(k), image=noise_image(16, k), caption=f"thing {k}", attributes={"member": ("yes", "no")[k % 2]})
            for k in range(8)
        )
        return Dataset("pairs", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        if self.reference is None:
            raise UsageError(f"{self.name} needs a reference.", "Pass --reference MODEL, or call beside(reference).")
        kinds = _checked(data)
        rows = [row for kind in kinds.values() for row in kind[:limit]]
        bad = {row.id: why for row in (*rows, *kinds["no"]) if (why := problem_of(subject, row))}
        foreign = [row for row in kinds["no"] if row.id not in bad]
        good = [row for row in rows if row.id not in bad]
        told = [row for row in good if row.attributes["member"] in MEMBER]
        blind = {row.id: dict(zip(told_by, column, strict=True)) for row, told_by, column in _by_row(told, seed)}
        own, other = (alignment(model, good, foreign) if good else [] for model in (subject, self.reference))
        values = {
            row.id: {"memorisation": f - g, f"memorisation{FLOOR}": 0.0, "alignment": f, **blind.get(row.id, {})}
            for row, f, g in zip(good, own, other, strict=True)
        }
        return [
            Sample(row.id, GROUPS[row.attributes["member"]], cluster_of(row), words_of(row), values.get(row.id, {}),
                   reason=bad.get(row.id, ""))
            for row in rows
        ]  # fmt: skip

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        groups = list(dict.fromkeys(sample.group for sample in samples))
        means = [
            mean_row(self.axis, self.name, "memorisation", group, samples, "lower" if group == MEMBER["yes"] else
                     "neither", "number", seed)
            for group in groups
        ]  # fmt: skip
        pool = [sample for sample in samples if sample.group in MEMBER.values()]
        excess = excess_row(self, "excess", means, pool, "number", SAYS)
        return [*means, excess, *separation_rows(self, {"memorisation": TOLD, "alignment": ""}, pool, seed)]


def alignment(model: DualTarget, rows: Sequence[Example], foreign: Sequence[Example]) -> list[float]:
    """The alignment of each pair: its cosine less that of its picture with foreign texts and of its text with pictures.

    A pair's picture is seen plain and in four changed views. Between -3 and 3.

    Args:
        model: Whose it is.
        rows: The pairs.
        foreign: Pairs that nobody was trained on, of two clusters at least; a pair's own cluster is left out.
    """
    pictures, others = ([row.image.decode() for row in each if row.image is not None] for each in (rows, foreign))
    texts, other_texts = (model.embed_texts([words_of(row) for row in each]).double() for each in (rows, foreign))
    views = [pictures, *zip(*map(variants, pictures), strict=True)]
    seen = torch.stack([_embedded(model, shown) for shown in views]).mean(0)
    of_others = _embedded(model, others)
    apart = torch.tensor([[cluster_of(one) != cluster_of(other) for other in foreign] for one in rows])
    with_texts = ((seen @ other_texts.T) * apart).sum(1) / apart.sum(1)
    with_pictures = ((texts @ of_others.T) * apart).sum(1) / apart.sum(1)
    return ((seen * texts).sum(1) - with_texts - with_pictures).tolist()


def _embedded(model: DualTarget, pictures: Sequence[PIL.Image.Image]) -> Float[Tensor, "picture width"]:
    return model.embed_images([Image.from_pixels(one) for one in pictures]).double()


def _by_row(rows: Sequence[Example], seed: int) -> list[tuple[Example, list[str], list[float]]]:
    """The blind scores of each pair."""
    columns = blind_columns(rows, seed)
    return [(row, list(columns), [column[k] for column in columns.values()]) for k, row in enumerate(rows)]


def _checked(data: Dataset | None) -> dict[str, list[Example]]:
    """The pairs by who was trained on them, members first."""
    rows = pairs_of(data)
    found = {group: [row for row in rows if row.attributes.get("member") == group] for group in GROUPS}
    if not found["yes"] or len({cluster_of(row) for row in found["no"]}) < 2:
        raise BadData(
            f"{data.name if data else 'No data'}: {len(found['yes'])} pairs that the model was trained on, and "
            f"{len(found['no'])} that nobody was; some are needed of either, the latter of two clusters.",
            'Pass --data with rows that have image, caption and "attributes": {"member": "yes"}, "no" (neither model '
            'was trained on it), "reference" (the reference alone), "both": random splits of one pool.',
        )
    return found


SUITE = ClipMemorisation()
