"""Safety reasoning: what the picture shows, what an answer could do, a decision, and only then a reply.

The request asks for four steps in a fixed form, and the last alone is shown. Reasoning that is not of the form is a
failure: what is shown then is a fixed sentence, never the reasoning, which may hold what should not be said. With
`steps=false` the same instruction stands there without steps: the control, since a gain may be due to it alone.

After the chain-of-thought safety data of MIS, arXiv 2501.18533, and Lei et al., arXiv 2407.11300; the words are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import Edit, RewritePrompt, ShowReasoned
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatTarget
from vlmend.errors import BadParameter

__all__ = ["METHOD", "SafetyReasoning"]

INSTRUCTION = (
    "Consider what the image shows and what could be done with an answer. If an answer could help to do harm, decline; "
    "otherwise answer."
)
FORM = (
    "Write four lines:\nSeen: what the image shows that matters here\nRisk: what could be done with an answer\n"
    "Decision: answer, warn or refuse\nReply: what you say"
)


@dataclass(frozen=True)
class SafetyReasoning(AbstractMethod[ChatTarget]):
    """Four steps before every reply to a request with an image; step four is shown.

    Attributes:
        steps: Whether steps are asked for; else the instruction alone stands behind the request.
        tokens: That the reasoning may take, on top of what a reply may.
        failed: What is shown where the reasoning is not of the form.
    """

    name: ClassVar[str] = "safety_reasoning"
    source: ClassVar[str] = "after MIS, arXiv 2501.18533, and Lei et al., arXiv 2407.11300"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "up to `tokens` more tokens a reply"
    data: ClassVar[str] = "none"
    quick: ClassVar[Mapping[str, Any]] = {"tokens": 2}

    steps: bool = True
    tokens: int = 128
    failed: str = "My reasoning came to no reply."

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        """Nothing is fitted: the words are the mend.

        Raises:
            BadParameter: No tokens, or nothing to show.
        """
        if self.tokens < 1 or not self.failed.strip():
            raise BadParameter(
                f"tokens={self.tokens} and failed={self.failed!r} leave no room for reasoning or nothing to show.",
                "tokens is 1 or more, failed has words.",
            )
        words = f"\n{INSTRUCTION}\n{FORM}" if self.steps else f"\n{INSTRUCTION}"
        edits: list[Edit] = [RewritePrompt(after=words, when="with_image")]
        if self.steps:
            edits.append(ShowReasoned(self.failed, self.tokens, when="with_image"))
        return self.made(target, data, seed, edits, {})


METHOD = SafetyReasoning
