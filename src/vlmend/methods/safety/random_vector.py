"""The negative control of CMRM: random directions of the same length at the same places.

Whatever this does, any push of that size does; only what CMRM does beyond it is due to the shift.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import torch

from vlmend.core.contracts import AbstractMethod, Access, GenerativeTarget
from vlmend.core.edits import AddVector
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.methods.safety.cmrm import CMRM, Mode, Scope

__all__ = ["METHOD", "RandomVector"]


@dataclass(frozen=True)
class RandomVector(AbstractMethod):
    """Random vectors with the norms of CMRM's edits; the parameters are CMRM's."""

    name: ClassVar[str] = "random_vector"
    source: ClassVar[str] = "negative control for arXiv 2410.09047"
    needs: ClassVar[Access] = "hidden"

    alpha: float = 1.0
    layers: str = "all"
    corrupt: Literal["blank", "noise"] = "blank"
    mode: Mode = "increment"
    scope: Scope = "prefill"
    only_with_image: bool = True
    anchors: Literal["harmful", "benign", "all"] = "harmful"

    def fit(self, target: GenerativeTarget, data: Dataset, *, seed: int) -> Mend:
        """Fit CMRM, then replace each of its vectors by a random one of the same norm."""
        mend = CMRM(**asdict(self)).fit(target, data, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        return Mend(
            tuple(_randomised(edit, generator) for edit in mend.edits),
            replace(mend.card, method=self.name, source=self.source),
        )


def _randomised(edit: AddVector, generator: torch.Generator) -> AddVector:
    direction = torch.randn(edit.vector.shape, generator=generator)
    return replace(edit, vector=direction * (edit.vector.norm() / direction.norm()))


METHOD = RandomVector
