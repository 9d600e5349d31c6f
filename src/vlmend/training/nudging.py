"""Adversaries in embedding space: what a module gives, or is given, is changed a little so that a loss grows.

Gan et al., arXiv 2006.06195 (NeurIPS 2020). For each row of a batch one change d as large as all its embeddings e
together, 0 at first, then for A - 1 times, with g the gradient of the loss of the pass before in d,

    d <- d + step |e| g / |g|,   cut to |d| <= epsilon |e| where epsilon is above 0

The weights stand still meanwhile. Steps are shares of |e| here; in the paper they are absolute.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlmend.errors import ModelProblem

__all__ = ["Climb", "Door", "Nudge", "nudged_loss"]

Pass = Callable[[], tuple[Tensor, Tensor]]
"""A forward pass: its loss, and whatever later passes are held to."""


@dataclass(frozen=True)
class Climb:
    """How an adversary climbs.

    Attributes:
        passes: A, forward passes; with 1 nothing is changed.
        step: Length of a step, as a share of the row's embeddings.
        epsilon: Largest length of the change, likewise; 0 for no bound.
        random: Go to random places of the same lengths, not up the gradient.
    """

    passes: int
    step: float
    epsilon: float = 0.0
    random: bool = False


@dataclass(frozen=True, eq=False)
class Door:
    """Where embeddings are changed.

    Attributes:
        module: Whose output, "row ...", is changed.
        entering: Change what it is given instead.
        free: Places that may be changed, in the shape of the embeddings or one that spreads to it; None for all.
        rows: How many rows there must be, one a picture; 0 for any.
    """

    module: nn.Module
    entering: bool = False
    free: Bool[Tensor, "*places"] | None = None
    rows: int = 0

    @contextmanager
    def open(self, nudge: Nudge) -> Generator[None]:
        """The nudge at work, for as long as the block lasts.

        Raises:
            ModelProblem: There are not as many rows as there must be.
        """

        def changed(embedded: Tensor) -> Tensor:
            if self.rows and len(embedded) != self.rows:
                raise ModelProblem(
                    f"{type(self.module).__name__} reads {len(embedded)} rows for {self.rows} pictures.",
                    "No picture can be changed by itself there; change the words alone.",
                )
            return nudge(embedded)

        def entered(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (changed(given[0]), *given[1:])

        def left(_: nn.Module, _given: Any, out: Any) -> Tensor:
            return changed(out)

        module = self.module
        handle = module.register_forward_pre_hook(entered) if self.entering else module.register_forward_hook(left)
        try:
            yield
        finally:
            handle.remove()


@dataclass(eq=False)
class Nudge:
    """The change of a batch's embeddings, zero until it climbs.

    Attributes:
        free: Places that may be changed, or None for all.
        draws: Of random directions.
        delta: The change, in the shape of the embeddings.
        size: Length of each row's embeddings, those at free places, "row 1 ...".
    """

    free: Tensor | None
    draws: torch.Generator
    delta: Tensor | None = None
    size: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __call__(self, embedded: Float[Tensor, "row ..."]) -> Float[Tensor, "row ..."]:
        if self.delta is None:
            self.size = _length(self._kept(embedded.detach()))
            self.delta = torch.zeros_like(embedded).requires_grad_()
        return embedded + self.delta

    def climb(self, loss: Tensor, how: Climb) -> None:
        """One step up the loss of the pass before, or in a random direction."""
        delta = self.delta
        assert delta is not None, "no pass went through the door"
        if how.random:
            gradient = torch.randn(delta.shape, generator=self.draws).to(delta)
        else:
            (gradient,) = torch.autograd.grad(loss, delta, retain_graph=True)
        gradient = self._kept(gradient)
        moved = delta.detach() + how.step * self.size * gradient / _length(gradient).clamp(min=TINY)
        if how.epsilon:
            moved = moved * (how.epsilon * self.size / _length(moved).clamp(min=TINY)).clamp(max=1)
        self.delta = moved.requires_grad_()

    def _kept(self, values: Tensor) -> Tensor:
        return values if self.free is None else values * self.free


TINY = 1e-30
"""Stands in for the length of a gradient that is zero."""


def nudged_loss(
    once: Pass, door: Door, how: Climb, apart: Callable[[Tensor, Tensor], Tensor], weight: float, seed: int
) -> Tensor:
    """(1/A) times the sum over A passes of loss + weight * apart(what came out, what came out of the clean pass).

    The first pass is clean, so that with one pass this is the loss itself. Its outcome stays in the graph, as in the
    authors' code; gradients in the weights add up over the passes.

    Args:
        once: A forward pass of the same batch.
        door: Where it is nudged.
        how: The adversary.
        apart: How far two outcomes are apart.
        weight: Of that distance.
        seed: Of random directions.
    """
    if how.passes == 1:
        return once()[0]
    nudge = Nudge(door.free, torch.Generator().manual_seed(seed))
    with door.open(nudge):
        loss, clean = once()
        total = loss
        for _ in range(how.passes - 1):
            nudge.climb(loss, how)
            task, said = once()
            loss = task + weight * apart(said, clean)
            total = total + loss
    return total / how.passes


def _length(values: Tensor) -> Tensor:
    """Of each row, all its places taken together, "row 1 ..."."""
    return values.flatten(1).norm(dim=1).reshape(-1, *[1] * (values.dim() - 1))
