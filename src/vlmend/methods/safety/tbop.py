"""TBOP: take out of every request its component along the direction in which an image as such pushes.

Two Birds, One Projection, Han et al., arXiv 2603.14825; from the abstract, no code found. With anchors
x, a content-free image I' and h_l the state of decoder layer l at the last prompt position:

    u_l = unit(mean over x of [h_l(x, I') - h_l(x)])
    h_l <- h_l - strength (u_l . h_l) u_l

CMRM subtracts one fixed amount along u_l; this takes whatever amount the state has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import ProjectOut
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.directions import Scope, doses, picked_layers, tokens_of, unit
from vlmend.methods.reading import Anchors, anchors_of, as_text, read_states, with_image

__all__ = ["METHOD", "TBOP"]


@dataclass(frozen=True)
class TBOP(AbstractMethod):
    """Projection onto the null space of the modality direction, layer by layer.

    Attributes:
        strength: 1 takes out the whole component; more turns it over, less leaves some.
        layers: Decoder layers, from 0: `all`, `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I': `white`, `black`, `mean_colour` or `noise` (seeded).
        scope: `prefill`: the last prompt token only. `every_step`: every generated token too.
        anchors: Which requests of the data the direction is measured on.
    """

    name: ClassVar[str] = "tbop"
    source: ClassVar[str] = "Han et al., Two Birds, One Projection, arXiv 2603.14825 (from the abstract)"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "anchor requests"
    sweep: ClassVar[Sweep | None] = Sweep("strength", (0.25, 0.5, 0.75, 1.0))

    strength: float = 1.0
    layers: str = "all"
    corrupt: Corrupt = "white"
    scope: Scope = "prefill"
    anchors: Anchors = "all"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Measure the direction of every layer on the anchors.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: The data holds no anchor, or the image moves no state.
        """
        layers = picked_layers(self.layers, target.layers)
        anchors = anchors_of(data, self.anchors)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        seen = read_states(target, anchors, with_image(image))
        shift = (seen - read_states(target, anchors, as_text)).mean(0)
        directions = unit(shift, layers, "The mean shift of an image")
        edits = [
            ProjectOut(
                Site("language", layer), directions[layer][None], self.strength, tokens_of(self.scope), "with_image"
            )
            for layer in layers
        ]
        taken = abs(self.strength) * (seen * directions).sum(-1).abs()
        return self.made(target, data, seed, edits, doses(layers, taken, seen))


METHOD = TBOP
