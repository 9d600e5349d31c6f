"""What methods that act along measured directions share.

Labelled anchors read as text or beside an image, differences of class means, unit directions, layer
choices by name, scopes, and doses. With h_l the state of decoder layer l at the last prompt position:

    gap_l = mean over harmful anchors of h_l - mean over benign anchors of h_l
    dose_l = mean over anchors of |edit_l| / mean over anchors of |h_l|
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.edits import Tokens
from vlmend.core.examples import Dataset
from vlmend.core.shifts import layers_of
from vlmend.core.sites import Site
from vlmend.core.targets import ChatStates
from vlmend.errors import BadData
from vlmend.methods.reading import Asking, anchors_of, read_states

__all__ = ["Classes", "Scope", "StepMode", "doses", "picked_layers", "read_classes", "tokens_of", "unit"]

Scope = Literal["prefill", "every_step"]
"""`prefill`: the last prompt token only; the cache carries it on. `every_step`: every generated token too."""

StepMode = Literal["increment", "full", "last_only"]
"""The modes of `vlmend.core.shifts.steps_of` that need no mend in progress."""


@dataclass(frozen=True, eq=False)
class Classes:
    """States of all layers of the two classes of anchors, asked in one way.

    Shape: harmful "harmful layer width", benign "benign layer width", float32.
    """

    harmful: Float[Tensor, "harmful layer width"]
    benign: Float[Tensor, "benign layer width"]

    @property
    def gap(self) -> Float[Tensor, "layer width"]:
        """Mean harmful minus mean benign state."""
        return self.harmful.mean(0) - self.benign.mean(0)

    @property
    def middle(self) -> Float[Tensor, "layer width"]:
        """Half way between the two means."""
        return (self.harmful.mean(0) + self.benign.mean(0)) / 2

    @property
    def states(self) -> Float[Tensor, "anchor layer width"]:
        """Harmful anchors first, then benign."""
        return torch.cat([self.harmful, self.benign])


def read_classes(target: ChatStates, data: Dataset, asking: Asking) -> Classes:
    """The states of every harmful and every benign anchor.

    Raises:
        BadData: One of the two labels is missing.
    """
    harmful, benign = anchors_of(data, "harmful"), anchors_of(data, "benign")
    states = read_states(target, (*harmful, *benign), asking)
    return Classes(states[: len(harmful)], states[len(harmful) :])


def picked_layers(text: str, depth: int) -> tuple[int, ...]:
    """`upper` is L/2 to L-1, `middle` is L/2 alone; the rest as `layers_of` reads it.

    Raises:
        BadParameter: It reads otherwise, or names a layer that is not there.
    """
    named = {"upper": tuple(range(depth // 2, depth)), "middle": (depth // 2,)}
    return named[text] if text in named else layers_of(text, depth)


def unit(vectors: Float[Tensor, "layer width"], layers: Sequence[int], what: str) -> Float[Tensor, "layer width"]:
    """Each layer's vector at length 1.

    Raises:
        BadData: A selected layer's vector is zero, so that it has no direction.
    """
    length = vectors.norm(dim=-1, keepdim=True)
    flat = [layer for layer in layers if not length[layer] > 0]
    if flat:
        raise BadData(
            f"{what} is zero at layers {', '.join(map(str, flat))}: the data gives no direction there.",
            "Pass data whose requests differ with --data, or leave these layers out.",
        )
    return vectors / length.clamp_min(torch.finfo(vectors.dtype).tiny)


def tokens_of(scope: Scope) -> Tokens:
    """The positions that a scope names."""
    return "last_prompt" if scope == "prefill" else "last"


def doses(
    layers: Sequence[int], taken: Float[Tensor, "anchor layer"], states: Float[Tensor, "anchor layer width"]
) -> dict[str, float]:
    """Per edited site, the mean length of what the anchors lose or gain, relative to their mean length."""
    share = taken.mean(0) / states.norm(dim=-1).mean(0)
    return {str(Site("language", layer)): float(share[layer]) for layer in layers}
