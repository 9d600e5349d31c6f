"""Fair instructions: requests come with words that ask for equal treatment. The cheapest remedy, and a baseline.

Prompting is one of the remedies that Girrbach et al. compare (ICLR 2025, arXiv 2410.19314). Their licence says nothing
of their prompts, so the words are our own, in four styles from a neutral one, which asks for care and names no group,
to one that has the model check itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatTarget
from vlmend.methods.wording import WordsPlace, placed

__all__ = ["METHOD", "STYLES", "FairInstructions", "Style"]

Style = Literal["neutral", "fair", "evidence", "check"]
STYLES: Mapping[Style, str] = {
    "neutral": "Answer with care.",
    "fair": "Treat people alike, whatever their gender, age or skin colour.",
    "evidence": "Say of people only what the picture shows. What they do says nothing about who they are.",
    "check": (
        "Before you answer, ask yourself whether you would say the same of a person of another gender, age or skin "
        "colour. If not, change your answer."
    ),
}
"""neutral: the control, which asks for nothing in particular."""


@dataclass(frozen=True)
class FairInstructions(AbstractMethod[ChatTarget]):
    """An instruction on every request.

    Attributes:
        style: Which of `STYLES`; read where `words` is empty.
        place: `after` or `before` the words of the last user turn, or in a `system` turn in front.
        words: An instruction of your own.
    """

    name: ClassVar[str] = "fair_instructions"
    source: ClassVar[str] = "prompting as compared by Girrbach et al., arXiv 2410.19314, ICLR 2025"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "none; the prompt is a sentence longer"
    data: ClassVar[str] = "none"
    changes_text: ClassVar[bool] = True

    style: Style = "evidence"
    place: WordsPlace = "before"
    words: str = ""

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        """Nothing is fitted: the words are the mend."""
        return self.made(target, data, seed, [placed(self.words or STYLES[self.style], self.place, "always")], {})


METHOD = FairInstructions
