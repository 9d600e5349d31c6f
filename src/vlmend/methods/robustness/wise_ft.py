"""WiSE-FT: fine-tuned weights brought part of the way back to those before, so that what was known is kept.

Wortsman et al., arXiv 2109.01903 (CVPR 2022). With w0 the tower's weights and w1 those after fine-tuning:

    w(alpha) = (1 - alpha) w0 + alpha w1

Alpha is chosen on pictures like those of the fine-tuning that were held out from it, never on shifted ones.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights, Pixels
from vlmend.errors import BadData, BadParameter
from vlmend.methods.tuning import AbstractTuning, naming_loss
from vlmend.pictures.galleries import some_objects, training_objects
from vlmend.pictures.named import NamedPictures, named_pictures

__all__ = ["ALPHAS", "METHOD", "WiseFt", "best_alpha"]

ALPHAS = tuple(k / 10 for k in range(11))
"""Those that are tried."""

HELD = 5
"""One picture in so many is held out from the fine-tuning to choose alpha."""


@dataclass(frozen=True)
class WiseFt(AbstractTuning):
    """Fine-tuning of the vision tower on the names of pictures, then weights between before and after.

    Attributes:
        alpha: Share of the way from the weights before to those after; chosen on held-out pictures unless given.
    """

    name: ClassVar[str] = "wise_ft"
    source: ClassVar[str] = "Wortsman et al., arXiv 2109.01903, CVPR 2022"
    data: ClassVar[str] = "pictures with their names; training"
    quick: ClassVar[Mapping[str, Any]] = {**AbstractTuning.quick, "alpha": 0.5}

    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.alpha is None or 0 <= self.alpha <= 1):
            raise BadParameter(f"alpha={self.alpha:g} is no share.", "Pass one from 0 (before) to 1 (after), or none.")

    def builtin(self) -> Dataset:
        """A training view of each known object on a ground of light and shade."""
        return training_objects(1, "ground")

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Fine-tune a twin of the tower on the rows with an image and a right answer, then choose alpha.

        Raises:
            BadData: There are fewer than two names, or too few pictures to choose alpha on.
            MissingExtra: peft is not installed, which adapters need.
        """
        known = named_pictures(data)
        learnt, held = _parted(known, seed) if self.alpha is None else (list(range(len(known.images))), [])
        if self.alpha is None and not held:
            raise BadData(
                f"{data.name} has {len(known.images)} pictures with a name, too few to hold some out to choose alpha.",
                f"Pass {HELD} or more, or alpha.",
            )
        twin = self.twin(target, seed)
        learner, texts = target.on(twin.model), target.bare.embed_texts(known.texts)
        right = torch.tensor(known.right)

        def loss(step: int, pixels: Pixels, places: Sequence[int]) -> Tensor:
            del step
            return naming_loss(learner, pixels, texts, right[[learnt[place] for place in places]])(pixels.values)

        self.trained(target, twin, [known.images[place] for place in learnt], loss, seed)
        whole = self.made(target, data, seed, twin.edits, {})
        if self.alpha is not None:
            return replace(whole, edits=tuple(edit.scaled(self.alpha) for edit in whole.edits))
        shares = _curve(target, whole, known, held)
        alpha = best_alpha(shares)
        told = ", ".join(f"{share:.3f} at {one:g}" for one, share in shares.items())
        note = f"alpha is {alpha:g}, chosen on {len(held)} pictures held out from the fine-tuning; named right: {told}."
        card = replace(whole.card, notes=(note,))
        return Mend(tuple(edit.scaled(alpha) for edit in whole.edits), card)


def best_alpha(shares: Mapping[float, float]) -> float:
    """The alpha with the largest share; of equal ones the smallest, which changes least."""
    return min(shares, key=lambda alpha: (-shares[alpha], alpha))


def _parted(known: NamedPictures, seed: int) -> tuple[list[int], list[int]]:
    """Places to learn on, and places to choose alpha on."""
    places = list(range(len(known.images)))
    random.Random(f"wise_ft:{seed}").shuffle(places)
    count = len(places) // HELD
    return sorted(places[count:]), sorted(places[:count])


def _curve(target: DualWeights, whole: Mend, known: NamedPictures, held: Sequence[int]) -> dict[float, float]:
    """Share of the held-out pictures that is named right, by alpha."""
    images, right = [known.images[place] for place in held], torch.tensor([known.right[place] for place in held])
    shares: dict[float, float] = {}
    for alpha in ALPHAS:
        said = target.bare.with_mend(whole.scaled(alpha)).logits(images, known.texts).argmax(1)
        shares[alpha] = float((said == right).double().mean())
    return shares


METHOD = WiseFt
