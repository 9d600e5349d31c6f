"""CMRM at sample level: the shift of this very request, taken out of this very request.

Liu et al., arXiv 2410.09047. Nothing is fitted: at inference the request is read twice more, once
without its image and once with a content-free one, and

    h_l(x, I) <- h_l(x, I) - alpha [h_l(x, I') - h_l(x)]

The fit only measures the dose on the data. What the two reads share between requests is in
`vlmend.models.decoding.prefixes`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.shifts import Mode, layers_of
from vlmend.core.targets import Access, ChatStates
from vlmend.methods.safety.cmrm import CMRM

__all__ = ["METHOD", "CMRMSample"]


@dataclass(frozen=True)
class CMRMSample(AbstractMethod):
    """CMRM with a correction of its own for every request.

    Attributes:
        alpha: Strength; 1 takes out the whole shift.
        layers: Decoder layers, from 0: `all`, or like `0-9` or `4,8,20-29`.
        corrupt: The content-free image I', one image per model: `white`, `black`, `mean_colour`, `noise`.
        mode: What each layer takes out, see `vlmend.core.shifts.Mode`.
        scope: `prefill`: the last prompt token only. `every_step`: every generated token too.
        cap: Largest |edit| / |state| of a layer; none unless given.
    """

    name: ClassVar[str] = "cmrm_sample"
    source: ClassVar[str] = "Liu et al., arXiv 2410.09047, Findings of ACL 2025"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "2 prefills of the words after the image"
    data: ClassVar[str] = "none"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.25, 0.5, 0.75, 1.0))

    alpha: float = 1.0
    layers: str = "all"
    corrupt: Corrupt = "white"
    mode: Mode = "increment"
    scope: Literal["prefill", "every_step"] = "prefill"
    cap: float | None = None

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Name the layers and the image; the dose on the card is that of the data's mean shift.

        Raises:
            BadParameter: `layers` names layers that the model does not have.
        """
        edit = ContrastShift(
            layers=layers_of(self.layers, target.layers),
            image=corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour),
            strength=self.alpha,
            mode=self.mode,
            cap=self.cap,
            tokens="last_prompt" if self.scope == "prefill" else "last",
        )
        dose = CMRM(**asdict(self), anchors="all").fit(target, data, seed=seed).card.dose
        return self.made(target, data, seed, [edit], dose)


METHOD = CMRMSample
