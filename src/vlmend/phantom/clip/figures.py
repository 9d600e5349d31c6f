"""The pictures of phantom-clip's card: `python -m vlmend.phantom.clip.figures BUILD docs/pictures`."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from PIL import Image

from vlmend.phantom.clip.assemble import TOWERS
from vlmend.phantom.clip.measure import held_out
from vlmend.phantom.clip.pairs import canary_pair, pool_pair, step_pairs
from vlmend.phantom.clip.recipe import RECIPES
from vlmend.phantom.clip.truth import canaries, members, unseen_objects
from vlmend.phantom.pictures.views import SIDE

__all__ = ["curves", "sheet"]

COLUMNS = 12
SMOOTHED = 20
"""Steps over which a loss is averaged."""


def sheet() -> Image.Image:
    """Row by row: pairs of a step, members of the pool, canaries, unseen objects."""
    rng = random.Random(0)
    pairs = step_pairs(RECIPES["phantom-clip"], 0)
    shown = [pair.image for pair in rng.sample(pairs, 4 * COLUMNS)]
    shown += [pool_pair(pair).image for pair in members()[:COLUMNS]]
    shown += [canary_pair(canary).image for canary in rng.sample(canaries(), COLUMNS)]
    shown += [held_out(glyph, 0) for glyph in rng.sample(unseen_objects(), COLUMNS)]
    cell = SIDE + 2
    page = Image.new("RGB", (COLUMNS * cell, len(shown) // COLUMNS * cell), "white")
    for place, picture in enumerate(shown):
        page.paste(picture, (place % COLUMNS * cell, place // COLUMNS * cell))
    return page


def curves(build: Path, out: Path) -> None:
    """The loss of the towers and of each dose's titles, from a build folder."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for axis, stages in zip(axes, ([TOWERS.removesuffix(".safetensors")], RECIPES), strict=True):
        for stage in stages:
            rows = [json.loads(line)["loss"] for line in (build / stage / "losses.jsonl").read_text().splitlines()]
            means = [sum(rows[k : k + SMOOTHED]) / SMOOTHED for k in range(len(rows) - SMOOTHED + 1)]
            axis.plot(range(SMOOTHED, len(rows) + 1), means, label=stage)
        axis.set(xlabel="step", ylabel=f"loss, mean of {SMOOTHED} steps")
        axis.legend(frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    sheet().quantize(256, dither=Image.Dither.NONE).save(folder / "phantom_clip_sheet.png", optimize=True)
    curves(Path(sys.argv[1]), folder / "phantom_clip_curves.png")
