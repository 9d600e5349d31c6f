"""ShiftDC: of the shift of this very request, take out the part along the safety direction only.

ShiftDC, arXiv 2502.13095, NeurIPS 2025. With I the request's own image, c the model's caption of
it, and h_l the state of decoder layer l at the last prompt position of the unmended model:

    s_l = unit(mean over benign x of h_l(x) - mean over harmful x of h_l(x))     text only
    m_l = h_l(x, I) - h_l(c, x)
    h_l <- h_l - alpha (s_l . m_l) s_l

What the image shows stays; what it does along "safe versus unsafe" goes. The reads happen at inference
(`vlmend.models.decoding.prefixes`); the fit finds s and measures the dose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Dataset
from vlmend.core.images import Image, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import steps_of
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.directions import StepMode, doses, picked_layers, read_classes, unit
from vlmend.methods.reading import as_text, with_image
from vlmend.models.editing.replies import CAPTION_REQUEST, CAPTION_TOKENS

__all__ = ["METHOD", "ShiftDC"]


@dataclass(frozen=True)
class ShiftDC(AbstractMethod):
    """Removal of the safety-relevant part of each request's own shift.

    Attributes:
        alpha: Strength; 1 takes out the whole component.
        layers: Decoder layers, from 0: `all`, `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        mode: What each layer takes out, see `vlmend.core.shifts.Mode`; `sequential` is not for this method.
    """

    name: ClassVar[str] = "shiftdc"
    source: ClassVar[str] = "ShiftDC, arXiv 2502.13095, NeurIPS 2025"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "a caption, a prefill of caption and words, a prefill with the image"
    data: ClassVar[str] = "harmful and benign requests"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.5, 1.0, 1.5, 2.0))

    alpha: float = 1.0
    layers: str = "upper"
    mode: StepMode = "full"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Find the safety direction of every layer on text-only anchors.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: A label is missing, or the two classes have the same mean.
        """
        layers = picked_layers(self.layers, target.layers)
        safe = unit(-read_classes(target, data, as_text).gap, layers, "The difference of benign and harmful requests")
        image = corrupt_image("white", target.image_side, seed)
        edit = ContrastShift(
            layers=layers, image=image, seen="original", unseen="caption", onto=safe, strength=self.alpha,
            mode=self.mode, tokens="last_prompt",
        )  # fmt: skip
        return self.made(target, data, seed, [edit], self._dose(target, data, image, safe, layers))

    def _dose(
        self, target: ChatStates, data: Dataset, image: Image, safe: Float[Tensor, "layer width"],
        layers: tuple[int, ...],
    ) -> dict[str, float]:  # fmt: skip
        """What the anchors lose beside a white image, whose caption does not depend on their words."""
        (caption,) = target.generate([Conversation.ask(CAPTION_REQUEST, image)], Sampling(CAPTION_TOKENS))
        seen = read_classes(target, data, with_image(image)).states
        told = read_classes(target, data, lambda anchor: as_text(anchor).rewritten(before=f"{caption.text}\n")).states
        along = ((seen - told) * safe).sum(-1, keepdim=True) * safe
        steps = steps_of(along.transpose(0, 1), layers, self.mode)
        taken = along.new_zeros(along.shape[:2])
        for layer, step in steps.items():
            taken[:, layer] = abs(self.alpha) * step.norm(dim=-1)
        return doses(tuple(steps), taken, seen)


METHOD = ShiftDC
