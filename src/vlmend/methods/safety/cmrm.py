"""CMRM at dataset level: take out of every request the shift that an image as such causes.

Cross-Modality Representation Manipulation, Liu et al., arXiv 2410.09047 (Findings of ACL 2025).
The shift of decoder layer l is aggregated over anchors x from

    v_l = h_l(x, I') - h_l(x)

at the last prompt position, I' a content-free image; the mended state is h_l - alpha v_l. The sign
is fixed here: v is image minus text, and it is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, Tokens
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Corrupt, Image, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import Mode, capped, layers_of, steps_of
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.reading import Anchors, anchors_of, as_text, batches, read_states, sites_of, with_image
from vlmend.methods.shift_check import check_shift

__all__ = [
    "CMRM", "METHOD", "Scope", "Shift", "measure_direction", "measure_shift", "sequential_edits", "unit_gain_edits",
]  # fmt: skip

Scope = Literal["prefill", "every_step", "every_token"]
TOKENS: dict[Scope, Tokens] = {"prefill": "last_prompt", "every_step": "last", "every_token": "all"}

TOGETHER = 16
"""Of the modes that steer while they read, all anchors share one forward call: at most this many, evenly spread."""


@dataclass(frozen=True)
class CMRM(AbstractMethod):
    """CMRM with one fixed correction per layer.

    Attributes:
        alpha: Strength; at 1 the states lose the whole shift with `unit_gain`, and the vectors add up to it in others.
        layers: Decoder layers, from 0: `all`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I': `white`, `black`, `mean_colour` or `noise` (seeded).
        mode: What each layer takes out. `unit_gain`: what is missing until the state there has moved by alpha times its
            shift, whatever the blocks make of the layers before. The others: `vlmend.core.shifts.Mode`.
        scope: `prefill`: the last prompt token only; the cache carries it on. `every_step`: every
            generated token too. `every_token`: the whole prompt too, which is not the paper's rule but what
            weights can hold (`vlmend export hf`).
        aggregate: `mean` of the anchors' shifts, or `direction`: their first uncentred principal
            direction with the sign of the mean, as long as their mean projection on it.
        cap: Largest |edit| / |state| of a layer; none unless given.
        only_with_image: Text-only requests stay untouched.
        anchors: Which requests of the data the shift is measured on.
    """

    name: ClassVar[str] = "cmrm"
    source: ClassVar[str] = "Liu et al., arXiv 2410.09047, Findings of ACL 2025"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "anchor requests"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.25, 0.5, 1.0, 2.0))

    alpha: float = 1.0
    layers: str = "all"
    corrupt: Corrupt = "white"
    mode: Mode | Literal["unit_gain"] = "unit_gain"
    scope: Scope = "prefill"
    aggregate: Literal["mean", "direction"] = "mean"
    cap: float | None = None
    only_with_image: bool = True
    anchors: Anchors = "all"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Measure the shift on the anchors and make it a mend.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: The data holds no anchor.
        """
        layers = layers_of(self.layers, target.layers)
        anchors = anchors_of(data, self.anchors)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        notes: tuple[str, ...] = ()
        if self.mode == "sequential":
            edits, sizes = sequential_edits(self, target, anchors, image, layers)
        else:
            shift = (measure_shift if self.aggregate == "mean" else measure_direction)(target, anchors, image)
            edits, sizes = self.edits_by(target, self.aimed(shift, seed), anchors, image, layers), shift.size
            checked = check_shift(target, data, image, shift.mean, layers)
            notes = checked.notes if checked else ()
        dose = {str(edit.site): float(edit.vector.norm() / sizes[edit.site.layer]) for edit in edits}
        mend = self.made(target, data, seed, edits, dose)
        return replace(mend, card=replace(mend.card, notes=notes))

    def aimed(self, shift: Shift, seed: int) -> Shift:
        """The shift that is taken out; a control may turn it elsewhere."""
        return shift

    def edits_by(
        self, target: ChatStates, shift: Shift, anchors: Sequence[Example], image: Image, layers: Sequence[int]
    ) -> tuple[AddVector, ...]:
        """The edits that take `alpha` times this shift out, in any mode but the sequential one."""
        if self.mode == "unit_gain":
            return unit_gain_edits(self, target, shift, anchors, image, layers)
        return self.edits_for(shift, layers)

    def edits_for(self, shift: Shift, layers: Sequence[int]) -> tuple[AddVector, ...]:
        """The edits that take `alpha` times the shift out at these layers, in a mode that needs no mend in progress."""
        assert self.mode != "unit_gain"
        steps = steps_of(shift.mean, layers, self.mode)
        return tuple(self.edit(layer, self.alpha * step, shift.size[layer]) for layer, step in steps.items())

    def edit(self, layer: int, taken: Float[Tensor, " width"], size: Float[Tensor, ""]) -> AddVector:
        """One layer's edit, which takes this out, within the cap."""
        tokens = TOKENS[self.scope]
        when = "with_image" if self.only_with_image else "always"
        return AddVector(Site("language", layer), -capped(taken, size, self.cap), tokens, when)


