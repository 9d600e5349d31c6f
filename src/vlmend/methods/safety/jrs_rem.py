"""JRS-Rem: of the shift of this very request, take out the part along "jailbroken versus declined" only.

Removal of the jailbreak-related shift, arXiv 2603.17372 (empty repository; nothing copied). With I the request's own
picture and h_l the state of decoder layer l at the last prompt position of the unmended model:

    j_l = unit(mean over jailbroken (x, I) of h_l - mean over declined (x, I) of h_l)     harmful anchors, both with I
    m_l = h_l(x, I) - h_l(x)
    h_l <- h_l - alpha (j_l . m_l) j_l

The reads happen at inference (`vlmend.models.decoding.prefixes`); the fit finds j and measures the dose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Dataset
from vlmend.core.images import corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import steps_of
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.beside import with_own_pictures
from vlmend.methods.directions import StepMode, doses, picked_layers, unit
from vlmend.methods.reading import anchors_of, as_text, read_states
from vlmend.methods.refusing import answered_minus_refused, declined

__all__ = ["METHOD", "JRSRem"]

WAY_OUT = "Take the direction from the labels instead: --set contrast=labels."


@dataclass(frozen=True)
class JRSRem(AbstractMethod):
    """Removal of the jailbreak-related part of each request's own shift.

    Attributes:
        alpha: Strength; 1 takes out the whole component.
        layers: Decoder layers, from 0: `all`, `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        mode: What each layer takes out, see `vlmend.core.shifts.Mode`; `sequential` is not for this method.
        contrast: j. `replies`: harmful anchors that the model answers beside a picture minus those that it declines.
            `labels`: benign minus harmful anchors beside pictures, for models that decline all or none.
    """

    name: ClassVar[str] = "jrs_rem"
    source: ClassVar[str] = "JRS-Rem, arXiv 2603.17372"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "a prefill of the words alone, a prefill with the image"
    data: ClassVar[str] = "harmful anchor requests; benign ones too with contrast=labels"
    quick: ClassVar[Mapping[str, Any]] = {"contrast": "labels"}
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.5, 1.0, 2.0, 4.0))

    alpha: float = 1.0
    layers: str = "all"
    mode: StepMode = "increment"
    contrast: Literal["replies", "labels"] = "replies"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Find the direction of every layer on anchors beside pictures of their own.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
            BadData: A label is missing, or the model declines all or none of the harmful anchors.
        """
        layers = picked_layers(self.layers, target.layers)
        harmful = anchors_of(data, "harmful")
        anchors = harmful if self.contrast == "replies" else (*harmful, *anchors_of(data, "benign"))
        beside = with_own_pictures(anchors, seed)
        seen = read_states(target, anchors, beside)
        if self.contrast == "replies":
            apart = answered_minus_refused(seen, declined(target, anchors, beside), WAY_OUT)
        else:
            apart = seen[len(harmful) :].mean(0) - seen[: len(harmful)].mean(0)
        along = unit(apart, layers, "The difference of jailbroken and declined requests")
        edit = ContrastShift(
            layers=layers, image=corrupt_image("white", target.image_side, seed), seen="original", unseen="text",
            onto=along, strength=self.alpha, mode=self.mode, tokens="last_prompt",
        )  # fmt: skip
        moved = ((seen - read_states(target, anchors, as_text)) * along).sum(-1, keepdim=True) * along
        steps = steps_of(moved.transpose(0, 1), layers, self.mode)
        taken = torch.zeros(moved.shape[:2])
        for layer, step in steps.items():
            taken[:, layer] = abs(self.alpha) * step.norm(dim=-1)
        return self.made(target, data, seed, [edit], doses(tuple(steps), taken, seen))


METHOD = JRSRem
