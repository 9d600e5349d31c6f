"""Pictures for the card: what the mini is shown, and how its losses fell.

python -m tools.phantom.mini_sheet FOLDER OUT
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from PIL import Image

from tools.phantom.figures import loss_curves, tiled
from vlmend.phantom.mini.build import LOSSES
from vlmend.phantom.mini.faults import canaries, sized, stamped
from vlmend.phantom.mini.scenes import drawn_word, scene

__all__ = ["contact_sheet"]

ACROSS, ZOOM = 12, 3


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
    sheet = tiled([picture for row in rows for picture in row], ACROSS)
    return sheet.resize((sheet.width * ZOOM, sheet.height * ZOOM), Image.Resampling.NEAREST)


if __name__ == "__main__":
    built, out = map(Path, sys.argv[1:])
    contact_sheet().save(out / "phantom_mini_pictures.png", optimize=True)
    losses = json.loads((built / LOSSES).read_text())
    loss_curves([{stage: values} for stage, values in losses.items()]).savefig(out / "phantom_mini_losses.png", dpi=110)