@dataclass(frozen=True, eq=False)
class Shift:
    """The shift of every layer.

    Attributes:
        mean: v, "layer width", float32.
        size: Mean norm of the states with the image, "layer": what doses are relative to.
        agreement: Mean cosine of single shifts with v, "layer": 1 where one vector says it all.
    """

    mean: Float[Tensor, "layer width"]
    size: Float[Tensor, " layer"]
    agreement: Float[Tensor, " layer"]


def measure_shift(target: ChatStates, anchors: Sequence[Example], image: Image) -> Shift:
    """Mean shift in one streaming pass: two prefills an anchor, capture of the last position only.

    Shape: everything but sums "layer width" is freed after its batch, for any anchor count.
    """
    sites, asking = sites_of(target), with_image(image)
    total = unit = size = torch.zeros(())
    for batch in batches(anchors):
        without = target.hidden([as_text(anchor) for anchor in batch], sites)
        seen = target.hidden([asking(anchor) for anchor in batch], sites)
        states = torch.stack([seen[site] for site in sites])
        delta = states - torch.stack([without[site] for site in sites])
        total = total + delta.sum(1)
        unit = unit + normalize(delta, dim=-1).sum(1)
        size = size + states.norm(dim=-1).sum(1)
    mean = total / len(anchors)
    # The mean of cosines with v is the cosine of v with the mean unit shift, times its length.
    agreement = (unit / len(anchors) * normalize(mean, dim=-1)).sum(-1)
    return Shift(mean, size / len(anchors), agreement)


def measure_direction(target: ChatStates, anchors: Sequence[Example], image: Image) -> Shift:
    """The first uncentred principal direction of the shifts; holds them all, "anchor layer width".

    Centring would take away the very shift that is looked for. A singular vector has no sign of its
    own: it gets the mean's, and as its length the mean projection of the shifts on it.
    """
    seen = read_states(target, anchors, with_image(image))
    delta = seen - read_states(target, anchors, as_text)
    mean = delta.mean(0)
    first = torch.stack([torch.linalg.svd(layer, full_matrices=False).Vh[0] for layer in delta.unbind(1)])
    shift = (mean * first).sum(-1, keepdim=True) * first
    agreement = (normalize(delta, dim=-1) * normalize(shift, dim=-1)).sum(-1).mean(0)
    return Shift(shift, seen.norm(dim=-1).mean(0), agreement)


def sequential_edits(
    cmrm: CMRM, target: ChatStates, anchors: Sequence[Example], image: Image, layers: Sequence[int]
) -> tuple[tuple[AddVector, ...], Float[Tensor, " layer"]]:
    """Each layer's mean shift under the mend of the layers before it, in one read of at most `TOGETHER` anchors."""
    few = spread(anchors, TOGETHER)
    text = target.hidden([as_text(anchor) for anchor in few], sites_of(target))
    sizes = torch.zeros(target.layers)

    def taken(site: Site, seen: Tensor) -> Tensor:
        sizes[site.layer] = seen.norm(dim=-1).mean()
        return cmrm.alpha * (seen - text[site]).mean(0)

    return _steered(cmrm, target, [with_image(image)(anchor) for anchor in few], layers, taken, sizes), sizes


def unit_gain_edits(
    cmrm: CMRM, target: ChatStates, shift: Shift, anchors: Sequence[Example], image: Image, layers: Sequence[int]
) -> tuple[AddVector, ...]:
    """Vectors under which the mean state of every selected layer moves by -alpha v_l, over at most `TOGETHER` anchors.

    They are read together: where a layer is reached, what the layers before it have made of their vectors is there to
    be seen, and its own vector is what is missing.
    """
    batch = [with_image(image)(anchor) for anchor in spread(anchors, TOGETHER)]
    plain = target.hidden(batch, sites_of(target))

    def taken(site: Site, seen: Tensor) -> Tensor:
        return (seen - plain[site]).mean(0) + cmrm.alpha * shift.mean[site.layer]

    return _steered(cmrm, target, batch, layers, taken, shift.size)


def _steered(
    cmrm: CMRM, target: ChatStates, batch: Sequence[Conversation], layers: Sequence[int],
    taken: Callable[[Site, Float[Tensor, "anchor width"]], Float[Tensor, " width"]], sizes: Float[Tensor, " layer"],
) -> tuple[AddVector, ...]:  # fmt: skip
    """Edits that take out of each layer what `taken` makes of its states under the edits of the layers before it."""
    edits: list[AddVector] = []

    def push(site: Site, seen: Tensor) -> Tensor:
        edits.append(cmrm.edit(site.layer, taken(site, seen), sizes[site.layer]))
        return edits[-1].vector

    target.steer(batch, [Site("language", layer) for layer in layers], push, TOKENS[cmrm.scope])
    return tuple(edits)


METHOD = CMRM
