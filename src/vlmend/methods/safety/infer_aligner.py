"""InferAligner: push towards the aligned model's view of harm, where a guard says the request is harmful.

InferAligner, arXiv 2401.11206. The aligned model of the paper is here the same backbone read as text.
With h_l the state of decoder layer l at the last prompt position and I' a content-free image:

    theta_l = mean over harmful x of h_l(x) - mean over benign x of h_l(x)              what is added
    s_l = unit(mean over harmful x of h_l(x, I') - mean over benign x of h_l(x, I'))    what guards
    b_l = - s_l . (the two means' midpoint) + caution * (half the distance of the two means)
    h_l <- h_l + alpha w_l   where s_l . h_l(last prompt position) + b_l > 0

w_l is theta_l (`full`, as the paper says) or what theta gained since the last selected layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import AddVector, Gate
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import steps_of
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.directions import Scope, StepMode, picked_layers, read_classes, tokens_of, unit
from vlmend.methods.reading import as_text, with_image

__all__ = ["METHOD", "InferAligner"]


@dataclass(frozen=True)
class InferAligner(AbstractMethod):
    """Gated steering with the text path's harmful-minus-benign vectors.

    Attributes:
        alpha: Strength; 1 adds the whole vector.
        layers: Decoder layers, from 0: `all`, `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I' of the guard: `white`, `black`, `mean_colour` or `noise` (seeded).
        caution: Moves the guards, in halves of the distance between the class means: above 0 more requests
            are steered, at 1 those like the mean benign one; below 0 fewer.
        mode: What each layer adds, see `vlmend.core.shifts.Mode`; `sequential` is not for this method.
        scope: `prefill`: the last prompt token only. `every_step`: every generated token too.
    """

    name: ClassVar[str] = "infer_aligner"
    source: ClassVar[str] = "InferAligner, arXiv 2401.11206 (adapted: the text path is the aligned model)"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and benign requests"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.25, 0.5, 0.75, 1.0))
    quick: ClassVar[Mapping[str, Any]] = {"caution": 1000.0}

    alpha: float = 1.0
    layers: str = "all"
    corrupt: Corrupt = "white"
    caution: float = 0.0
    mode: StepMode = "increment"
    scope: Scope = "every_step"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Measure vectors and guards; the dose is that of an open gate, relative to all anchors beside I'.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: A label is missing, or the two classes have the same mean.
        """
        layers = picked_layers(self.layers, target.layers)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        seen = read_classes(target, data, with_image(image))
        guards = unit(seen.gap, layers, "The difference of harmful and benign requests beside an image")
        biases = self.caution * seen.gap.norm(dim=-1) / 2 - (guards * seen.middle).sum(-1)
        sizes = seen.states.norm(dim=-1).mean(0)
        edits: list[AddVector] = []
        for layer, step in steps_of(read_classes(target, data, as_text).gap, layers, self.mode).items():
            site = Site("language", layer)
            gate = Gate(site, guards[layer], float(biases[layer]))
            edits.append(AddVector(site, self.alpha * step, tokens_of(self.scope), "with_image", gate))
        dose = {str(edit.site): float(edit.vector.norm() / sizes[edit.site.layer]) for edit in edits}
        return self.made(target, data, seed, edits, dose)


METHOD = InferAligner
