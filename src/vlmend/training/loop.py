"""One plain training loop: clip, step, save, resume. It knows no model and no data."""

from __future__ import annotations

import json
import logging
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vlmend.core.files import append

__all__ = ["LoopSettings", "StepHook", "is_whole", "train", "train_at_once"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps in all.
        rate: Peak learning rate; one cycle: 8 % warm-up, then cosine to zero.
        beta2: Decay of AdamW's mean of squared gradients; lower suits a short run.
        clip: Largest gradient norm.
        decay: Weight decay of AdamW.
        save_every: Steps between checkpoints.
    """

    steps: int
    rate: float
    beta2: float = 0.999
    clip: float = 1.0
    decay: float = 0.0
    save_every: int = 40


@runtime_checkable
class StepHook(Protocol):
    """Works on the parameters around each step: noise of private training, an average over clients."""

    def before_step(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        """Before the loss is computed."""
        ...

    def after_backward(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients are there and not yet clipped."""
        ...

    def after_step(self, step: int, parameters: Sequence[nn.Parameter]) -> None:
        """The parameters have moved."""
        ...


def train(
    parameters: Sequence[nn.Parameter],
    loss_of_step: Callable[[int], Tensor],
    settings: LoopSettings,
    folder: Path,
    report: Callable[[int, float], None],
    hooks: Sequence[StepHook] = (),
) -> list[float]:
    """Train `parameters` in place and return the loss of every step.

    `loss_of_step(step)` must draw its batch from the step number alone, so that a run that was
    stopped and resumed sees the same batches as one that was not; a hook draws its noise likewise. The loop writes
    `state.pt` and `losses.jsonl` to `folder`, and goes on from them when they are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.rate, betas=(0.9, settings.beta2), weight_decay=settings.decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=settings.steps, pct_start=0.08)
    state_file = folder / "state.pt"
    losses = _resumed(state_file, parameters, optimiser, schedule) if is_whole(state_file) else []
    for step in range(len(losses), settings.steps):
        began = time.monotonic()
        losses.append(_step(step, parameters, loss_of_step, optimiser, settings.clip, hooks))
        schedule.step()
        report(step, losses[-1])
        told = {"step": step, "loss": round(losses[-1], 4), "seconds": round(time.monotonic() - began, 2)}
        append(folder / "losses.jsonl", json.dumps(told) + "\n", sync=False)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            state = {
                "parameters": [parameter.detach() for parameter in parameters],
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "losses": losses,
            }
            torch.save(state, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)
    return losses


def train_at_once(
    parameters: Sequence[nn.Parameter],
    loss_of_step: Callable[[int], Tensor],
    settings: LoopSettings,
    hooks: Sequence[StepHook] = (),
) -> list[float]:
    """As `train`, for a short run that leaves no files."""
    with tempfile.TemporaryDirectory() as folder:
        once = replace(settings, save_every=settings.steps)
        return train(parameters, loss_of_step, once, Path(folder), lambda step, loss: None, hooks)


def _step(
    step: int, parameters: Sequence[nn.Parameter], loss_of_step: Callable[[int], Tensor],
    optimiser: torch.optim.Optimizer, clip: float, hooks: Sequence[StepHook],
) -> float:  # fmt: skip
    for hook in hooks:
        hook.before_step(step, parameters)
    loss = loss_of_step(step)
    optimiser.zero_grad()
    loss.backward()
    for hook in hooks:
        hook.after_backward(step, parameters)
    nn.utils.clip_grad_norm_(parameters, clip)
    optimiser.step()
    for hook in hooks:
        hook.after_step(step, parameters)
    return loss.item()


def is_whole(file: Path) -> bool:
    """Whether a state is there as it was saved; one that a fault of the disk changed is said and not used."""
    if not file.exists():
        return False
    try:
        with zipfile.ZipFile(file) as held:
            whole = held.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        whole = False
    if not whole:
        log.warning("%s was cut off or changed since it was written; what it held is made anew.", file)
    return whole


def _resumed(
    file: Path, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer, schedule: Any
) -> list[float]:
    """Put a saved state back; gives the losses so far."""
    state = torch.load(file, weights_only=True)
    with torch.no_grad():
        for parameter, saved in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(saved)
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    return list(state["losses"])
