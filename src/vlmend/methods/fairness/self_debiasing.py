"""Self-debiasing: hold back tokens that the model likes better once it is told that the text is biased.

Schick, Udupa and Schuetze, TACL 2021 (arXiv 2103.00453). With p the next-token probabilities of a request and p_y
those of the same request after "The following text contains y:", for each attribute y:

    delta(w) = max(0, max over y of p_y(w) - p(w)),   p'(w) ~ p(w) max(floor, exp(-strength delta(w)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import ContrastLogits, OtherView
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadParameter

__all__ = ["METHOD", "SelfDebiasing"]

ATTRIBUTES = (
    "rude, disrespectful or unreasonable language",
    "very hateful, aggressive, disrespectful language",
    "sexually explicit language",
    "a threat",
    "swear words, obscene or other profane language",
    "negative or hateful language targeting someone because of their identity",
)
"""The descriptions of the paper, after those of Perspective API's attributes."""

FRAME = "The following text contains {}:\n"
"""Put before the request's words."""


@dataclass(frozen=True)
class SelfDebiasing(AbstractMethod):
    """Self-debiasing decoding, with the image in every view.

    Attributes:
        strength: Lambda; 0 is the base model.
        floor: Least factor that a token's probability is multiplied by.
        attributes: What the text is said to contain, separated by semicolons; each is a view of its own.
    """

    name: ClassVar[str] = "self_debiasing"
    source: ClassVar[str] = "Schick et al., arXiv 2103.00453, TACL 2021"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "one more forward pass a token for each attribute"
    data: ClassVar[str] = "none"
    quick: ClassVar[Mapping[str, Any]] = {"attributes": "a threat"}
    changes_text: ClassVar[bool] = True

    strength: float = 50.0
    floor: float = 0.01
    attributes: str = "; ".join(ATTRIBUTES)

    def __post_init__(self) -> None:
        if self.strength < 0 or not 0 < self.floor <= 1:
            raise BadParameter(
                f"strength={self.strength:g} and floor={self.floor:g} are no way to hold tokens back.",
                "strength is 0 or more, floor above 0 and at most 1.",
            )

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Nothing is fitted: attributes, strength and floor are the mend.

        Raises:
            BadParameter: There is no attribute.
        """
        named = [text.strip() for text in self.attributes.split(";") if text.strip()]
        if not named:
            raise BadParameter("attributes is empty, so there is nothing to hold back.", "Write what to avoid.")
        views = tuple(OtherView(before=FRAME.format(attribute)) for attribute in named)
        edit = ContrastLogits(views, self.strength, rule="damp", floor=self.floor, when="always")
        return self.made(target, data, seed, [edit], {})


METHOD = SelfDebiasing
