"""Losses as pure functions."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["IGNORED", "reply_loss"]

IGNORED = -100
"""Label of a position that carries no loss."""


def reply_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the reply tokens of a batch.

    Args:
        logits: Next-token logits at the kept positions, "batch kept vocabulary".
        labels: The token that follows each kept position, or `IGNORED`, "batch kept".
    """
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
