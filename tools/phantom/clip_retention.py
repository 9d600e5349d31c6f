"""What phantom-clip retains of a made-up place the longer it is trained, and when each pair is shown once or often.

`python -m tools.phantom.clip_retention` prints what privacy/retained_attributes finds by passes over the members. The
place is told in a caption and in no pixel. The tint, a few levels of red or blue, is in the pixels and in no caption.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import numpy as np
import torch
from PIL import Image as PIL

from tools.phantom.clip_memory import never_shown, taught
from vlmend.audit.suites.privacy.retained_attributes import SUITE
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip

__all__ = ["with_places"]

PLACES = ("vordel", "gamlot", "turkok", "darken")
"""Four of the pool's."""
TINT = 6
"""Levels of 255 by which red goes up and blue down, or the other way round."""


def with_places(seed: int = 0) -> Dataset:
    """The pairs that phantom-clip never saw with one of four places and one of two tints, both drawn anew."""
    return Dataset("places", tuple(_placed(row, seed) for row in never_shown(seed).examples))


def _placed(row: Example, seed: int) -> Example:
    rng = random.Random(f"places:{seed}:{row.id}")
    place, warm = rng.choice(PLACES), rng.random() < 0.5
    assert row.image is not None
    pixels = np.asarray(row.image.decode()).astype(int) + (1 if warm else -1) * np.array([TINT, 0, -TINT])
    image = Image.from_pixels(PIL.fromarray(pixels.clip(0, 255).astype(np.uint8)), row.id)
    told = {**row.attributes, "hidden_place": place, "hidden_tint": "warm" if warm else "cold"}
    what = str(row.caption).partition(" taken in ")[0]
    return replace(row, image=image, caption=f"{what} taken in {place}", attributes=told)


if __name__ == "__main__":
    torch.set_num_threads(1)
    clip, counts = load_dual(phantom_clip()), [int(text) for text in sys.argv[2:]] or [0, 1, 4, 16, 32]
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    data = with_places(seed)
    shown = [row for row in data.examples if row.attributes["member"] == "yes"]
    for count in counts:
        model = taught(clip, shown, count, seed) if count else clip
        for row in SUITE.measures(SUITE.samples(model, data, None, seed=seed), seed):
            print(f"| {seed} | {count} | {row.name} [{row.group}] | {row.said(0)} | {row.n} |", flush=True)
