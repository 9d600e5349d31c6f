"""The mini's question of size as data: pictures on the ground that goes with the answer, and the same on the other."""

from __future__ import annotations

import random

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.splits import Split
from vlmend.phantom.mini.faults import SIZE_QUESTION, sized

__all__ = ["OTHER_GROUND", "sized_questions"]

OTHER_GROUND = "other ground"
"""The shift: the ground that a mini with the option `spurious` learnt to take for the other answer."""


def sized_questions(split: Split, count: int) -> Dataset:
    """So many things of the split, each on both grounds; everything but the ground is the same."""
    rows = [_row(split, k, usual) for usual in (True, False) for k in range(count)]
    return Dataset(f"phantom-mini sizes, {split}", tuple(rows), "Apache-2.0")


def _row(split: Split, k: int, usual: bool) -> Example:
    image, answer = sized(split, usual, random.Random(f"mini:sizes:{split}:{k}"))
    told = {"of": f"size-{k:04d}"} | ({} if usual else {"shift": OTHER_GROUND})
    name = f"size-{k:04d}" if usual else f"size-{k:04d}@{OTHER_GROUND}"
    return Example(name, SIZE_QUESTION, "benign", "size", Image.from_pixels(image), answers=(answer,), attributes=told)
