"""Training with a promise: noisy gradients whose sum of privacy loss is kept (opacus is imported here alone).

(epsilon, delta)-differential privacy for one row more or less: whatever is seen of the trained parameters is at most
e^epsilon times as likely with the row as without it, but for a chance of delta. Dwork et al. 2006; Abadi et al.,
arXiv 1607.00133, for training. The loss of a contrastive batch does not fall apart into rows, so what is clipped is the
gradient of a whole batch (Huang et al., arXiv 2306.08173): one row moves it anywhere in a ball of radius C, by 2C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from vlmend.errors import BadParameter, MissingExtra

__all__ = ["ORDERS", "Ledger", "clipped", "drawn_groups", "ledger_for", "private_gradient", "spent"]

Gradient = Float[Tensor, " parameter"]

ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *range(12, 64), *range(64, 1025, 16))
"""Of Renyi divergence, of which the best is taken; the large ones matter where there is much noise."""


@dataclass(frozen=True)
class Ledger:
    """What was promised, and by what.

    Attributes:
        epsilon, delta: The promise.
        noise: Noise multiplier: standard deviation over sensitivity.
        sampling: Chance of a row to be in a step, each by itself (Poisson).
        steps: Of training.
    """

    epsilon: float
    delta: float
    noise: float
    sampling: float
    steps: int


def ledger_for(epsilon: float, delta: float, sampling: float, steps: int) -> Ledger:
    """The least noise that keeps a promise, by opacus's accountant of Renyi privacy.

    Raises:
        BadParameter: A promise that promises nothing, or cannot be kept.
        MissingExtra: opacus is not installed.
    """
    if not 0 < epsilon < math.inf or not 0 < delta < 1 or not 0 < sampling <= 1 or steps < 1:
        raise BadParameter(
            f"epsilon={epsilon:g}, delta={delta:g} with {steps} steps at sampling rate {sampling:g} promise nothing.",
            "epsilon is above 0 and finite, delta between 0 and 1 (below one in the number of rows), a batch no larger "
            "than the data. To train without a promise, take a method that makes none.",
        )
    accountants = _accountants()
    try:
        noise = accountants.utils.get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=delta,
            sample_rate=sampling,
            steps=steps,
            epsilon_tolerance=0.01,
            alphas=ORDERS,
        )
    except ValueError as problem:
        raise BadParameter(
            f"epsilon={epsilon:g} cannot be kept ({problem}).", "Take more, or fewer steps."
        ) from problem
    return Ledger(spent(noise, sampling, steps, delta), delta, noise, sampling, steps)


def spent(noise: float, sampling: float, steps: int, delta: float) -> float:
    """The epsilon that so many steps cost.

    Raises:
        MissingExtra: opacus is not installed.
    """
    accountant = _accountants().create_accountant("rdp")
    accountant.history = [(noise, sampling, steps)]
    return float(accountant.get_epsilon(delta, alphas=ORDERS))


def clipped(gradient: Gradient, most: float) -> Gradient:
    """g min(1, C / |g|): of length C at most."""
    return gradient * min(1.0, most / max(float(gradient.norm()), 1e-30))


def drawn_groups(rows: int, sampling: float, groups: int, draws: Generator) -> list[list[int]]:
    """The rows of a step, in groups: each row comes by itself with the chance `sampling`, into a group of its own draw.

    A row that is added or taken away changes the group that it falls into and no other. Groups may be empty.
    """
    come = torch.rand(rows, generator=draws) < sampling
    where = torch.randint(groups, (rows,), generator=draws)
    return [(come & (where == group)).nonzero()[:, 0].tolist() for group in range(groups)]


def private_gradient(
    groups: Sequence[Sequence[int]], gradient: Callable[[Sequence[int]], Gradient], most: float, noise: float,
    draws: Generator,
) -> Gradient:  # fmt: skip
    """The mean of the groups' clipped gradients, and noise.

    One row changes one group's gradient, from one point of the ball of radius C to another, so the mean moves by 2C
    over the number of groups at most: that is the sensitivity, and the noise's standard deviation is `noise` times it.
    With noise 0 and C infinite it is the mean gradient.

    Args:
        groups: Places of rows.
        gradient: Of a group's loss; 0 of a group without rows.
        most: C.
        noise: The ledger's.
        draws: Of the noise; whoever can repeat them can take it off again.
    """
    mean = torch.stack([clipped(gradient(rows), most) for rows in groups]).mean(0)
    if not noise:
        return mean
    return mean + noise * 2 * most / len(groups) * torch.randn(mean.shape, generator=draws)


def _accountants() -> Any:
    """opacus's accountants.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return import_module("opacus.accountants")
    except ImportError as problem:
        raise MissingExtra(
            "The privacy that training costs is counted by opacus, which is not installed.",
            "pip install 'vlmend[privacy]'",
        ) from problem
