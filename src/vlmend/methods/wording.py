"""What methods that write words into a request share: where the words go."""

from __future__ import annotations

from typing import Literal

from vlmend.core.edits import RewritePrompt
from vlmend.core.state_edits import When
from vlmend.errors import BadParameter

__all__ = ["GAP", "WordsPlace", "placed"]

WordsPlace = Literal["before", "after", "system"]
"""before, after: in the last user turn, on that side of its words. system: in a system turn in front."""
GAP = "\n\n"
"""Between the request and the words."""


def placed(words: str, place: WordsPlace, when: When) -> RewritePrompt:
    """The words at that place of every request, or of those with an image.

    Raises:
        BadParameter: There are no words.
    """
    if not words.strip():
        raise BadParameter("words is empty, so this mend would do nothing.", "Write what the model is to be told.")
    match place:
        case "before":
            return RewritePrompt(before=words + GAP, when=when)
        case "after":
            return RewritePrompt(after=GAP + words, when=when)
        case "system":
            return RewritePrompt(system=words, when=when)
