"""Federated training in one process: rows dealt over clients, local steps, a weighted average, bytes counted.

FedAvg (McMahan et al. 2017, arXiv 1602.05629) and FedProx (Li et al. 2020, arXiv 1812.06127). Clients take plain steps
of gradient descent, which keep no state between rounds, so that one client alone is plain training, step for step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from vlmend.errors import BadParameter

__all__ = ["BYTES", "Client", "Rounds", "averaged", "dirichlet_split", "federate", "load", "local_update"]

BYTES = 4
"""Of a number in float32."""


@dataclass(frozen=True)
class Rounds:
    """How clients train.

    Attributes:
        rounds: Of sending, local steps and averaging.
        local: Steps of a client in a round.
        rate: Of plain gradient descent.
        mu: Pull of FedProx towards what the server sent; 0 is FedAvg.
    """

    rounds: int
    local: int
    rate: float
    mu: float = 0.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.local < 1 or not self.rate > 0 or not self.mu >= 0:
            raise BadParameter(
                f"rounds={self.rounds}, local={self.local}, rate={self.rate:g}, mu={self.mu:g} cannot be.",
                "rounds and local are at least 1, rate is above 0, mu is 0 (FedAvg) or more.",
            )


@dataclass(frozen=True)
class Client:
    """Somebody with rows of their own.

    Attributes:
        weight: Rows, by which its parameters count in the average.
        loss: Of its step number (round * local + step), which must decide the batch.
    """

    weight: int
    loss: Callable[[int], Tensor]


def dirichlet_split(labels: Sequence[str], clients: int, alpha: float, seed: int) -> list[list[int]]:
    """The rows of each client: those of each label are dealt by shares that are drawn from Dirichlet(alpha).

    Small alphas give a client few labels; with large ones every client has about as many of each. Clients may get none.

    Raises:
        BadParameter: There is no client, or alpha is not above 0 and finite.
    """
    if clients < 1 or not 0 < alpha < float("inf"):
        raise BadParameter(
            f"clients={clients}, alpha={alpha:g} cannot be.",
            "There is one client at least; alpha is above 0 (0.1: few labels each, 1000: alike).",
        )
    draws = np.random.default_rng(seed)
    dealt: list[list[int]] = [[] for _ in range(clients)]
    for label in sorted(set(labels)):
        rows = draws.permutation([k for k, one in enumerate(labels) if one == label])
        cuts = (np.cumsum(draws.dirichlet([alpha] * clients))[:-1] * len(rows)).round().astype(int)
        for mine, part in zip(dealt, np.split(rows, cuts), strict=True):
            mine.extend(part.tolist())
    return [sorted(rows) for rows in dealt]


def averaged(states: Sequence[Sequence[Tensor]], weights: Sequence[int]) -> list[Tensor]:
    """The mean of the clients' parameters, each by its weight."""
    total = sum(weights)
    return [
        sum((weight / total * one for weight, one in zip(weights, of, strict=True)), torch.zeros_like(of[0]))
        for of in zip(*states, strict=True)
    ]


def load(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Put values into parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def local_update(
    parameters: Sequence[nn.Parameter], sent: Sequence[Tensor], client: Client, plan: Rounds, turn: int
) -> list[Tensor]:
    """What a client sends back: parameters after its local steps w <- w - rate (gradient + mu (w - sent))."""
    load(parameters, sent)
    for step in range(plan.local):
        loss = client.loss(turn * plan.local + step)
        slopes = cast("Sequence[Tensor | None]", torch.autograd.grad(loss, parameters, allow_unused=True))
        with torch.no_grad():
            for parameter, slope, before in zip(parameters, slopes, sent, strict=True):
                if slope is not None:
                    pulled = slope + plan.mu * (parameter - before) if plan.mu else slope
                    parameter.add_(pulled, alpha=-plan.rate)
    return [parameter.detach().clone() for parameter in parameters]


def federate(parameters: Sequence[nn.Parameter], clients: Sequence[Client], plan: Rounds) -> int:
    """Train the parameters in place, and count the bytes that go down to the clients and up again.

    That is 2 * rounds * clients * numbers * 4: every round each client gets all parameters and sends all of them.
    """
    numbers = sum(parameter.numel() for parameter in parameters)
    for turn in range(plan.rounds):
        sent = [parameter.detach().clone() for parameter in parameters]
        states = [local_update(parameters, sent, client, plan, turn) for client in clients]
        mean = states[0] if len(states) == 1 else averaged(states, [client.weight for client in clients])
        load(parameters, mean)
    return 2 * plan.rounds * len(clients) * numbers * BYTES
