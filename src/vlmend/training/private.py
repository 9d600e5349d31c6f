"""Training with a promise: noisy gradients whose sum of privacy loss is kept (opacus is imported here alone).

(epsilon, delta)-differential privacy for one row more or less: whatever is seen of the trained parameters is at most
e^epsilon times as likely with the row as without it, but for a chance of delta. Dwork et al. 2006; Abadi et al.,
arXiv 1607.00133, for training. The loss of a contrastive batch does not fall apart into rows, so what is clipped is the
gradient of a whole batch (Huang et al., arXiv 2306.08173): one row moves it anywhere in a ball of radius C, by 2C. The
loss of captions and replies does fall apart, so each row's gradient is clipped, and one row moves their sum by C.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from collections.abc import Generator as Generated
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from vlmend.errors import BadParameter, MissingExtra

__all__ = [
    "ORDERS", "Ledger", "clipped", "drawn_groups", "drawn_rows", "ledger_for", "noisy_mean", "private_gradient",
    "rows_apart", "spent",
]  # fmt: skip

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


@cache
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


def drawn_rows(rows: int, sampling: float, draws: Generator) -> list[int]:
    """The rows of a step: each comes by itself with the chance `sampling` (Poisson); at times none does."""
    return drawn_groups(rows, sampling, 1, draws)[0]


@contextmanager
def rows_apart(model: nn.Module) -> Generated[None]:
    """While it is open, a backward pass of a sum over rows leaves each row's gradient in `parameter.grad_sample`.

    By opacus's hooks on the modules that learn, which are taken off again.

    Raises:
        MissingExtra: opacus is not installed.
    """
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooked = _opacus("opacus.grad_sample").GradSampleModule(model, loss_reduction="sum", strict=False)
    try:
        with warnings.catch_warnings():  # below the first adapter nothing needs a gradient, which is as it should be
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            yield
    finally:
        hooked.remove_hooks()
        for parameter in learns:
            for name in ("grad_sample", "_forward_counter"):
                if hasattr(parameter, name):
                    delattr(parameter, name)


def noisy_mean(
    parameters: Sequence[nn.Parameter], expected: float, most: float, noise: float, draws: Generator
) -> list[Tensor]:
    """The sum of rows' gradients, each clipped to length C, and noise, over the expected number of rows.

    A row more or less moves the sum by C at most: that is the sensitivity, and the noise's standard deviation is
    `noise` times it. The number that is divided by is the expected one, since the true one is a secret.

    Args:
        parameters: With the gradients of each row of the batch in `grad_sample`; none of an empty batch.
        expected: Rows of a batch.
        most: C, over all parameters together.
        noise: The ledger's.
        draws: Of the noise.

    Returns:
        In the shapes of the parameters.
    """
    samples = [getattr(parameter, "grad_sample", None) for parameter in parameters]
    each = [sample.flatten(1).norm(dim=1) for sample in samples if sample is not None]
    lengths = torch.stack(each).norm(dim=0) if each else torch.zeros(0)
    weights = (most / lengths.clamp_min(1e-30)).clamp_max(1.0)
    found: list[Tensor] = []
    for parameter, sample in zip(parameters, samples, strict=True):
        total = torch.zeros_like(parameter) if sample is None else torch.einsum("r,r...->...", weights, sample)
        if noise:
            total = total + noise * most * torch.randn(parameter.shape, generator=draws).to(parameter)
        found.append(total / expected)
    return found


def _accountants() -> Any:
    """opacus's accountants.

    Raises:
        MissingExtra: It is not installed.
    """
    return _opacus("opacus.accountants")


def _opacus(part: str) -> Any:
    try:
        return import_module(part)
    except ImportError as problem:
        raise MissingExtra(
            "Private training is counted and clipped by opacus, which is not installed.",
            "pip install 'vlmend[privacy]'",
        ) from problem
