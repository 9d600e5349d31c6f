"""MARS: the text path's refusal direction at one layer, behind a ReLU, no further than a trust region allows.

Modality-agnostic refusal steering, MARS, arXiv 2606.31876 (NeurIPS 2026 as listed); from the abstract, no code found.
With h_l the state of decoder layer l at the last prompt position, which gives the first token, and g_x a picture of one
random colour:

    r = unit(mean over harmful x of h_l(x) - mean over benign x of h_l(x))        text only
    s = mean over x of [h_l(x, g_x) - h_l(x)]                                     what a neutral picture does
    c = half way between the two means, D = their distance
    z = r . (h_l - s - c) + caution * D,    h_l <- h_l + strength * min(relu(z), radius * D) r

So a request that looks benign once the shift is allowed for stays as it is, and none travels further than `radius`
times the way from one centroid to the other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadParameter
from vlmend.methods.directions import doses, read_classes, unit
from vlmend.methods.ramps import ramp
from vlmend.methods.reading import Asking, anchors_of, as_text

__all__ = ["MARS", "METHOD", "neutral"]


@dataclass(frozen=True)
class MARS(AbstractMethod):
    """A gated push along the text path's refusal direction, within a trust region.

    Attributes:
        strength: Of the push; 0 is the base.
        radius: Longest push at strength 1, as a share of the distance between the two text centroids.
        caution: Moves the gate, in units of D: above 0 more requests are pushed, below 0 fewer.
        layer: The layer that acts; unless given, the one whose z has the right sign for most anchors beside neutral
            pictures, both kinds counted alike, the earliest of equals.
    """

    name: ClassVar[str] = "mars"
    source: ClassVar[str] = "MARS, arXiv 2606.31876, NeurIPS 2026 (from the abstract)"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and harmless anchor requests"
    quick: ClassVar[Mapping[str, Any]] = {"caution": 100.0, "strength": 5.0}
    sweep: ClassVar[Sweep | None] = Sweep("strength", (0.5, 1.0, 2.0, 4.0))

    strength: float = 1.0
    radius: float = 0.5
    caution: float = 0.0
    layer: int | None = None

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise BadParameter(f"radius={self.radius:g} lets nothing move.", "Use a share above 0, such as 0.5.")

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Find the direction on text, the shift beside neutral pictures, and the layer.

        Raises:
            BadData: The data lacks harmful or harmless anchors, or their text states have the same mean.
            BadParameter: The model has no such layer.
        """
        if self.layer is not None and not 0 <= self.layer < target.layers:
            raise BadParameter(
                f"layer={self.layer} does not fit a model of {target.layers} layers.",
                f"They count from 0 to {target.layers - 1}.",
            )
        every = range(target.layers) if self.layer is None else [self.layer]
        asked = (*anchors_of(data, "harmful"), *anchors_of(data, "benign"))
        text = read_classes(target, data, as_text)
        seen = read_classes(target, data, neutral(asked, target.image_side, seed))
        towards = unit(text.gap, every, "The difference of harmful and benign requests as text")
        centre = text.middle + (seen.states - text.states).mean(0)
        along = ((seen.states - centre) * towards).sum(-1)
        layer = _best(along, len(seen.harmful)) if self.layer is None else self.layer
        apart = float(text.gap[layer].norm())
        direction, most = towards[layer], self.radius * apart
        start = float(direction @ centre[layer]) - self.caution * apart
        edit = ramp(Site("language", layer), direction, start, most, direction, self.strength)
        moved = abs(self.strength) * (along + self.caution * apart).clamp(0, most)
        return self.made(target, data, seed, [edit], doses([layer], moved, seen.states))


def neutral(anchors: Sequence[Example], side: int, seed: int) -> Asking:
    """Each request beside a square of one random colour of its own."""
    rng = random.Random(f"neutral:{seed}")
    colours = [(rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in anchors]
    squares = {
        anchor.id: Image.from_pixels(PIL.Image.new("RGB", (side, side), colour), "one colour")
        for anchor, colour in zip(anchors, colours, strict=True)
    }
    return lambda anchor: Conversation.ask(anchor.prompt, squares[anchor.id])


def _best(along: Float[Tensor, "anchor layer"], harmful: int) -> int:
    """The layer with the best mean of both kinds' shares on the right side; `along` has harmful anchors first."""
    right = (along[:harmful] > 0).float().mean(0) + (along[harmful:] <= 0).float().mean(0)
    return int(torch.argmax(right))


METHOD = MARS
