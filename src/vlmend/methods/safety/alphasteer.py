"""AlphaSteer: push a state towards refusal by a map that gives (nearly) nothing for benign states.

Null-space steering, AlphaSteer, arXiv 2506.07022 (ICLR 2026), for text models; on pictures as in NullSteer,
arXiv 2603.22094 (CVPR 2026). With H_b and H_m the states of benign and harmful anchors (a row each), r a direction of
refusal, and P = Q Q^T, Q the right-singular vectors of H_b with the smallest singular values:

    minimise over D   |H_m P D - 1 r^T|^2 + ridge |P D|^2,   then   h <- h + strength h P D

Each row is to be moved by the same r, so P D has rank 1: with Y = H_m Q it is w r^T with

    w = Q Y^T (Y Y^T + ridge I)^-1 1,   and   h <- h + strength (w . h) r

w . h is near 1 for harmful anchors and, since w lies in the span of Q, no larger than |Q^T h| |w| for any state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.beside import read_beside
from vlmend.methods.directions import picked_layers
from vlmend.methods.nullspace import check_map, null_space_edits
from vlmend.methods.reading import anchors_of, as_text, read_states

__all__ = ["METHOD", "AlphaSteer"]


@dataclass(frozen=True)
class AlphaSteer(AbstractMethod):
    """A rank-one map towards refusal, read in the null space of benign states, layer by layer.

    Attributes:
        strength: Share of the refusal direction that a harmful anchor gets.
        layers: Decoder layers, from 0: `inner` (a third to five sixths of the depth), `all`, `upper` half, `middle`, or
            like `10-25`.
        null_share: Share of the directions of a layer that count as benign states' null space, those with the smallest
            singular values; what is exactly null always counts.
        ridge: Price of a large map.
        refusal: r. `image_shift`: harmful anchors as text minus beside an image. `harmful_gap`: harmful minus benign
            anchors beside an image.
        tokens: Where it is added: the `last_prompt` token, or every token of the `prompt`; always read from the last.
        corrupt: The content-free image, one of three images that anchors are read beside.
    """

    name: ClassVar[str] = "alphasteer"
    source: ClassVar[str] = "AlphaSteer, arXiv 2506.07022, ICLR 2026; NullSteer, arXiv 2603.22094, CVPR 2026"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and harmless anchor requests"
    sweep: ClassVar[Sweep | None] = Sweep("strength", (0.1, 0.2, 0.3, 0.6))
    quick: ClassVar[Mapping[str, Any]] = {"ridge": 0.01}

    strength: float = 0.3
    layers: str = "inner"
    null_share: float = 0.6
    ridge: float = 10.0
    refusal: Literal["image_shift", "harmful_gap"] = "image_shift"
    tokens: Literal["last_prompt", "prompt"] = "last_prompt"
    corrupt: Corrupt = "white"

    def __post_init__(self) -> None:
        check_map(self.null_share, self.ridge)

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Read the anchors beside three kinds of image, and solve for the map of every layer.

        Raises:
            BadData: The data lacks harmful or harmless anchors.
            BadParameter: `layers` names layers that the model does not have.
        """
        layers = _layers(self.layers, target.layers)
        harmful, benign = anchors_of(data, "harmful"), anchors_of(data, "benign")
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        states = read_beside(target, (*harmful, *benign), image, seed)
        bad, good = states[:, : len(harmful)].flatten(0, 1), states[:, len(harmful) :].flatten(0, 1)
        if self.refusal == "image_shift":
            towards = (read_states(target, harmful, as_text) - states[0, : len(harmful)]).mean(0)
        else:
            towards = bad.mean(0) - good.mean(0)
        edits, dose = null_space_edits(
            bad, good, towards, layers, null_share=self.null_share, ridge=self.ridge, strength=self.strength,
            tokens=self.tokens,
        )  # fmt: skip
        return self.made(target, data, seed, edits, dose)


def _layers(text: str, depth: int) -> tuple[int, ...]:
    return tuple(range(depth // 3, depth * 5 // 6 + 1)) if text == "inner" else picked_layers(text, depth)


METHOD = AlphaSteer
