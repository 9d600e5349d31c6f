"""ASTRA's dosed steering, with the image as such in the place of an adversarial one.

ASTRA, arXiv 2411.16721, CVPR 2025. The paper finds the direction v by attributing adversarial
images; here the attack is that there is an image at all. With a content-free image I' and h_l the
state of decoder layer l at the last prompt position:

    v_l = unit(mean over harmful x of [h_l(x, I') - h_l(x)])
    r_l = mean over benign x of h_l(x, I')
    h_l <- h_l - alpha |h_l| clamp(cos(h_l - r_l, v_l), 0, 1) v_l

The rule is the paper's, v and r are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.nn.functional import normalize

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import CosineDose
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.directions import Scope, doses, picked_layers, read_classes, tokens_of, unit
from vlmend.methods.reading import anchors_of, as_text, read_states, with_image

__all__ = ["ASTRA", "METHOD"]


@dataclass(frozen=True)
class ASTRA(AbstractMethod):
    """Steering against the image direction, as far as the state leans that way.

    Attributes:
        alpha: Strength; at 1 a state that points along v away from r loses its whole length.
        layers: Decoder layers, from 0: `middle`, `upper` half, `all`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I': `white`, `black`, `mean_colour` or `noise` (seeded).
        scope: `prefill`: the last prompt token only. `every_step`: every generated token too.
    """

    name: ClassVar[str] = "astra"
    source: ClassVar[str] = "ASTRA, arXiv 2411.16721, CVPR 2025 (adapted: no adversarial images)"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and benign requests"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.5, 1.0, 2.0, 4.0))
    quick: ClassVar[Mapping[str, Any]] = {"layers": "0"}

    alpha: float = 1.0
    layers: str = "middle"
    corrupt: Corrupt = "white"
    scope: Scope = "every_step"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Measure direction and reference; the dose is measured on all anchors beside I'.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: A label is missing, or the image moves no state.
        """
        layers = picked_layers(self.layers, target.layers)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        seen = read_classes(target, data, with_image(image))
        harmful = read_states(target, anchors_of(data, "harmful"), as_text)
        directions = unit((seen.harmful - harmful).mean(0), layers, "The mean shift of an image")
        reference = seen.benign.mean(0)
        edits = [
            CosineDose(
                Site("language", layer), directions[layer], reference[layer], self.alpha, tokens_of(self.scope),
                "with_image",
            )
            for layer in layers
        ]  # fmt: skip
        leaning = (normalize(seen.states - reference, dim=-1) * directions).sum(-1).clamp(0, 1)
        taken = abs(self.alpha) * seen.states.norm(dim=-1) * leaning
        return self.made(target, data, seed, edits, doses(layers, taken, seen.states))


METHOD = ASTRA
