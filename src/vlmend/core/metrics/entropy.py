"""Rényi entropies of a model's next-token distributions, and what attacks on membership read from them.

Li et al. 2024, arXiv 2411.02902 (MaxRényi-K%); Shi et al. 2024, arXiv 2310.16789 (Min-K%). All in log space: no
probability is clamped.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from vlmend.errors import BadParameter

__all__ = ["largest_mean", "renyi", "smallest_mean"]


def renyi(logits: Float[Tensor, "*token vocabulary"], alpha: float) -> Float[Tensor, "*token"]:
    """H(p) = ln(sum of p^alpha) / (1 - alpha), in nats; alpha 1 is Shannon's, infinity is -ln of the largest.

    Raises:
        BadParameter: alpha is not above 0.
    """
    if not alpha > 0:
        raise BadParameter(f"alpha={alpha} cannot be.", "Pass a number above 0, or infinity.")
    logp = logits.double().log_softmax(-1)
    if alpha == 1:
        return -(logp.exp() * logp.clamp(min=-1e300)).sum(-1)
    if math.isinf(alpha):
        return -logp.amax(-1)
    return (alpha * logp).logsumexp(-1) / (1 - alpha)


def largest_mean(values: Float[Tensor, " token"], share: float) -> float:
    """Mean of the largest share of values, of one at least (MaxRényi-K%: entropies, members have low ones)."""
    return float(values.double().sort(descending=True).values[: _count(len(values), share)].mean())


def smallest_mean(values: Float[Tensor, " token"], share: float) -> float:
    """Mean of the smallest share of values, of one at least (Min-K%: log-probabilities, members have high ones)."""
    return float(values.double().sort().values[: _count(len(values), share)].mean())


def _count(total: int, share: float) -> int:
    return max(1, math.floor(share * total + 1e-9))
