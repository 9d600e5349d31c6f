"""Steer and read at once: what is added at a place may hang on the states that have come there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.core.state_edits import AddVector, Tokens

if TYPE_CHECKING:
    from vlmend.core.targets import ChatStates

__all__ = ["Push", "steer_by_passes"]

Push = Callable[[Site, Float[Tensor, "example width"]], Float[Tensor, " width"]]
"""What to add to every row at a site, from the rows' states there at the last prompt position, float32 on the CPU.

It is called once a site, with what came of all that was added before it."""


def steer_by_passes(
    target: ChatStates, batch: Sequence[Conversation], sites: Sequence[Site], push: Push, tokens: Tokens
) -> None:
    """`ChatStates.steer` where there is no way into a running pass: the whole batch once more for each site."""
    card = MendCard("steering", {}, target.name, target.model_digest, "none", "", 0, {}, {}, "a probe, of no use else")
    added: list[AddVector] = []
    for site in sites:
        seen = target.with_mend(Mend(tuple(added), card)).hidden(batch, [site])[site]
        added.append(AddVector(site, push(site, seen), tokens, "always"))
