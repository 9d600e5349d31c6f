"""Captioned pictures of scenes, with the outline of each thing: what small dual encoders are trained on."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.outlines import OBJECTS, Outlined, run_lengths, told
from vlmend.phantom.mini.scenes import SIDE, Scene

__all__ = ["scene_pairs"]


def scene_pairs(name: str, scenes: Iterable[Scene], seed: int) -> Dataset:
    """A row for each scene; ids are their places."""
    rows = (_row(str(place), scene, random.Random(f"{name}:{seed}:{place}")) for place, scene in enumerate(scenes))
    return Dataset(name, tuple(rows), "Apache-2.0")


def _row(name: str, scene: Scene, rng: random.Random) -> Example:
    """The ground is of one colour throughout, so what differs from it within a thing's quarter is the thing."""
    picture = scene.draw(rng)
    pixels = np.asarray(picture)
    empty = next(cell for cell in range(4) if all(thing.cell != cell for thing in scene.things))
    down, right = (SIDE // 2 * part for part in divmod(empty, 2))
    drawn = (pixels != pixels[down, right]).any(axis=2)
    objects: list[Outlined] = []
    for thing in scene.things:
        down, right = (SIDE // 2 * part for part in divmod(thing.cell, 2))
        mask = np.zeros_like(drawn)
        mask[down : down + SIDE // 2, right : right + SIDE // 2] = drawn[
            down : down + SIDE // 2, right : right + SIDE // 2
        ]
        objects.append(Outlined(name=thing.shape, colour=thing.colour, segmentation=run_lengths(mask)))
    image = Image.from_pixels(picture, scene.caption)
    return Example(name, image=image, caption=scene.caption, attributes={OBJECTS: told(objects)})
