"""The negative control of CMRM: random directions of the same length at the same places.

Whatever this does, any push of that size does; only what CMRM does beyond it is due to the shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from vlmend.core.edits import AddVector, AnyEdit
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatStates
from vlmend.methods.safety.cmrm import CMRM

__all__ = ["METHOD", "RandomVector"]


@dataclass(frozen=True)
class RandomVector(CMRM):
    """Random vectors with the norms of CMRM's edits; the parameters are CMRM's."""

    name: ClassVar[str] = "random_vector"
    source: ClassVar[str] = "negative control for arXiv 2410.09047"
    control: ClassVar[bool] = True

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Fit CMRM, then replace each of its vectors by a random one of the same norm."""
        mend = super().learn(target, data, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        return Mend(tuple(_randomised(edit, generator) for edit in mend.edits), mend.card)


def _randomised(edit: AnyEdit, generator: torch.Generator) -> AnyEdit:
    assert isinstance(edit, AddVector)
    direction = torch.randn(edit.vector.shape, generator=generator)
    return replace(edit, vector=direction * (edit.vector.norm() / direction.norm()))


METHOD = RandomVector
