"""Losses as pure functions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softplus

__all__ = [
    "IGNORED", "advantages", "contrastive_loss", "counterpart_loss", "distance_to", "distillation", "divergence",
    "policy_loss", "preference_loss", "reply_logprobs", "reply_loss", "shuffled",
]  # fmt: skip

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


def divergence(one: Float[Tensor, "row choice"], other: Float[Tensor, "row choice"]) -> Tensor:
    """Symmetric Kullback-Leibler divergence KL(p, q) + KL(q, p) of two tables of logits, mean over rows; 0 or more."""
    p, q = log_softmax(one.float(), -1), log_softmax(other.float(), -1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def reply_logprobs(
    logits: Float[Tensor, "row kept vocabulary"],
    labels: Int[Tensor, "row kept"],
    weights: Float[Tensor, "row kept"] | None = None,
) -> Float[Tensor, " row"]:
    """Log-probability of each row's whole reply: the sum over its tokens, as preference losses need it.

    Args:
        logits: Next-token logits at the kept positions.
        labels: As in `reply_loss`.
        weights: How much each token counts; 1 where none are given.
    """
    counts = labels != IGNORED
    each = log_softmax(logits.float(), -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return (each * (counts if weights is None else counts * weights)).sum(-1)


def preference_loss(leads: Float[Tensor, " row"], before: Float[Tensor, " row"], beta: float) -> Tensor:
    """Mean -log sigmoid(beta (lead - lead before)): ln 2 where nothing has moved.

    Args:
        leads: Log-probability of the reply to prefer less that of the one to leave.
        before: The same of the model to stay near.
        beta: How hard it is held.

    Source: the objective of DPO, Rafailov et al. 2023.
    """
    return softplus(-beta * (leads - before)).mean()


def contrastive_loss(
    images: Float[Tensor, "pair width"],
    texts: Float[Tensor, "pair width"],
    scale: Tensor | float,
    true: Bool[Tensor, "pair pair"] | None = None,
    back: float = 0.5,
) -> Tensor:
    """Symmetric InfoNCE: each picture must find its caption among those of the step, each caption its picture.

    Args:
        images, texts: Unit-length embeddings.
        scale: Factor of the cosines.
        true: Which captions are true of which pictures, "image text"; those that are not its own are left out for it.
        back: Share of the loss in which each caption finds its picture; at 0 only pictures find captions.

    Source: Radford et al. 2021 (CLIP), figure 3; the mask and the share are ours.
    """
    logits = scale * images @ texts.T
    if true is not None:
        own = torch.eye(len(images), dtype=torch.bool)
        logits = logits.masked_fill(true & ~own, -torch.inf)
    places = torch.arange(len(images))
    return (1 - back) * cross_entropy(logits, places) + back * cross_entropy(logits.T, places)


def distillation(logits: Float[Tensor, "image text"], taught: Float[Tensor, "image text"]) -> Tensor:
    """Cross-entropy of the logits with the teacher's probabilities, mean over pictures and over texts, then of both."""
    both = (cross_entropy(one, other.softmax(1)) for one, other in ((logits, taught), (logits.T, taught.T)))
    return sum(both, torch.zeros(())) / 2


def counterpart_loss(
    images: Float[Tensor, "pair width"],
    texts: Float[Tensor, "pair width"],
    negatives: Float[Tensor, "pair width"],
    scale: Tensor | float,
) -> Tensor:
    """Each picture must be nearer to its caption than to one that differs in a single word; ln 2 where it is not told.

    Args:
        images, texts, negatives: Unit-length embeddings of pictures, their captions and their hard negatives.
        scale: Factor of the cosines.
    """
    return softplus(scale * (images * (negatives - texts)).sum(-1)).mean()


def policy_loss(
    now: Float[Tensor, "request draw"], before: Float[Tensor, "request draw"],
    rewards: Float[Tensor, "request draw"], beta: float,
) -> Tensor:  # fmt: skip
    """What falls, in expectation, as the reward less beta times log(now / before) rises.

    Args:
        now, before: Log-probability of each draw, of the model that learns and of the model before.
        rewards: Of the draws.
        beta: How hard the model is held.
    """
    aims = rewards - beta * (now.detach() - before)
    return -(advantages(aims) * now).mean()


def advantages(rewards: Float[Tensor, "request draw"]) -> Float[Tensor, "request draw"]:
    """Each reward less the mean of the others of its request."""
    count = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * count / (count - 1)


def shuffled(rewards: Float[Tensor, "request draw"], seed: int) -> Float[Tensor, "request draw"]:
    """The rewards of each request dealt anew among its draws."""
    order = torch.rand(rewards.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return rewards.gather(1, order)
