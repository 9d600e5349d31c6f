"""ReGap: a little of the drift out of every request, and more where the state then rectifies itself.

Adaptive drift correction, ReGap, arXiv 2605.18104; from the abstract, no code found. With v_l CMRM's mean shift of
layer l and w_l what it gained there, r_l the unit direction from benign to harmful anchors as text, and the anchors'
means b_l and m_l of r_l . h_l once the fixed part is out:

    fixed, every layer:         h_l <- h_l - alpha w_l
    adaptive, from layer g on:  h_l <- h_l - beta clamp((r_l . h_l - b_l) / (m_l - b_l), 0, 1) w'_l

where w'_g is all of v_g and later ones are its gains. What the corrected state says of the request, r_l . h_l, is the
signal of self-rectification: where it stands with benign anchors nothing more is taken out, where it stands with
harmful ones beta more. It is read in the pass itself: no extra read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import ActivationEdit
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import steps_of
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadData, BadParameter
from vlmend.methods.directions import Classes, doses, read_classes, unit
from vlmend.methods.ramps import ramp
from vlmend.methods.reading import as_text, with_image
from vlmend.methods.safety.cmrm import CMRM, Shift

__all__ = ["METHOD", "ReGap"]


@dataclass(frozen=True)
class ReGap(AbstractMethod):
    """A fixed part of CMRM's correction, and a part by request.

    Attributes:
        alpha: Strength of the fixed part; 1 takes out the whole shift.
        beta: Strength of what is added where the corrected state stands with the harmful anchors.
        first: The first layer g of the adaptive part; unless given, a third of the depth.
        corrupt: The content-free image that the shift is measured with.
    """

    name: ClassVar[str] = "regap"
    source: ClassVar[str] = "ReGap, arXiv 2605.18104 (from the abstract)"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and harmless anchor requests"
    sweep: ClassVar[Sweep | None] = Sweep("beta", (0.25, 0.75, 1.5, 3.0))

    alpha: float = 0.25
    beta: float = 0.75
    first: int | None = None
    corrupt: Corrupt = "white"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Measure the shift, then where the anchors stand once the fixed part is out.

        Raises:
            BadData: The data lacks harmful or harmless anchors, or no layer tells them apart.
            BadParameter: The model has no such layer.
        """
        first = target.layers // 3 if self.first is None else self.first
        if not 0 <= first < target.layers:
            raise BadParameter(
                f"first={first} does not fit a model of {target.layers} layers.",
                f"They count from 0 to {target.layers - 1}.",
            )
        every, later = range(target.layers), range(first, target.layers)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        text, seen = (read_classes(target, data, asking) for asking in (as_text, with_image(image)))
        towards = unit(text.gap, later, "The difference of harmful and benign requests as text")
        drift = (seen.states - text.states).mean(0)
        size = seen.states.norm(dim=-1).mean(0)
        fixed = CMRM(alpha=self.alpha, mode="increment").edits_for(Shift(drift, size, torch.ones(target.layers)), every)
        view = target.with_mend(self.made(target, data, seed, fixed, {}))
        corrected = read_classes(view, data, with_image(image))
        adaptive, extra = self._adaptive(corrected, towards, steps_of(drift, later, "increment"))
        edits: list[ActivationEdit] = []
        for edit in fixed:
            edits += [edit, *(one for one in adaptive if one.site == edit.site)]
        taken = extra + torch.stack([edit.vector.norm() for edit in fixed])
        return self.made(target, data, seed, edits, doses(every, taken, seen.states))

    def _adaptive(
        self, corrected: Classes, towards: Float[Tensor, "layer width"], steps: dict[int, Float[Tensor, " width"]]
    ) -> tuple[list[ActivationEdit], Float[Tensor, "anchor layer"]]:
        """The edits of the layers that tell harmful from benign anchors, and how far they move each anchor."""
        harmful, benign = ((part * towards).sum(-1).mean(0) for part in (corrected.harmful, corrected.benign))
        along = (corrected.states * towards).sum(-1)
        edits: list[ActivationEdit] = []
        moved = torch.zeros_like(along)
        for layer, step in steps.items():
            apart = float(harmful[layer] - benign[layer])
            if apart <= 0:
                continue  # there the corrected states say nothing of harm
            start = float(benign[layer]) / apart
            edits.append(ramp(Site("language", layer), towards[layer] / apart, start, 1.0, -step, self.beta))
            moved[:, layer] = abs(self.beta) * (along[:, layer] / apart - start).clamp(0, 1) * step.norm()
        if not edits:
            raise BadData(
                "At no layer do harmful anchors stand further along the text path's direction than benign ones.",
                "Use cmrm, which needs no such signal, or other data.",
            )
        return edits, moved


METHOD = ReGap
