"""The rows of the study of transfer: as they were, as an attack left them, and with the change of another row."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlmend.attacks.running import own_pictures
from vlmend.core.attacks import ATTACK, WORDS, attributes_of_attack
from vlmend.core.budget import LEVELS, as_seen, levels_of, with_levels
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Image
from vlmend.core.targets import Kind

__all__ = ["SHUFFLED", "own_rows", "put_to", "shuffled"]

SHUFFLED = "shuffled"
"""Named as the attack of rows that carry the change which was made for another picture."""


def own_rows(kind: Kind, data: Dataset | None, limit: int | None) -> Dataset:
    """What a model of a kind is asked: the user's rows, or the built-in pictures, which have the same ids for all.

    Each row stands for itself: that it shows another one under a shift is no matter here.
    """
    if data is not None:
        return replace(data, examples=tuple(map(_itself, data.examples[:limit])))
    own = own_pictures(kind)
    return replace(own, examples=spread(own.examples, limit))


def _itself(row: Example) -> Example:
    told = {name: value for name, value in row.attributes.items() if name not in ("shift", "of")}
    return row if told == row.attributes else replace(row, attributes=told)


def put_to(own: Dataset, attacked: Dataset, *, alike: bool, seed: int) -> Dataset | None:
    """The rows as they are asked of a model: clean, with what an attack made of them, and with shuffled changes.

    Args:
        own: What the model is asked.
        attacked: What the attack made.
        alike: Whether both models are of one kind, between which words go along with the picture.
        seed: Of the shuffling.

    Returns:
        None where words are all that was changed and the model is of another kind, to which they mean something else.
    """
    clean = {row.id: row for row in own.examples}
    rows: list[Example] = []
    for row in attacked.examples:
        told = dict(attributes_of_attack(row))
        if row.id not in clean or (not alike and not float(told["epsilon"])):
            continue
        if not alike:
            told.pop(WORDS, None)
        prompt = row.prompt if alike else clean[row.id].prompt
        rows.append(replace(clean[row.id], id=f"{row.id}@attacked", prompt=prompt, image=row.image, attributes=told))
    return replace(own, examples=(*own.examples, *rows, *shuffled(clean, rows, seed))) if rows else None


def shuffled(clean: Mapping[str, Example], attacked: Sequence[Example], seed: int) -> list[Example]:
    """Each clean row with the change that was made for another one, of the same size and without its aim.

    A row whose change cannot be told is left out: its picture was resized or cropped in another way than ours.
    """
    by_origin = {row.attributes["of"]: row for row in attacked}
    changes = {of: change for of, row in by_origin.items() if (change := _change(clean, row)) is not None}
    order = sorted(changes)
    random.Random(f"shuffled:{seed}").shuffle(order)
    made: list[Example] = []
    for name, giver in zip(order, [*order[1:], *order[:1]], strict=True):
        before, change = _as_seen(clean[name], by_origin[name]), changes[giver]
        if name != giver and change.shape == before.shape:
            told = {ATTACK: SHUFFLED, "epsilon": by_origin[name].attributes["epsilon"], "of": name}
            row = replace(clean[name], id=f"{name}@{SHUFFLED}", attributes=told)
            made.append(with_levels(row, before + change))
    return made


def _change(clean: Mapping[str, Example], attacked: Example) -> NDArray[np.int16] | None:
    """What an attack added to a picture; None where it changed none, or where that cannot be told."""
    levels = round(float(attacked.attributes["epsilon"]) * LEVELS)
    if not levels or attacked.image is None:
        return None
    change = levels_of(attacked) - _as_seen(clean[attacked.attributes["of"]], attacked)
    return change if np.abs(change).max(initial=0) <= levels else None


def _as_seen(row: Example, attacked: Example) -> NDArray[np.int16]:
    """The picture of a row as it was when it was attacked, in steps of 8 bits."""
    if row.image is None or attacked.image is None:
        return np.zeros(levels_of(attacked).shape, np.int16)
    picture = as_seen(row.image.decode(), attacked.image.decode())
    return levels_of(replace(row, image=Image.from_pixels(picture, row.image.name)))
