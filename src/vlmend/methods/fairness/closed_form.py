"""Closed-form debiasing: embeddings of both towers turn away from an attribute as far as it pays.

Lian et al. 2026, arXiv 2603.12998 (CVPR 2026). The attribute's subspace is spanned by the differences of group
prototypes, each the mean of texts that name the group, brought to length 1. What becomes of an embedding is the edit
`TurnFrom`: no training, no pictures, no labels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import TurnFrom
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData
from vlmend.pictures.galleries import GENDERS, PHOTO, professions

__all__ = ["METHOD", "ClosedForm", "attribute_basis"]

SAME = 1e-4
"""Singular values of prototype differences below this say that prototypes are the same, up to rounding."""


@dataclass(frozen=True)
class ClosedForm(AbstractMethod[DualTarget]):
    """Turn embeddings away from what tells groups apart, where fairness and utility weigh alike.

    Attributes:
        towers: Whose embeddings turn; the paper's `both`.
    """

    name: ClassVar[str] = "closed_form"
    source: ClassVar[str] = "Lian et al., arXiv 2603.12998, CVPR 2026"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product an embedding"
    data: ClassVar[str] = "prompts that name the groups"
    works_on: ClassVar[Kind] = "dual"

    towers: Literal["both", "vision", "text"] = "both"

    def builtin(self) -> Dataset:
        """Men and women as such, and of each of 20 professions."""
        named = [(gender, f"{gender} {profession}") for profession in professions() for gender in GENDERS]
        rows = [(gender, gender) for gender in GENDERS] + named
        examples = tuple(Example(text, PHOTO.format(text), None, gender) for gender, text in rows)
        return Dataset("gender-prompts-by-group", examples, "Apache-2.0")

    def sample_data(self) -> Dataset:
        """Two texts a group."""
        return Dataset("gender-prompts-by-group", self.builtin().examples[:4])

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Find the subspace of the groups that texts without image name by their category.

        Raises:
            BadData: There are fewer than two groups, or the encoder does not tell them apart.
        """
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for example in data.examples:
            if example.image is None and example.prompt and example.group:
                groups[example.group].append(example.prompt)
        if len(groups) < 2:
            raise BadData(
                f"{data.name} has prompts of {len(groups)} groups ({', '.join(groups) or 'none'}).",
                "Pass rows without image: prompts that name a group, and the group as category; two groups or more.",
            )
        basis = attribute_basis([target.embed_texts(texts) for texts in groups.values()])
        if not len(basis):
            raise BadData(
                f"The prompts of {', '.join(groups)} have the same embeddings, so there is nothing to turn from.",
                "Pass prompts that tell the groups apart.",
            )
        towers: tuple[Literal["vision", "text"], ...] = ("vision", "text")
        edits = [TurnFrom(basis, tower) for tower in towers if self.towers in (tower, "both")]
        return self.made(target, data, seed, edits, {})


def attribute_basis(groups: list[Float[Tensor, "_ width"]]) -> Float[Tensor, "direction width"]:
    """An orthonormal basis of the differences of group prototypes: at most one direction fewer than groups."""
    prototypes = normalize(torch.stack([texts.double().mean(0) for texts in groups]), dim=1)
    _, size, rows = torch.linalg.svd(prototypes - prototypes.mean(0), full_matrices=False)
    return rows[size > SAME].float()


METHOD = ClosedForm
