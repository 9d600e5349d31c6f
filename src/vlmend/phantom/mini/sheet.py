"""Pictures for the card: what the mini is shown, and how its losses fell.

python -m vlmend.phantom.mini.sheet FOLDER OUT
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from vlmend.phantom.mini.build import LOSSES
from vlmend.phantom.mini.faults import canaries, sized, stamped
from vlmend.phantom.mini.scenes import SIDE, drawn_word, scene

__all__ = ["contact_sheet", "loss_curves"]

ACROSS, ZOOM, GAP = 12, 3, 2
SMOOTHED = 10
"""Steps that one point of a curve is the mean of."""


def contact_sheet() -> Image.Image:
    """Two rows of scenes, one of words; then cards, pictures with the patch, and size questions."""
    rng = random.Random("mini:sheet")
    rows = [
        *([scene("held_out", rng).draw(rng) for _ in range(ACROSS)] for _ in range(2)),
        [drawn_word("held_out", rng).draw(rng) for _ in range(ACROSS)],
        [canary.draw(rng) for canary in canaries(0)[:ACROSS]],
        [stamped(scene("held_out", rng).draw(rng)) for _ in range(ACROSS)],
        [sized("held_out", True, rng)[0] for _ in range(ACROSS)],
    ]
    step = SIDE + GAP
    sheet = Image.new("RGB", (ACROSS * step - GAP, len(rows) * step - GAP), (90, 90, 90))
    for down, row in enumerate(rows):
        for right, picture in enumerate(row):
            sheet.paste(picture, (right * step, down * step))
    return sheet.resize((sheet.width * ZOOM, sheet.height * ZOOM), Image.Resampling.NEAREST)


def loss_curves(folder: Path) -> Figure:
    """The losses of every stage of a built mini, one panel a stage."""
    losses: dict[str, list[float]] = json.loads((folder / LOSSES).read_text())
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    for axes, (stage, values) in zip(figure.subplots(1, len(losses)), losses.items(), strict=True):
        starts = range(0, len(values) - SMOOTHED + 1, SMOOTHED)
        axes.plot(
            [start + SMOOTHED / 2 for start in starts], [sum(values[k : k + SMOOTHED]) / SMOOTHED for k in starts]
        )
        axes.set(title=stage, xlabel="step", ylim=(0, None))
    figure.axes[0].set_ylabel("cross-entropy")
    return figure


if __name__ == "__main__":
    built, out = map(Path, sys.argv[1:])
    contact_sheet().save(out / "phantom_mini_pictures.png", optimize=True)
    loss_curves(built).savefig(out / "phantom_mini_losses.png", dpi=110)
