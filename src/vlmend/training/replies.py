"""Training on replies: a twin of a model that answers learns what to say, and what a model says of itself as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.targets import ChatWeights, Pixels
from vlmend.training.batches import Row, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import reply_loss
from vlmend.training.twin import Twin

__all__ = ["BATCH", "REPLY_TOKENS", "learn_replies", "loss_of_rows", "own_rows"]

BATCH = 16
"""Requests that are answered together."""
REPLY_TOKENS = 24
"""Length of the model's own replies; a longer one is cut there and teaches no end."""


def learn_replies(
    target: ChatWeights, twin: Twin, rows_of: Callable[[int], Sequence[Row]], settings: LoopSettings
) -> list[float]:
    """Train the twin in place on the rows of each step; gives the losses.

    Args:
        target: Whose twin it is.
        twin: What learns.
        rows_of: The rows of a step, from its number alone.
        settings: Of the loop.
    """
    return train_at_once(twin.parameters, lambda step: loss_of_rows(target, twin, rows_of(step)), settings)


def loss_of_rows(target: ChatWeights, twin: Twin, rows: Sequence[Row], pixels: Pixels | None = None) -> Tensor:
    """Mean cross-entropy of the reply tokens under the twin, differentiable in `pixels.values` where these are given.

    Args:
        target: Whose twin it is.
        twin: What learns.
        rows: Of the batch.
        pixels: In the place of the rows' own pictures, in their order.
    """
    inputs, labels = reply_batch(target.reader, rows)
    if pixels is not None:
        inputs["pixel_values"] = (pixels.black + pixels.values * pixels.span).to(inputs["pixel_values"])
    logits = twin.model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits
    return reply_loss(logits[:, :-1], labels)


def own_rows(
    target: ChatWeights, asked: Sequence[Conversation], said: Sequence[Conversation] | None = None
) -> list[Row]:
    """Requests with the model's own greedy replies.

    Args:
        target: Who replies.
        asked: What the rows ask.
        said: What it is asked for the replies, where that differs: the same without a picture, say.
    """
    replies = _replies(target, asked if said is None else said)
    return [Row(one, reply.text, reply.stop == "stop") for one, reply in zip(asked, replies, strict=True)]


def _replies(target: ChatWeights, asked: Sequence[Conversation]) -> list[Reply]:
    starts = range(0, len(asked), BATCH)
    return [reply for k in starts for reply in target.generate(asked[k : k + BATCH], Sampling(REPLY_TOKENS))]
