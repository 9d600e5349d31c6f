"""CoCA: amplify what a safety principle in the prompt does to the next-token logits.

Constitutional Calibration, Gao et al., arXiv 2409.11365 (COLM 2024). With l_0 the logits of the
request and l_s those of principle and request, each token is chosen from

    l = l_s + alpha (l_s - l_0) = l_0 + (1 + alpha) (l_s - l_0)

The principle is in our own words. Both passes are rows of one batch (`vlmend.models.vlm`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import ContrastLogits, OtherView
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadParameter

__all__ = ["METHOD", "CoCA"]

PRINCIPLE = (
    "A rule comes first: if the image or the words ask for something that could hurt people or break the "
    "law, decline politely; otherwise be as helpful as you can."
)
GAP = "\n\n"
"""Between the principle and the request."""


@dataclass(frozen=True)
class CoCA(AbstractMethod):
    """A principle in the prompt, with its effect on the logits made larger.

    Attributes:
        alpha: 0 is the principle in the prompt and nothing more; -1 is the base model.
        principle: The safety requirement, put before the request.
    """

    name: ClassVar[str] = "coca"
    source: ClassVar[str] = "Gao et al., arXiv 2409.11365, COLM 2024"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "one more forward pass a token"
    data: ClassVar[str] = "none"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.5, 1.0, 2.0, 4.0))

    alpha: float = 1.0
    principle: str = PRINCIPLE

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Nothing is fitted: principle and strength are the mend.

        Raises:
            BadParameter: There is no principle.
        """
        if not self.principle.strip():
            raise BadParameter("principle is empty, so there is nothing to amplify.", "Write a safety requirement.")
        edit = ContrastLogits((OtherView(before=self.principle + GAP),), strength=1.0 + self.alpha, when="with_image")
        return self.made(target, data, seed, [edit], {})


METHOD = CoCA
