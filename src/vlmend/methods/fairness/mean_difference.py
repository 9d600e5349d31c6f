"""Mean difference: what tells two groups apart on average is projected out of pictures. The baseline of all remedies.

Of pairs of pictures that show the same but for the person, with u an orthonormal basis of the mean differences between
every two groups:

    x <- unit(x - u u^T x)

Equal means are what no linear classifier gets past: LEACE (Belrose et al., NeurIPS 2023, arXiv 2306.03819)
whitens first, this does not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData
from vlmend.methods.pairs import counterpart_places
from vlmend.pictures.counterparts import with_counterparts
from vlmend.pictures.galleries import people_gallery

__all__ = ["METHOD", "MeanDifference", "basis_of"]

SAME = 1e-6
"""Lengths of mean differences below this say that groups lie alike, up to rounding."""


@dataclass(frozen=True)
class MeanDifference(AbstractMethod[DualTarget]):
    """Projection of pictures off the mean differences of groups."""

    name: ClassVar[str] = "mean_difference"
    source: ClassVar[str] = "mean-difference projection; Belrose et al., arXiv 2306.03819, NeurIPS 2023"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product a picture"
    data: ClassVar[str] = "pictures of people by group, each with another person in the same picture (step face_edit)"
    works_on: ClassVar[Kind] = "dual"

    def builtin(self) -> Dataset:
        """Men and women of 20 professions in views for training, each with the other gender in the same view."""
        return with_counterparts(people_gallery("train"))

    def sample_data(self) -> Dataset:
        """Eight people with their counterparts."""
        few = people_gallery("train")
        return with_counterparts(Dataset("few-people", few.examples[:80:10]))

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Find the directions.

        Raises:
            BadData: There is no pair of two groups, or their means are the same.
        """
        rows = [row for row in data.examples if row.image is not None]
        seen = target.embed_images([row.image for row in rows if row.image is not None])
        basis = basis_of(seen, rows, counterpart_places(data, rows))
        if not len(basis):
            raise BadData(
                f"No pair of {data.name} is of two groups whose pictures differ on average.",
                "Give both pictures of a pair their group as category.",
            )
        width = seen.shape[1]
        return self.made(target, data, seed, [MapImages(torch.eye(width) - basis.T @ basis)], {})


def basis_of(
    seen: Float[Tensor, "row width"], rows: list[Example], pairs: list[tuple[int, int]]
) -> Float[Tensor, "direction width"]:
    """An orthonormal basis of the mean differences between every two groups.

    Args:
        seen: Embeddings of the rows.
        rows: With their group; pairs of which one has none are not read.
        pairs: Places of the rows that show the same but for the person.
    """
    held: defaultdict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for one, other in pairs:
        first, second = sorted((one, other), key=lambda place: rows[place].group)
        groups = (rows[first].group, rows[second].group)
        if groups[0] and groups[0] != groups[1]:
            held[groups].append(seen[first] - seen[second])
    if not held:
        return seen[:0]
    means = torch.stack([torch.stack(each).double().mean(0) for each in held.values()])
    _, size, directions = torch.linalg.svd(means, full_matrices=False)
    return directions[size > SAME].to(seen)


METHOD = MeanDifference
