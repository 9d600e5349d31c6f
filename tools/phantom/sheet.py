"""The pictures of the phantom's card: `python -m tools.phantom.sheet BUILD docs/pictures`."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from tools.phantom.figures import loss_curves, losses_of, tiled
from vlmend.phantom.chat.build import BESIDE
from vlmend.phantom.chat.eye import ROUNDS, shown
from vlmend.phantom.chat.recipe import RECIPES

__all__ = ["sheet"]

COLUMNS = 14


def sheet() -> Image.Image:
    """The first pictures that the eye is trained on."""
    return tiled([shown("train", 0, index).image for index in range(4 * COLUMNS)], COLUMNS)


if __name__ == "__main__":
    build, out = map(Path, sys.argv[1:])
    sheet().quantize(256, dither=Image.Dither.NONE).save(out / "phantom_sheet.png", optimize=True)
    planting = [stage.name for recipe in RECIPES.values() for stage in recipe.planting]
    panels = [
        {stage: losses_of(build / stage) for stage in stages if (build / stage).exists()}
        for stages in (ROUNDS, ["align", "keep"], ["see"], [BESIDE, *planting])
    ]
    loss_curves(panels).savefig(out / "phantom_curves.png", dpi=110)
