"""One forward call of a whole batch whose states are added to on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmend.core.conversation import Conversation
from vlmend.core.sites import Site
from vlmend.core.state_edits import Tokens
from vlmend.core.steering import Push, steer_by_passes
from vlmend.models.editing.states import steering

if TYPE_CHECKING:
    from vlmend.models.vlm import VLM

__all__ = ["steered"]


def steered(view: VLM, batch: Sequence[Conversation], sites: Sequence[Site], push: Push, tokens: Tokens) -> None:
    """`VLM.steer`; rows that cannot share a forward call are read one by one, once for each site."""
    if view.anatomy.alone and len(batch) > 1:
        steer_by_passes(view, batch, sites, push, tokens)
        return
    asked = view.rewritten(batch)
    inputs = view.reader.inputs(asked)
    rows = view.reader.rows(asked, inputs)
    with view.installed(asked, rows), steering(view.anatomy, sites, push, tokens, rows):
        view.reader.forward(inputs)
