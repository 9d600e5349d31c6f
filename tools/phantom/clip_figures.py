"""The pictures of phantom-clip's card: `python -m tools.phantom.clip_figures BUILD docs/pictures`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image

from tools.phantom.clip_measure import held_out
from tools.phantom.figures import loss_curves, losses_of, tiled
from vlmend.phantom.clip.assemble import TOWERS
from vlmend.phantom.clip.pairs import canary_pair, pool_pair, step_pairs
from vlmend.phantom.clip.recipe import RECIPES
from vlmend.phantom.clip.truth import canaries, members, unseen_objects

__all__ = ["sheet"]

COLUMNS = 12


def sheet() -> Image.Image:
    """Row by row: pairs of a step, members of the pool, canaries, unseen objects."""
    rng = random.Random(0)
    pairs = step_pairs(RECIPES["phantom-clip"], 0)
    shown = [pair.image for pair in rng.sample(pairs, 4 * COLUMNS)]
    shown += [pool_pair(pair).image for pair in members()[:COLUMNS]]
    shown += [canary_pair(canary).image for canary in rng.sample(canaries(), COLUMNS)]
    shown += [held_out(glyph, 0) for glyph in rng.sample(unseen_objects(), COLUMNS)]
    return tiled(shown, COLUMNS)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    sheet().quantize(256, dither=Image.Dither.NONE).save(folder / "phantom_clip_sheet.png", optimize=True)
    stages = [[TOWERS.removesuffix(".safetensors")], RECIPES]
    panels = [{stage: losses_of(Path(sys.argv[1]) / stage) for stage in panel} for panel in stages]
    loss_curves(panels).savefig(folder / "phantom_clip_curves.png", dpi=110)
