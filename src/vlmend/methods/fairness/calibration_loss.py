"""Calibration loss: what should coincide is drawn together, and nothing is projected out.

Chuang et al. 2023, arXiv 2302.00070, without its projection. With z_i and z_j the embeddings of what differs in a
protected attribute alone and should coincide, M = mean of (z_i - z_j)(z_i - z_j)^T, the map G that minimises

    |G - I|^2 + lambda * mean |G z_i - G z_j|^2      is      G = (I + lambda M)^-1,

symmetric, with eigenvalues 1 / (1 + lambda mu): directions in which pairs differ shrink, all others stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages, MapTexts
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData, BadParameter
from vlmend.methods.maps import drawn_together
from vlmend.methods.pairs import gendered_texts, picture_pairs, text_pairs
from vlmend.pictures.counterparts import with_counterparts
from vlmend.pictures.galleries import people_gallery

__all__ = ["METHOD", "CalibrationLoss"]


@dataclass(frozen=True)
class CalibrationLoss(AbstractMethod[DualTarget]):
    """Maps under which embeddings that should coincide do.

    Attributes:
        calibration: lambda, how strongly pairs are drawn together; 0 leaves all as it is.
        towers: Whose embeddings are mapped: each by pairs of its own kind.
    """

    name: ClassVar[str] = "calibration_loss"
    source: ClassVar[str] = "Chuang et al., arXiv 2302.00070"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product an embedding"
    data: ClassVar[str] = "texts, pictures or both that differ in the attribute alone"
    works_on: ClassVar[Kind] = "dual"

    calibration: float = 100.0
    towers: Literal["both", "vision", "text"] = "both"

    def __post_init__(self) -> None:
        if self.calibration < 0:
            raise BadParameter(f"calibration={self.calibration:g} is below 0.", "0 leaves everything as it is.")

    def builtin(self) -> Dataset:
        """The man and the woman of each of 20 professions: as texts, and drawn in the same view for training."""
        pictures = [
            Example(row.id, group=row.attributes.get("of", row.id), image=row.image)
            for row in with_counterparts(people_gallery("train")).examples
        ]
        return Dataset("men-and-women", (*gendered_texts(), *pictures), "Apache-2.0")

    def sample_data(self) -> Dataset:
        """Two pairs of texts and two of pictures."""
        rows = self.builtin().examples
        few = {row.group for row in rows[:4]} | {row.group for row in rows[-2:]}
        return Dataset("few-men-and-women", tuple(row for row in rows if row.group in few))

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Draw together the texts of one category, and the pictures of one category.

        Raises:
            BadData: A tower that is to be mapped has no pair of its kind.
        """
        texts, images = text_pairs(data), picture_pairs(data)
        edits: list[MapTexts | MapImages] = []
        if self.towers != "vision" and texts:
            first, second = (target.embed_texts([pair[k] for pair in texts]) for k in (0, 1))
            edits.append(MapTexts(drawn_together(first - second, self.calibration).float()))
        if self.towers != "text" and images:
            seen, other = (target.embed_images([pair[k] for pair in images]) for k in (0, 1))
            edits.append(MapImages(drawn_together(seen - other, self.calibration).float()))
        wanted = 2 if self.towers == "both" else 1
        if len(edits) < wanted:
            raise BadData(
                f"{data.name} has {len(texts)} pairs of texts and {len(images)} of pictures that should coincide.",
                "Rows of one category should coincide: texts without image, or pictures. Two or more of a category are "
                "needed for each tower that is to be mapped (towers=vision or text maps one alone).",
            )
        return self.made(target, data, seed, edits, {})


METHOD = CalibrationLoss
