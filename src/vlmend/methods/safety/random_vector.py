"""The negative control of CMRM: random directions of the same length at the same places.

Whatever this does, any push of that size does; only what CMRM does beyond it is due to the shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import Sweep
from vlmend.core.edits import AddVector, AnyEdit
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatStates
from vlmend.errors import BadParameter
from vlmend.methods.safety.cmrm import CMRM, Shift

__all__ = ["METHOD", "RandomVector"]


@dataclass(frozen=True)
class RandomVector(CMRM):
    """Random vectors as long as CMRM's edits, or a random shift as long as CMRM's; all other parameters are CMRM's.

    Attributes:
        match: What is as long as CMRM's. `vectors`: each edit. `states`: the move of the states, for which the shift is
            turned as a whole by a random rotation, which keeps norms and the angles between layers, and then taken out
            by the same mode.
    """

    name: ClassVar[str] = "random_vector"
    source: ClassVar[str] = "negative control for arXiv 2410.09047"
    control: ClassVar[bool] = True
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (1.0, 2.0, 4.0, 8.0))
    """Up to eight times as long as CMRM's, so that the curve reaches the prices of what it is held against."""

    match: Literal["vectors", "states"] = "vectors"

    def __post_init__(self) -> None:
        if self.match == "states" and self.mode == "sequential":
            raise BadParameter("The sequential mode measures no shift that could be turned.", "Use mode=unit_gain.")

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Fit CMRM, then replace each of its vectors by a random one of the same norm; or fit it to a random shift."""
        mend = super().learn(target, data, seed=seed)
        if self.match == "states":
            return mend
        generator = torch.Generator().manual_seed(seed)
        return Mend(tuple(_randomised(edit, generator) for edit in mend.edits), mend.card)

    def aimed(self, shift: Shift, seed: int) -> Shift:
        """The shift, or the same turned by a random rotation."""
        return replace(shift, mean=_turned(shift.mean, seed)) if self.match == "states" else shift


def _turned(shift: Float[Tensor, "layer width"], seed: int) -> Float[Tensor, "layer width"]:
    """The rows in a random orthonormal basis instead of their own: every product of two rows stays what it was."""
    basis, inner = torch.linalg.qr(shift.T)
    noise = torch.randn(basis.shape, generator=torch.Generator().manual_seed(seed))
    return (torch.linalg.qr(noise).Q @ inner).T


def _randomised(edit: AnyEdit, generator: torch.Generator) -> AnyEdit:
    assert isinstance(edit, AddVector)
    direction = torch.randn(edit.vector.shape, generator=generator)
    return replace(edit, vector=direction * (edit.vector.norm() / direction.norm()))


METHOD = RandomVector
