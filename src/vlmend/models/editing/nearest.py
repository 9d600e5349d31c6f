"""What a view is asked in the end; and the interpreter of `ShowNearest`, which looks at the request's picture first.

What is read and said of the picture is the bare model's, so that a mend does not change which examples it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import Edit, ShowNearest
from vlmend.models.editing.inputs import rewritten
from vlmend.models.editing.replies import CAPTION_TOKENS, Engine
from vlmend.models.reading.reader import Reader

__all__ = ["reworded"]


@runtime_checkable
class Looking(Protocol):
    """What it needs of a view: its edits, and reads and replies of the model without its mends."""

    @property
    def edits(self) -> Sequence[Edit]: ...

    @property
    def reader(self) -> Reader: ...

    @property
    def bare(self) -> Engine: ...


@torch.no_grad()
def reworded(view: Looking, batch: Sequence[Conversation]) -> list[Conversation]:
    """The batch in the words and with the images that a view's edits give it; examples are looked for first."""
    found = list(batch)
    rows = [k for k, conversation in enumerate(batch) if conversation.has_image]
    for edit in view.edits:
        if isinstance(edit, ShowNearest) and rows:
            for k, shown in zip(rows, _chosen(view, edit, [batch[k] for k in rows]), strict=True):
                found[k] = edit.put(found[k], shown)
    return [rewritten(view.edits, conversation) for conversation in found]


def _chosen(view: Looking, edit: ShowNearest, batch: Sequence[Conversation]) -> list[tuple[int, ...]]:
    asked = [conversation.with_words(edit.ask) for conversation in batch]
    states = view.reader.states(asked, [edit.site])[edit.site].float().cpu()
    captions = view.bare.decode(asked, Sampling(CAPTION_TOKENS))
    return [
        edit.chosen(state, caption.text, {image.digest for image in conversation.images})
        for state, caption, conversation in zip(states, captions, batch, strict=True)
    ]
