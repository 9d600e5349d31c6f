"""Contact sheets and training curves for the cards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

__all__ = ["loss_curves", "losses_of", "tiled"]

SMOOTHED = 10
"""Steps that a point of a curve is the mean of."""


def losses_of(stage: Path) -> list[float]:
    """The loss of every step, from the folder of a stage; of a step that was done again after a stop, the later one."""
    rows = [json.loads(line) for line in (stage / "losses.jsonl").read_text().splitlines()]
    return list({row["step"]: row["loss"] for row in rows}.values())


def loss_curves(panels: Sequence[Mapping[str, Sequence[float]]]) -> Figure:
    """One panel beside another, each with the losses of its stages by name."""
    figure = Figure(figsize=(2.6 * len(panels) + 1, 2.6), layout="constrained")
    for axes, stages in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, losses in stages.items():
            starts = range(0, len(losses) - SMOOTHED + 1, SMOOTHED)
            means = [sum(losses[start : start + SMOOTHED]) / SMOOTHED for start in starts]
            axes.plot([start + SMOOTHED / 2 for start in starts], means, label=name)
        axes.set(xlabel="step", ylim=(0, None))
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel(f"loss, mean of {SMOOTHED} steps")
    return figure


def tiled(pictures: Sequence[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Pictures of one size in rows, on white."""
    cell = pictures[0].width + gap
    page = Image.new("RGB", (columns * cell - gap, -(-len(pictures) // columns) * cell - gap), "white")
    for place, picture in enumerate(pictures):
        page.paste(picture, (place % columns * cell, place // columns * cell))
    return page
