"""Calibrated projection: take an attribute out of the text embeddings of a dual encoder.

Chuang et al. 2023, arXiv 2302.00070. With A the embeddings of prompts that name the attribute and nothing else, and
pairs of prompts that differ in the attribute alone and should coincide,

    P0 = I - A^T (A A^T)^-1 A,   M = mean of (z_i - z_j)(z_i - z_j)^T,   P = P0 (I + lambda M)^-1.

P0 stands on the left: what comes out has no part along A at all. Images stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapTexts
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData, BadParameter
from vlmend.methods.maps import drawn_together
from vlmend.methods.pairs import gendered_texts, text_pairs
from vlmend.pictures.galleries import GENDERS, PHOTO

__all__ = ["METHOD", "SPURIOUS", "TextProjection", "calibrated_projection"]

SPURIOUS = "spurious"
"""The group of rows that name the attribute alone."""


@dataclass(frozen=True)
class TextProjection(AbstractMethod[DualTarget]):
    """Calibrated projection of text embeddings.

    Attributes:
        calibration: lambda, how strongly pairs are drawn together; 0 projects only. The paper's 1000.
    """

    name: ClassVar[str] = "text_projection"
    source: ClassVar[str] = "Chuang et al., arXiv 2302.00070"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product a text"
    data: ClassVar[str] = "prompts that name the attribute, and pairs that differ in it"
    works_on: ClassVar[Kind] = "dual"

    calibration: float = 1000.0

    def __post_init__(self) -> None:
        if self.calibration < 0:
            raise BadParameter(f"calibration={self.calibration:g} is below 0.", "0 projects without calibration.")

    def builtin(self) -> Dataset:
        """Gender: men and women as such, and the man and the woman of each of 20 professions."""
        alone = [Example(f"{SPURIOUS}:{gender}", PHOTO.format(gender), "benign", SPURIOUS) for gender in GENDERS]
        return Dataset("gender-prompts", (*alone, *gendered_texts()), "Apache-2.0")

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Project out the prompts of group `spurious`; prompts of any other group are drawn together.

        Raises:
            BadData: The data holds no spurious prompt, or no group with two prompts.
        """
        spurious = [row.prompt for row in data.examples if row.image is None and row.group == SPURIOUS]
        pairs = text_pairs(data, without=SPURIOUS)
        if not spurious or not pairs:
            raise BadData(
                f"{data.name} has {len(spurious)} prompts of category {SPURIOUS!r} and {len(pairs)} pairs of others.",
                f"Rows of category {SPURIOUS!r} name the attribute; two or more of any other category should coincide.",
            )
        first, second = (target.embed_texts([pair[k] for pair in pairs]) for k in (0, 1))
        matrix = calibrated_projection(target.embed_texts(spurious), first - second, self.calibration)
        return self.made(target, data, seed, [MapTexts(matrix)], {})


def calibrated_projection(
    spurious: Float[Tensor, "prompt width"], differences: Float[Tensor, "pair width"], calibration: float
) -> Float[Tensor, "width width"]:
    """P = P0 (I + lambda M)^-1; prompts that depend on each other are projected out once."""
    rows = spurious.double()
    projection = torch.eye(rows.shape[1], dtype=torch.float64) - torch.linalg.pinv(rows) @ rows
    return (projection @ drawn_together(differences, calibration)).float()


METHOD = TextProjection
