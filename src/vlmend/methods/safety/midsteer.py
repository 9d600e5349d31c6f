"""MidSteer: the affine map that moves states least and leaves nothing that tells image from text linearly.

LEACE, arXiv 2306.03819, in its form for one binary concept; with its switch as in the LEACE-Switch and MidSteer family.
With X the states of layer l of the anchors as text and beside a content-free image, S their covariance, d the image's
mean minus the text's, and t a target:

    w = S^-1 d / (d . S^-1 d),    h <- h - beta (w . (h - t)) d

LEACE's oblique projection I - S^1/2 U U^+ S^-1/2 is I - d w^T for one concept. At beta 1 and t the mean of both kinds
it erases: the two means coincide, so no linear probe does better than chance, and no affine map that does so moves
states less in mean square. With t the text's mean, the switch, requests with an image are brought where text is. CMRM
takes out d, whatever the state; this takes out as much of it as the state has, so what earlier layers took out is not
taken out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import AffineMap
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadData
from vlmend.methods.directions import Scope, doses, picked_layers, tokens_of, unit
from vlmend.methods.reading import Anchors, anchors_of, as_text, read_states, with_image

__all__ = ["METHOD", "MidSteer", "oblique_weight"]


@dataclass(frozen=True)
class MidSteer(AbstractMethod):
    """An oblique projection along the image's shift, read where it disturbs least.

    Attributes:
        beta: 1 erases or switches; more goes past the target, 0 is the base.
        to: t. `text`: the switch, to the text states' mean along the shift. `middle`: LEACE, half way.
        layers: Decoder layers, from 0: `all`, `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I': `white`, `black`, `mean_colour` or `noise` (seeded).
        scope: `prefill`: the last prompt token only. `every_step`: every generated token too.
        anchors: Which requests of the data the map is fitted on.
    """

    name: ClassVar[str] = "midsteer"
    source: ClassVar[str] = "LEACE, arXiv 2306.03819, NeurIPS 2023; the switch of the LEACE-Switch and MidSteer family"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "anchor requests"
    quick: ClassVar[Mapping[str, Any]] = {"beta": 2.0}
    sweep: ClassVar[Sweep | None] = Sweep("beta", (0.25, 0.5, 1.0, 1.5))

    beta: float = 1.0
    to: Literal["text", "middle"] = "text"
    layers: str = "all"
    corrupt: Corrupt = "white"
    scope: Scope = "prefill"
    anchors: Anchors = "all"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Read the anchors as text and beside the image, and solve for the map of every layer.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: There are fewer than two anchors, or the image moves no state.
        """
        layers = picked_layers(self.layers, target.layers)
        anchors = anchors_of(data, self.anchors)
        if len(anchors) < 2:
            raise BadData("One anchor has no covariance.", "Pass two requests or more with --data.")
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        text, seen = (read_states(target, anchors, asking) for asking in (as_text, with_image(image)))
        shift = (seen - text).mean(0)
        unit(shift, layers, "The mean shift of an image")
        centre = text.mean(0) if self.to == "text" else (text.mean(0) + seen.mean(0)) / 2
        edits: list[AffineMap] = []
        moved = torch.zeros(seen.shape[:2])
        for layer in layers:
            weight = oblique_weight(torch.cat([text[:, layer], seen[:, layer]]), shift[layer])
            off = weight @ centre[layer]
            moved[:, layer] = abs(self.beta) * (seen[:, layer] @ weight - off).abs() * shift[layer].norm()
            edits.append(self._edit(layer, weight, shift[layer], off))
        return self.made(target, data, seed, edits, doses(layers, moved, seen))

    def _edit(self, layer: int, weight: Tensor, shift: Tensor, off: Tensor) -> AffineMap:
        return AffineMap(
            Site("language", layer), weight[None], shift[:, None], -off * shift, -self.beta,
            tokens=tokens_of(self.scope), when="with_image",
        )  # fmt: skip


def oblique_weight(states: Float[Tensor, "state width"], shift: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """w = S^-1 d / (d . S^-1 d), S the covariance of the states, shrunk after Ledoit and Wolf (2004); in float64.

    w . d = 1 whatever S is, so that d is erased exactly; S decides how little is moved for it.
    """
    rows = states.double()
    spread = rows.var(0).mean().clamp_min(torch.finfo(torch.float64).tiny)
    covariance = torch.from_numpy(ledoit_wolf((rows / spread.sqrt()).numpy())[0])
    solved = torch.linalg.solve(covariance, shift.double())
    return (solved / (shift.double() @ solved)).float()


METHOD = MidSteer
