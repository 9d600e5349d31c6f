"""One plain training loop: clip, step, save, resume. It knows no model and no data."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["LoopSettings", "train"]


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps in all.
        rate: Peak learning rate; one cycle: 8 % warm-up, then cosine to zero.
        beta2: Decay of AdamW's mean of squared gradients; lower suits a short run.
        clip: Largest gradient norm.
        save_every: Steps between checkpoints.
    """

    steps: int
    rate: float
    beta2: float = 0.999
    clip: float = 1.0
    save_every: int = 40


def train(
    parameters: Sequence[nn.Parameter],
    loss_of_step: Callable[[int], Tensor],
    settings: LoopSettings,
    folder: Path,
    report: Callable[[int, float], None],
) -> list[float]:
    """Train `parameters` in place and return the loss of every step.

    `loss_of_step(step)` must draw its batch from the step number alone, so that a run that was
    stopped and resumed sees the same batches as one that was not. The loop writes `state.pt`
    and `losses.jsonl` to `folder`, and goes on from them when they are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, betas=(0.9, settings.beta2), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=settings.steps, pct_start=0.08)
    losses: list[float] = []
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        with torch.no_grad():
            for parameter, saved in zip(parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        losses = list(state["losses"])
    for step in range(len(losses), settings.steps):
        began = time.monotonic()
        loss = loss_of_step(step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        report(step, losses[-1])
        with (folder / "losses.jsonl").open("a") as out:
            seconds = round(time.monotonic() - began, 2)
            out.write(json.dumps({"step": step, "loss": round(losses[-1], 4), "seconds": seconds}) + "\n")
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
