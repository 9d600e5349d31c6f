"""CMRM at dataset level: take out of every request the shift that an image as such causes.

Cross-Modality Representation Manipulation, Liu et al., arXiv 2410.09047 (Findings of ACL 2025).
The shift of decoder layer l is the mean over anchors x of

    v_l = h_l(x, I') - h_l(x)

at the last prompt position, I' a content-free image; the mended state is h_l - alpha v_l. The sign
is fixed here: v is image minus text, and it is subtracted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Access, GenerativeTarget
from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, Tokens
from vlmend.core.examples import Dataset, Example, Label
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter

__all__ = ["CMRM", "METHOD", "Mode", "Scope", "Shift", "layers_of", "measure_shift", "steps_of"]

Mode = Literal["increment", "full", "last_only"]
Scope = Literal["prefill", "every_step"]

BATCH = 16


@dataclass(frozen=True)
class CMRM(AbstractMethod):
    """CMRM with one fixed correction per layer.

    Attributes:
        alpha: Strength; 1 takes out the whole shift.
        layers: Decoder layers, from 0: `all`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I': `blank` (white) or `noise` (uniform, seeded).
        mode: `increment`: each layer takes out only what the shift gained since the last selected
            layer, so that the sum through any selected layer is its v. `full`: every layer takes
            out its whole v, the paper's literal reading; since residual streams carry a correction
            forward, this over-corrects. `last_only`: the last selected layer takes out its v.
        scope: `prefill`: the last prompt token only; the cache carries it on. `every_step`: every
            generated token too.
        only_with_image: Text-only requests stay untouched.
        anchors: Which requests of the data the shift is measured on.
    """

    name: ClassVar[str] = "cmrm"
    source: ClassVar[str] = "Liu et al., arXiv 2410.09047, Findings of ACL 2025"
    needs: ClassVar[Access] = "hidden"

    alpha: float = 1.0
    layers: str = "all"
    corrupt: Literal["blank", "noise"] = "blank"
    mode: Mode = "increment"
    scope: Scope = "prefill"
    only_with_image: bool = True
    anchors: Literal["harmful", "benign", "all"] = "harmful"

    def fit(self, target: GenerativeTarget, data: Dataset, *, seed: int) -> Mend:
        """Measure the shift in one streaming pass over the anchors and make it a mend.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: The data holds no anchor.
        """
        layers = layers_of(self.layers, target.layers)
        anchors = _anchors(data, self.anchors)
        image = blank_image(target.image_side) if self.corrupt == "blank" else noise_image(target.image_side, seed)
        shift = measure_shift(target, anchors, image)
        edits = self.edits_for(shift, layers)
        dose = {str(e.site): float(e.vector.norm() / shift.size[e.site.layer]) for e in edits}
        card = MendCard(
            method=self.name, parameters=self.parameters, model=target.name,
            model_digest=target.model_digest, data=data.name, data_digest=data.digest,
            seed=seed, versions=versions(), dose=dose, source=self.source,
        )  # fmt: skip
        return Mend(edits, card)

    def edits_for(self, shift: Shift, layers: Sequence[int]) -> tuple[AddVector, ...]:
        """The edits that take `alpha` times the shift out at these layers."""
        tokens: Tokens = "last_prompt" if self.scope == "prefill" else "last"
        when = "with_image" if self.only_with_image else "always"
        return tuple(
            AddVector(Site("language", layer), -self.alpha * step, tokens, when)
            for layer, step in steps_of(shift.mean, layers, self.mode)
        )


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


def measure_shift(target: GenerativeTarget, anchors: Sequence[Example], image: Image) -> Shift:
    """One streaming pass: two prefills an anchor, capture of the last position only.

    Shape: everything but sums "layer width" is freed after its batch, for any anchor count.
    """
    sites = [Site("language", layer) for layer in range(target.layers)]
    total = torch.zeros(())
    unit = torch.zeros(())
    size = torch.zeros(())
    for batch in _batches(anchors):
        text = [Conversation.ask(anchor.prompt) for anchor in batch]
        seen = [Conversation.ask(anchor.prompt, image) for anchor in batch]
        without, with_image = target.hidden(text, sites), target.hidden(seen, sites)
        states = torch.stack([with_image[site] for site in sites])
        delta = states - torch.stack([without[site] for site in sites])
        total = total + delta.sum(1)
        unit = unit + torch.nn.functional.normalize(delta, dim=-1).sum(1)
        size = size + states.norm(dim=-1).sum(1)
    mean = total / len(anchors)
    # The mean of cosines with v is the cosine of v with the mean unit shift, times its length.
    agreement = (unit / len(anchors) * torch.nn.functional.normalize(mean, dim=-1)).sum(-1)
    return Shift(mean, size / len(anchors), agreement)


def steps_of(
    mean: Float[Tensor, "layer width"], layers: Sequence[int], mode: Mode
) -> Iterator[tuple[int, Float[Tensor, " width"]]]:
    """What each selected layer takes out at alpha 1: over layers l1 < l2 < ...

    increment: v_l1, then v_lk - v_l(k-1). full: v_lk. last_only: v of the last one.
    """
    if mode == "last_only":
        layers = layers[-1:]
    before = torch.zeros_like(mean[0])
    for layer in layers:
        yield layer, mean[layer] - before
        if mode == "increment":
            before = mean[layer]


def layers_of(text: str, depth: int) -> tuple[int, ...]:
    """Read `all`, `0-9` or `4,8,20-29` as sorted layer numbers below `depth`.

    Raises:
        BadParameter: It reads otherwise, or names a layer that is not there.
    """
    if text == "all":
        return tuple(range(depth))
    found: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if span is None:
            raise BadParameter(f"layers={text!r} cannot be read.", "Write all, 0-9 or 4,8,20-29.")
        found.update(range(int(span[1]), int(span[2] or span[1]) + 1))
    if not found or max(found) >= depth:
        raise BadParameter(
            f"layers={text!r} does not fit a model of {depth} layers.", f"They count from 0 to {depth - 1}."
        )
    return tuple(sorted(found))


def _anchors(data: Dataset, which: Label | Literal["all"]) -> tuple[Example, ...]:
    anchors = data.examples if which == "all" else data.labelled(which)
    if not anchors:
        raise BadData(
            f"{data.name} holds no {which} request to measure the shift on.",
            "Pass other data, or set anchors to harmful, benign or all.",
        )
    return anchors


def _batches(anchors: Sequence[Example]) -> Iterator[Sequence[Example]]:
    ordered = sorted(anchors, key=lambda anchor: len(anchor.prompt))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


METHOD = CMRM
