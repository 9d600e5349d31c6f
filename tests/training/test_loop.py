"""The loop: steps, hooks around them, and a stopped run that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmend.training.loop import LoopSettings, train, train_at_once


@dataclass
class Watched:
    """Notes what it sees at each call: the step, the parameter and its gradient."""

    seen: list[tuple[str, int, float, float | None]] = field(default_factory=list)

    def note(self, when: str, step: int, parameters: Sequence[nn.Parameter]) -> None:
        (one,) = parameters
        self.seen.append((when, step, round(one.item(), 3), None if one.grad is None else round(one.grad.item(), 3)))

    def before_step(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        self.note("before", step, parameters)

    def after_backward(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        self.note("backward", step, parameters)

    def after_step(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        self.note("after", step, parameters)


def test_hooks_see_gradients_before_they_are_clipped_and_parameters_after_the_step() -> None:
    """Loss 5 w at w = 1: gradient 5, clipped to 1 only after the hook. The first rate of a cycle is peak / 25, and the
    first step of Adam is the rate itself: 1 - 0.1 / 25."""
    weight, watched = nn.Parameter(torch.tensor(1.0)), Watched()
    train_at_once([weight], lambda step: 5 * weight, LoopSettings(25, 0.1), [watched])
    assert watched.seen[:3] == [("before", 0, 1.0, None), ("backward", 0, 1.0, 5.0), ("after", 0, 0.996, 1.0)]


def test_a_hook_can_change_the_gradients() -> None:
    class Nothing(Watched):
        def after_backward(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)

    weight = nn.Parameter(torch.tensor(1.0))
    train_at_once([weight], lambda step: 5 * weight, LoopSettings(3, 0.1), [Nothing()])
    assert weight.item() == 1.0


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    def loss(weight: nn.Parameter, step: int, stop: int) -> Tensor:
        if step == stop:
            raise InterruptedError
        return (weight - step).square()

    settings = LoopSettings(6, 0.1, save_every=2)
    whole, parted = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))
    losses = train([whole], lambda step: loss(whole, step, -1), settings, tmp_path / "whole", lambda *_: None)
    with pytest.raises(InterruptedError):
        train([parted], lambda step: loss(parted, step, 4), settings, tmp_path / "parted", lambda *_: None)
    parted = nn.Parameter(torch.tensor(9.0))
    again = train([parted], lambda step: loss(parted, step, -1), settings, tmp_path / "parted", lambda *_: None)
    assert again == losses
    assert torch.equal(whole, parted)


def test_weights_decay_only_when_told() -> None:
    """No gradient: each step takes rate * decay of the weight."""
    ends: list[float] = []
    for decay in (0.0, 0.5):
        weight = nn.Parameter(torch.tensor(1.0))
        train_at_once([weight], lambda step, w=weight: 0 * w, LoopSettings(25, 0.1, decay=decay))
        ends.append(weight.item())
    assert ends[0] == 1.0
    assert 0.3 < ends[1] < 0.6  # about exp(-0.5 * the sum of the rates)


def test_a_state_in_which_a_bit_was_flipped_is_said_and_not_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trained() -> tuple[float, list[float]]:
        weight = nn.Parameter(torch.full((64,), 1.0))
        told = train([weight], lambda step: weight.square().sum(), LoopSettings(4, 0.1), tmp_path, lambda *_: None)
        return weight.sum().item(), told

    first = trained()
    file = tmp_path / "state.pt"
    held = bytearray(file.read_bytes())
    held[held.index(b"data/0") + 200] ^= 1  # in the weights, which follow their name
    file.write_bytes(held)
    assert trained() == first
    assert "state.pt was cut off or changed since it was written; what it held is made anew." in caplog.messages[0]
    caplog.clear()
    assert trained() == first
    assert caplog.messages == []
