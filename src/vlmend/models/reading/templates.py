"""Chat templates are programs of whoever made the checkpoint: they are run within bounds.

A loop without an end would hang a run, and text without an end would fill the memory and keep the tokenizer busy for
hours. Steps are counted, not seconds, so that a template is within bounds on every machine or on none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from vlmend.errors import ModelProblem

__all__ = ["written"]

STEPS = 200_000
"""Lines of a template's code that one conversation may take; a turn takes some 50."""
LONGEST = 1_000_000
"""Characters that a template may add to the words of a conversation."""
CODE = "<template>"
"""What jinja2 calls the code that it makes of a template."""


def written(processor: Any, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
    """A conversation as the chat template of a processor writes it.

    Args:
        processor: Of transformers.
        messages: The conversation in the form that templates read.
        settings: Of `apply_chat_template`.

    Raises:
        ModelProblem: The template comes to no end.
        TemplateError: It refuses the conversation.
    """
    before = sys.gettrace()
    sys.settrace(_Steps())
    try:
        text: str = processor.apply_chat_template(messages, tokenize=False, **settings)
    finally:
        sys.settrace(before)
    if len(text) > LONGEST + len(str(messages)):
        raise _endless(f"it writes {len(text):,} characters")
    return text


class _Steps:
    """Counts the lines that templates run."""

    def __init__(self) -> None:
        self._left = STEPS

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._step if frame.f_code.co_filename == CODE else None

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _endless(f"more than {STEPS:,} steps")
        return self._step


def _endless(what: str) -> ModelProblem:
    return ModelProblem(
        f"The chat template of this model comes to no end ({what} for one conversation).",
        "Put the chat_template.jinja of the original checkpoint into its folder.",
    )
