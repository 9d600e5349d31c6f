"""Losses as pure functions."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

__all__ = ["IGNORED", "distance_to", "reply_loss"]

IGNORED = -100
"""Label of a position that carries no loss."""


def reply_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the reply tokens of a batch.

    Args:
        logits: Next-token logits at the kept positions, "batch kept vocabulary".
        labels: The token that follows each kept position, or `IGNORED`, "batch kept".
    """
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def distance_to(reference: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the next-token distributions from those of a reference, over reply tokens.

    Args:
        reference: Next-token logits of the model to stay near, "batch kept vocabulary".
        logits: The same of the model that learns.
        labels: As in `reply_loss`; only where they are `IGNORED` is read from them.
    """
    counts = labels != IGNORED
    learning, wanted = (log_softmax(one[counts].float(), -1) for one in (logits, reference))
    return kl_div(learning, wanted, reduction="batchmean", log_target=True)
