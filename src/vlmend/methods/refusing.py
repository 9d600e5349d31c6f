"""What a model itself does with harmful anchors: which it declines, and how the states of those differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vlmend.core.conversation import Sampling
from vlmend.core.declining import declines
from vlmend.core.examples import Example
from vlmend.core.targets import ChatStates
from vlmend.errors import BadData
from vlmend.methods.reading import Asking, batches

__all__ = ["answered_minus_refused", "declined"]

REPLY_TOKENS = 16
"""Enough to see how a reply begins, which is where English replies decline."""
FEWEST = 2
"""Anchors of each kind that a mean is taken over."""


def declined(target: ChatStates, anchors: Sequence[Example], asking: Asking) -> Bool[Tensor, " anchor"]:
    """Which anchors the target declines, by the phrases at the beginning of its greedy replies."""
    told: dict[str, bool] = {}
    for batch in batches(anchors):
        replies = target.generate([asking(anchor) for anchor in batch], Sampling(REPLY_TOKENS))
        told |= {anchor.id: declines(reply.text) is not None for anchor, reply in zip(batch, replies, strict=True)}
    return torch.tensor([told[anchor.id] for anchor in anchors])


def answered_minus_refused(
    states: Float[Tensor, "anchor layer width"], refused: Bool[Tensor, " anchor"], way_out: str
) -> Float[Tensor, "layer width"]:
    """Mean state of the anchors that are answered minus that of those that are declined.

    Args:
        way_out: What to do where the model declines all or none.

    Raises:
        BadData: There are fewer than two of one kind.
    """
    no, yes = int(refused.sum()), int((~refused).sum())
    if min(no, yes) < FEWEST:
        raise BadData(
            f"Of {len(refused)} harmful requests with a picture the model declines {no} and answers {yes}: the two "
            "cannot be held against each other.",
            way_out,
        )
    return states[~refused].mean(0) - states[refused].mean(0)
