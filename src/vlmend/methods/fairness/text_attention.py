"""Text attention: sharper or flatter attention in the text tower, at the temperature where groups differ least.

Zayed et al. (arXiv 2305.13088): attention scores before the softmax are multiplied by beta; 1 is the model as it is, 0
attends to all alike. Scores are q k, so beta times the weights that make the queries is the same to rounding, and the
mend is those weights. Nothing is trained: beta is chosen on data, where texts that name two groups of one thing lie
nearest together while names still tell pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualWeights, Kind
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import BadData, BadParameter, ModelProblem
from vlmend.methods.pairs import gendered_texts, text_pairs
from vlmend.pictures.galleries import object_pictures, people_gallery, profession_of
from vlmend.pictures.named import NamedPictures, named_pictures

__all__ = ["BETAS", "METHOD", "TextAttention", "chosen_beta"]

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""What is tried."""

QUERIES = re.compile(r"\.(q_proj|query)\.(weight|bias)$")
"""What makes the queries in transformers' text towers."""


@dataclass(frozen=True)
class TextAttention(AbstractMethod[DualWeights]):
    """One factor on all attention scores of the text tower.

    Attributes:
        beta: The factor; chosen on the data unless given.
        allowed: Share of pictures that may be named wrong more than before for it to be chosen.
    """

    name: ClassVar[str] = "text_attention"
    source: ClassVar[str] = "Zayed et al., arXiv 2305.13088"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; weights of the text tower are replaced"
    data: ClassVar[str] = "texts that name the groups of one thing, and named pictures"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, float]] = {"beta": 0.5}

    beta: float | None = None
    allowed: float = 0.02

    def __post_init__(self) -> None:
        if (self.beta is not None and self.beta < 0) or not 0 <= self.allowed <= 1:
            raise BadParameter(
                f"beta={self.beta}, allowed={self.allowed:g} cannot be.", "beta is 0 or more, allowed a share."
            )

    def builtin(self) -> Dataset:
        """The man and the woman of each of 20 professions as texts; people and objects in views for validation."""
        people = (replace(row, answers=(profession_of(row),)) for row in people_gallery("validation").examples)
        return Dataset("men-women-and-things", (*gendered_texts(), *people, *object_pictures("validation").examples))

    def sample_data(self) -> Dataset:
        """Two pairs of texts and ten pictures."""
        rows = self.builtin().examples
        return Dataset("few-men-and-women", (*rows[:4], *rows[40:240:20]))

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Scale the queries of the text tower, by the factor at which texts of one category lie nearest together.

        Raises:
            BadData: There is no pair of texts, or fewer than two names of pictures, to choose beta on.
            ModelProblem: The text tower has no queries of its own.
        """
        queries = _queries(target)
        if self.beta is not None:
            return self._made(target, data, seed, queries, self.beta)
        pairs, known = text_pairs(data), named_pictures(data)
        if not pairs:
            raise BadData(
                f"{data.name} has no two texts of one category to choose beta on.",
                "Pass texts without image that name the groups of one thing, the thing as category; or beta.",
            )
        found: dict[float, tuple[float, float]] = {}
        for beta in BETAS:
            view = target.bare.with_mend(self._made(target, data, seed, queries, beta))
            first, second = (view.embed_texts([pair[k] for pair in pairs]) for k in (0, 1))
            found[beta] = float((first - second).norm(dim=1).mean()), _named_right(view, known)
        beta = chosen_beta(found, self.allowed)
        told = ", ".join(f"{one:g}: {apart:.3f} and {right:.3f}" for one, (apart, right) in found.items())
        note = f"beta is {beta:g}. Distance of {len(pairs)} pairs of texts and share of pictures named right: {told}."
        mend = self._made(target, data, seed, queries, beta)
        return replace(mend, card=replace(mend.card, notes=(note,)))

    def _made(self, target: DualWeights, data: Dataset, seed: int, queries: Mapping[str, Tensor], beta: float) -> Mend:
        return self.made(
            target, data, seed, [ReplaceWeights(name, beta * value) for name, value in queries.items()], {}
        )


def chosen_beta(found: Mapping[float, tuple[float, float]], allowed: float) -> float:
    """Of factors that cost at most so much accuracy, that with the least distance; of equal ones that nearest to 1.

    Args:
        found: Distance of pairs and share named right, by factor; 1 is among them.
        allowed: Share that may be lost.
    """
    good = {beta: apart for beta, (apart, right) in found.items() if right >= found[1.0][1] - allowed}
    return min(good, key=lambda beta: (good[beta], abs(beta - 1)))


def _named_right(view: DualWeights, known: NamedPictures) -> float:
    said = view.logits(known.images, known.texts).argmax(1)
    return float((said == torch.tensor(known.right)).double().mean())


def _queries(target: DualWeights) -> dict[str, Tensor]:
    """Weights and biases that make queries in the text tower, by their paths in the model."""
    towers = target.towers
    root = towers.path(towers.text) if towers.text is not None else ""
    named = dict(towers.model.named_parameters())
    found = {
        path: value.detach().float().cpu()
        for path, value in named.items()
        if path.startswith(f"{root}.") and QUERIES.search(path)
    }
    if not found:
        raise ModelProblem(
            f"The text tower of {target.name} has no weights that make queries alone.",
            "Take a model whose attention has a linear module for its queries, as transformers' CLIP has.",
        )
    return found


METHOD = TextAttention
