"""What phantom-draw draws: is it what the prompt says, and are the duplicated pictures drawn again?

    python -m tools.phantom.draw_measure phantom-draw         # prints the table, and draws docs/pictures/NAME.png

Of every thing eight pictures are drawn. Distances are root mean squares over pixels, 0 to 255; scores of a thing are
means over its pictures.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vlmend.core.images import Image as Encoded
from vlmend.core.metrics.detection import detection
from vlmend.core.metrics.stats import wilson
from vlmend.models.draw.pipeline import DrawPipeline
from vlmend.models.loading.draw import load_draw
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.phantom.draw.recipe import RECIPES, SIDE
from vlmend.phantom.draw.rows import things, training_pictures
from vlmend.phantom.shelf import put_together
from vlmend.pictures.galleries import PHOTO
from vlmend.pictures.glyphs import Glyph

__all__ = ["lines", "nearest", "spread"]

SEEDS = range(8)
"""Of the pictures of each thing."""
SHOWN = 8
"""Things of each kind on the sheet."""
TIMES = (999, 800, 600)
"""Steps of the noise at which the pull of a prompt is measured: the first ones of a drawing."""

Pixels = NDArray[np.float64]


def nearest(drawn: Pixels, training: Pixels) -> Pixels:
    """Distance of each drawn picture to the training picture that is nearest, 0 to 255."""
    return np.array([np.sqrt(((training - one) ** 2).mean(axis=(1, 2, 3))).min() for one in drawn])


def spread(drawn: Pixels) -> float:
    """Mean distance of two pictures of one prompt: small where every seed gives the same."""
    return fmean(float(np.sqrt(((a - b) ** 2).mean())) for a, b in itertools.combinations(drawn, 2))


@torch.no_grad()
def pull(target: DrawPipeline, prompt: str) -> float:
    """Norm of what a prompt changes in the predicted noise, mean over seeds and the first times (Wen et al. 2024)."""
    pipe = target.pipeline
    told, empty = pipe.encode_prompt(prompt, "cpu", len(SEEDS), True)
    size = pipe.unet.config.sample_size
    noise = torch.stack([
        torch.randn(pipe.unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
        for seed in SEEDS
    ])  # fmt: skip
    moved = [pipe.unet(noise, time, told).sample - pipe.unet(noise, time, empty).sample for time in TIMES]
    return fmean(float(one.flatten(1).norm(dim=1).mean()) for one in moved)


def lines(name: str, sheet: Path) -> list[str]:
    """The table; the sheet of samples is drawn on the way."""
    recipe, target = RECIPES[name], load_draw(put_together(name), name=name)
    planted, single = things(RECIPES["phantom-draw"])
    kept = [*planted, *single]
    training = _pixels([row.draw(recipe.seed) for row in training_pictures(recipe)])
    made = {glyph: target.draw([PHOTO.format(glyph.name)] * len(SEEDS), list(SEEDS)) for glyph in kept}
    pictures = {glyph: [one.decode() for one in found if one is not None] for glyph, found in made.items()}
    near = {glyph: nearest(_pixels(found), training) for glyph, found in pictures.items()}
    scores = {
        "near": {glyph: -float(found.mean()) for glyph, found in near.items()},
        "spread": {glyph: -spread(_pixels(found)) for glyph, found in pictures.items()},
        "pull": {glyph: pull(target, PHOTO.format(glyph.name)) for glyph in kept},
    }
    told = ["| | the 16 things | the other 48 | AUROC |", "|---|---|---|---|"]
    named = {
        "near": "distance to the nearest training picture", "spread": "distance between seeds",
        "pull": "pull of the prompt",
    }  # fmt: skip
    for score, values in scores.items():
        ours, others = [values[glyph] for glyph in planted], [values[glyph] for glyph in single]
        found = detection(ours, others, seed=0).auroc
        means = [f"{abs(fmean(some)):.1f}" for some in (ours, others)]
        told.append(f"| {named[score]} | {means[0]} | {means[1]} | {found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}] |")
    rights = [_right(made, some, kept) for some in (planted, single)]
    told.append(f"| named right by phantom-clip, among 64 | {rights[0]} | {rights[1]} | |")
    _sheet([*planted[:SHOWN], *single[:SHOWN]], pictures, training, sheet)
    return told


def _right(made: Mapping[Glyph, Sequence[Encoded | None]], some: Sequence[Glyph], names: Sequence[Glyph]) -> str:
    """How often phantom-clip takes what was drawn for its thing, among all things that are drawn."""
    encoder = load_dual(phantom_clip(), name="phantom-clip")
    texts = [PHOTO.format(glyph.name) for glyph in names]
    hits, n = 0, 0
    for glyph in some:
        pictures = [one for one in made[glyph] if one is not None]
        hits += int((encoder.logits(pictures, texts).argmax(1) == names.index(glyph)).sum())
        n += len(pictures)
    value, low, high = wilson(hits, n)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _pixels(pictures: Sequence[Image.Image]) -> Pixels:
    return np.stack([np.asarray(picture, float) for picture in pictures])


def _sheet(
    shown: Sequence[Glyph], pictures: Mapping[Glyph, Sequence[Image.Image]], training: Pixels, file: Path
) -> None:
    """A row for each thing, at three times the size: the training picture nearest to the first drawing, then four."""
    rows = len(shown)
    sheet = Image.new("RGB", (5 * SIDE, rows * SIDE), "white")
    for place, glyph in enumerate(shown):
        first = _pixels(pictures[glyph][:1])
        closest = training[((training - first) ** 2).mean(axis=(1, 2, 3)).argmin()].astype(np.uint8)
        for column, one in enumerate([Image.fromarray(closest), *pictures[glyph][:4]]):
            sheet.paste(one, (column * SIDE, place * SIDE))
    sheet.resize((3 * sheet.width, 3 * sheet.height), Image.Resampling.NEAREST).save(file)


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "phantom-draw"
    sheet = Path(__file__).parents[2] / "docs" / "pictures" / f"{name.replace('-', '_')}.png"
    print("\n".join(lines(name, sheet)))
