"""polite: a word before every request that has an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import RewritePrompt
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatTarget

__all__ = ["METHOD", "Polite"]


@dataclass(frozen=True)
class Polite(AbstractMethod[ChatTarget]):
    """Asks politely.

    Attributes:
        word: Put before the request.
    """

    name: ClassVar[str] = "polite"
    source: ClassVar[str] = "good manners"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "none"

    word: str = "Please: "

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        return self.made(target, data, seed, [RewritePrompt(before=self.word, when="with_image")], {})


METHOD = Polite
