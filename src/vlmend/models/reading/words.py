"""How the words of a request become tokens: theirs as text, and the template's own marks once.

A request may spell what the template, the processor or the tokenizer write themselves. Control tokens in its words
stay words, as in `apply_chat_template(..., sanitize_control_tokens=True)`; a placeholder of pictures has no such form
in most processors, and the request that spells one is refused. A template that writes the first token itself is
tokenized without special tokens, as transformers does with `tokenize=True`; else the model would read it twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from transformers.utils.chat_template_utils import mark_control_tokens

from vlmend.core.conversation import Conversation
from vlmend.errors import SampleError

__all__ = ["Words", "words_of"]

PLACEHOLDERS = ("image_token", "boi_token", "video_token", "audio_token")
"""What processors call the texts that they replace by a picture."""


@dataclass(frozen=True, eq=False)
class Words:
    """What a processor's words can be mistaken for.

    Attributes:
        tokenizer: The processor's.
        control: Finds control tokens in a text.
        placeholders: Texts that stand for pictures.
    """

    tokenizer: Any
    control: re.Pattern[str]
    placeholders: tuple[str, ...]

    def as_text(self, conversation: Conversation) -> Conversation:
        """The conversation with its control tokens marked as words; it itself where it spells none.

        Raises:
            SampleError: It spells a placeholder of pictures.
        """
        spelled = next((p for p in self.placeholders if any(p in turn.text for turn in conversation.turns)), None)
        if spelled is not None:
            raise SampleError(
                f"The request spells {spelled}, which stands for a picture in this model.",
                "Take it out of the words: pictures are put in their place by themselves.",
            )
        if not any(self.control.search(turn.text) for turn in conversation.turns):
            return conversation
        marked = [replace(turn, text=mark_control_tokens(turn.text, self.control)) for turn in conversation.turns]
        return replace(conversation, turns=tuple(marked))

    def check(self, text: str) -> None:
        """
        Raises:
            SampleError: A rendered text has marked words, and the tokenizer itself writes the first token: it would
                take the marks for letters.
        """
        if MARK in text and not self.begun(text) and self.tokenizer("").input_ids:
            spelled = self.control.findall(text.split(MARK, 1)[1])[0]
            raise SampleError(
                f"The request spells {spelled}, a control token of this model, which it cannot read as words.",
                "Take it out of the words.",
            )

    def begun(self, text: str) -> bool:
        """Whether a rendered text begins with the first token by itself."""
        return self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)

    def options(self, texts: Sequence[str]) -> dict[str, bool]:
        """What the tokenizer is told of rendered texts; where nothing is, each is tokenized as the tokenizer does."""
        found = {"add_special_tokens": False} if all(map(self.begun, texts)) else {}
        return found | ({"sanitize_control_tokens": True} if any(MARK in text for text in texts) else {})


MARK = mark_control_tokens("x", re.compile("x"))[0]
"""What begins a marked word."""


@lru_cache(8)
def words_of(processor: Any, template: str, image_token: int | None) -> Words:
    """What the words of requests to a processor can be mistaken for.

    Args:
        processor: The model's own.
        template: Its chat template; tokens that it writes are control tokens, beside the special ones.
        image_token: Id of the image placeholder.
    """
    tokenizer = processor.tokenizer
    held = [getattr(processor, name, None) for name in PLACEHOLDERS]
    own = None if image_token is None else tokenizer.convert_ids_to_tokens(image_token)
    placeholders = tuple(dict.fromkeys(str(one) for one in (*held, own) if one is not None))
    control = [
        str(token.content)
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in template and not token.content.isspace())
    ]
    longest_first = sorted(control, key=len, reverse=True)
    return Words(tokenizer, re.compile("|".join(map(re.escape, longest_first)) or "(?!)"), placeholders)
