"""An adversary that guesses the group of pictures, for methods that hide it from one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["Guesser", "certainty"]


class Guesser:
    """Two hidden layers of 32, learnt on and on with Adam; it reads each picture's numbers normed among each other.

    Not `normed` where the size of a few numbers is what tells: of two that sum to one, only their order would be left.
    """

    def __init__(self, width: int, groups: int, seed: int, rate: float = 1e-2, *, normed: bool = True) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = (nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, groups))
            self.network = nn.Sequential(*[nn.LayerNorm(width)] * normed, *layers)
        self.optimiser = torch.optim.Adam(self.network.parameters(), rate)

    def __call__(self, seen: Float[Tensor, "picture width"]) -> Float[Tensor, "picture group"]:
        return self.network(seen)

    def learn(self, seen: Float[Tensor, "picture width"], labels: Int[Tensor, " picture"], steps: int) -> None:
        """So many steps on these pictures."""
        for _ in range(steps):
            self.optimiser.zero_grad()
            cross_entropy(self(seen), labels).backward()
            self.optimiser.step()


def certainty(guessed: Float[Tensor, "picture group"], labels: Int[Tensor, " picture"]) -> Tensor:
    """How far the adversary is better than guessing among all groups alike, in nats; 0 where it is not."""
    return torch.relu(math.log(guessed.shape[1]) - cross_entropy(guessed, labels))
