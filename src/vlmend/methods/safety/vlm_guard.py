"""VLM-Guard: keep image requests out of the directions in which harmful and harmless text differ.

Liu et al., arXiv 2502.10486; from the paper's description, no code found. With harmful anchors x_i,
n harmless anchors y_j, both read as text, and h_l the state of decoder layer l at the last prompt
position:

    D_l = rows h_l(x_i) - h_l(y_(i mod n)),   U_l = its first `rank` right singular vectors, uncentred
    h_l <- h_l - strength U_l^T U_l h_l

This takes the harmful/harmless component *out* of the state, as the paper says; it does not bring the
text path's component in. docs/methods/vlm_guard.md tells what to expect of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import ProjectOut
from vlmend.core.examples import Dataset
from vlmend.core.images import corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadData, BadParameter
from vlmend.methods.directions import Classes, Scope, doses, picked_layers, read_classes, tokens_of
from vlmend.methods.reading import as_text, with_image

__all__ = ["METHOD", "VLMGuard", "safety_directions"]

NEGLIGIBLE = 1e-5
"""A singular value smaller than this share of the first is rounding, and its vector arbitrary."""


@dataclass(frozen=True)
class VLMGuard(AbstractMethod):
    """Projection onto the orthogonal complement of the text path's safety directions.

    Attributes:
        rank: How many directions a layer.
        strength: 1 takes out the whole component; more turns it over, less leaves some.
        layers: Decoder layers, from 0: `all`, `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        scope: `prefill`: the last prompt token only. `every_step`: every generated token too.
    """

    name: ClassVar[str] = "vlm_guard"
    source: ClassVar[str] = "Liu et al., VLM-Guard, arXiv 2502.10486"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and benign requests"
    sweep: ClassVar[Sweep | None] = Sweep("strength", (0.25, 0.5, 0.75, 1.0))

    rank: int = 1
    strength: float = 1.0
    layers: str = "all"
    scope: Scope = "prefill"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Find the directions on text-only anchors; the dose is measured on them beside a white image.

        Raises:
            BadParameter: `layers` or `rank` does not fit the model or the data.
            BadData: A label is missing, or the anchors do not differ.
        """
        layers = picked_layers(self.layers, target.layers)
        text = read_classes(target, data, as_text)
        if not 1 <= self.rank <= min(len(text.harmful), text.harmful.shape[-1]):
            raise BadParameter(
                f"rank={self.rank} does not fit {len(text.harmful)} harmful anchors of width {text.harmful.shape[-1]}.",
                "Take at least 1 and at most as many directions as there are harmful anchors and dimensions.",
            )
        found = {layer: safety_directions(text, layer, self.rank) for layer in layers}
        edits = [
            ProjectOut(Site("language", layer), rows, self.strength, tokens_of(self.scope), "with_image")
            for layer, rows in found.items()
        ]
        image = corrupt_image("white", target.image_side, seed)
        seen = read_classes(target, data, with_image(image)).states
        taken = torch.zeros(seen.shape[:2])
        for layer, rows in found.items():
            taken[:, layer] = abs(self.strength) * (seen[:, layer] @ rows.T).norm(dim=-1)
        return self.made(target, data, seed, edits, doses(layers, taken, seen))


def safety_directions(text: Classes, layer: int, rank: int) -> Float[Tensor, "rank width"]:
    """The first right singular vectors of harmful minus benign states, pairs in turn.

    Not centred: the mean difference is what is looked for. Signs do not matter to a projection.

    Raises:
        BadData: The differences do not span that many directions.
    """
    harmful, benign = text.harmful[:, layer], text.benign[:, layer]
    turn = torch.arange(len(harmful)) % len(benign)
    _, sizes, directions = torch.linalg.svd(harmful - benign[turn], full_matrices=False)
    if not sizes[rank - 1] > NEGLIGIBLE * sizes[0]:
        raise BadData(
            f"The anchors' differences at layer {layer} span fewer than rank={rank} directions.",
            "Pass more requests that differ with --data, or a smaller rank.",
        )
    return directions[:rank].contiguous()


METHOD = VLMGuard
