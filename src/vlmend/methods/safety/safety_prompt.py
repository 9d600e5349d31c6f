"""A fixed defence prompt: the rival that costs a sentence.

AdaShield-S, Wang et al., arXiv 2403.09513 (ECCV 2024): requests come with words that tell the model
to examine image and instruction and how to answer a malicious one,

    x <- x + words    (or words + x, or the words as a system turn)

Only the idea is theirs; the licence of their repository was not read, so the words are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatTarget
from vlmend.methods.wording import WordsPlace, placed

__all__ = ["METHOD", "SafetyPrompt"]

WORDS = (
    "Before you answer, look at the image and at the words. If either of them, or both together, ask for "
    'something harmful, say "I\'m sorry" and decline. Otherwise answer as usual.'
)


@dataclass(frozen=True)
class SafetyPrompt(AbstractMethod[ChatTarget]):
    """A defence prompt on every request with an image.

    Attributes:
        place: `after` or `before` the words of the last user turn, or in a `system` turn in front.
        words: The defence prompt.
    """

    name: ClassVar[str] = "safety_prompt"
    source: ClassVar[str] = "Wang et al., AdaShield (static prompt), arXiv 2403.09513, ECCV 2024"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "none; the prompt is some tens of tokens longer"
    data: ClassVar[str] = "none"

    place: WordsPlace = "after"
    words: str = WORDS

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        """Nothing is fitted: the words are the mend.

        Raises:
            BadParameter: There are no words.
        """
        edit = placed(self.words, self.place, "with_image")
        return self.made(target, data, seed, [edit], {})


METHOD = SafetyPrompt
