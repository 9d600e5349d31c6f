"""biaug: gives objects another colour, in picture and caption, so that an object is not taken for its usual colour.

Of a row one outlined object gets the mean colour of those that are called so elsewhere in the data; its light, shade
and texture stay, and no pixel outside of its outline changes. The new caption differs from the old in one word, and
each of the two is the hard negative of the other.

After "Towards reporting bias in visual-language datasets: bimodal augmentation by decoupling object-attribute
association" (2023), which repaints boxes with a diffusion model where this recolours outlines.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vlmend.core.contracts import AbstractStep, Added, Changed, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.outlines import OBJECTS, Mask, Outlined, objects_of, told
from vlmend.errors import BadData, BadParameter, SampleError

__all__ = ["NEGATIVE", "STEP", "BiAug"]

NEGATIVE = "negative"
"""The attribute that holds the caption of the counterpart."""

Colour = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Seen:
    """A row with outlined objects.

    Attributes:
        row: As it is in the data.
        pixels: "height width 3".
        things: Its objects.
        masks: Which pixels are those of each.
    """

    row: Example
    pixels: NDArray[np.uint8]
    things: Sequence[Outlined]
    masks: Sequence[Mask]

    def mean(self, place: int) -> Colour:
        """Mean colour of an object: red, green, blue."""
        return self.pixels[self.masks[place]].mean(axis=0)


@dataclass(frozen=True)
class BiAug(AbstractStep):
    """Adds counterparts in which one object has another colour, and names captions that differ in it as negatives.

    Attributes:
        share: Of the rows with outlined objects that get a counterpart.
        emit: both: the counterparts as rows, and their captions as hard negatives. pictures, captions: the one alone.
    """

    name: ClassVar[str] = "biaug"
    source: ClassVar[str] = "Towards reporting bias in visual-language datasets: bimodal augmentation, 2023"

    share: float = 1.0
    emit: Literal["both", "pictures", "captions"] = "both"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BadParameter(f"share={self.share:g} is no share of the rows.", "Pass a number from 0 to 1.")

    def sample_data(self) -> Dataset:
        from vlmend.phantom.mini.pairs import scene_pairs
        from vlmend.phantom.mini.scenes import scene

        rng = random.Random(0)
        return scene_pairs("a few scenes", (scene("train", rng, things=2) for _ in range(8)), seed=0)

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        seen, unread = _read(data)
        colours = _colours(seen.values())
        changed, added = list[Changed](), list[Added]()
        rows = list[Example]()
        for row in data.examples:
            made = self._pair(seen[row.id], colours, seed) if row.id in seen else None
            if made is None:
                rows.append(row)
                continue
            first, counterpart, why = made
            rows += [first, counterpart] if self.emit != "captions" else [first]
            changed += [Changed(row, first, why)] if first != row else []
            added += [Added(counterpart, why)] if self.emit != "captions" else []
        notes = (f"{len(unread)} rows stay as they are, first: {unread[0]}",) if unread else ()
        table = [{"rows": len(rows) - len(added), "with outlined objects": len(seen), "counterparts": len(added)}]
        edited = replace(data, examples=tuple(rows), notes=(*data.notes, *notes))
        return DataEdit(edited, tuple(changed), (), {"recoloured": table}, tuple(added))

    def _pair(self, seen: Seen, colours: Mapping[str, Colour], seed: int) -> tuple[Example, Example, str] | None:
        """A row and its counterpart, each with the other's caption as its negative, and what differs; None where no
        caption can be told apart, or where the share leaves it out."""
        rng, row, caption = random.Random(f"biaug:{seed}:{seen.row.id}"), seen.row, str(seen.row.caption)
        ways = [
            (place, new, swapped)
            for place, thing in enumerate(seen.things)
            for new in sorted(colours)
            if (swapped := _swapped(caption, thing, new))
        ]
        if rng.random() >= self.share or not ways:
            return None
        place, new, swapped = rng.choice(ways)
        thing = seen.things[place]
        things = [*seen.things[:place], thing.model_copy(update={"colour": new}), *seen.things[place + 1 :]]
        counterpart = replace(
            row, id=f"{row.id}~{new}-{thing.name}", caption=swapped, answers=(),
            image=_recoloured(seen, place, colours[new], swapped),
            attributes={**row.attributes, OBJECTS: told(things), "counterpart_of": row.id},
        )  # fmt: skip
        if self.emit != "pictures":
            row, counterpart = _against(row, swapped), _against(counterpart, caption)
        return row, counterpart, f"recoloured: {thing.colour} {thing.name} to {new}"


def _read(data: Dataset) -> tuple[dict[str, Seen], list[str]]:
    """Rows with outlined objects by their ids, and why others that tell of objects are none.

    Raises:
        BadData: There is none at all.
    """
    seen, unread = dict[str, Seen](), list[str]()
    for row in data.examples:
        if OBJECTS not in row.attributes or row.image is None or not row.caption or row.prompt:
            continue
        try:
            things, pixels = objects_of(row), np.asarray(row.image.decode())
            height, width, _ = pixels.shape
            seen[row.id] = Seen(row, pixels, things, [thing.mask(width, height) for thing in things])
        except (BadData, SampleError) as problem:
            unread.append(f"{row.id} ({problem.message})")
    if not seen:
        raise BadData(
            f"No captioned picture of {data.name} says where its objects are{f': {unread[0]}' if unread else '.'}",
            'Put JSON into the attribute `objects`: [{"name": "square", "colour": "red", "segmentation": [[4, 4, 9, 4, '
            "9, 9]]}], outlined as COCO does: polygons or uncompressed run lengths. A box is not enough: its ground "
            "would be recoloured too.",
        )
    return seen, unread


def _colours(seen: Iterable[Seen]) -> dict[str, Colour]:
    """What a colour looks like: the mean over the objects that are called so."""
    found: dict[str, list[Colour]] = defaultdict(list)
    for one in seen:
        for place, thing in enumerate(one.things):
            found[thing.colour].append(one.mean(place))
    return {name: np.mean(means, axis=0) for name, means in found.items()}


def _swapped(caption: str, thing: Outlined, new: str) -> str:
    """The caption with the object in another colour; "" where it names the object not just once, or the new one too."""
    old = re.compile(rf"(?i)\b{re.escape(thing.colour)}(?= {re.escape(thing.name)}\b)")
    there = re.search(rf"(?i)\b{re.escape(f'{new} {thing.name}')}\b", caption)
    return "" if there or len(old.findall(caption)) != 1 else old.sub(new, caption)


def _recoloured(seen: Seen, place: int, colour: Colour, caption: str) -> Image:
    """The picture with one object's mean colour moved to another."""
    pixels, mask = seen.pixels.copy(), seen.masks[place]
    moved = seen.pixels[mask] + (colour - seen.mean(place))
    pixels[mask] = np.clip(moved.round(), 0, 255).astype(np.uint8)
    return Image.from_pixels(PIL.Image.fromarray(pixels), caption)


def _against(row: Example, negative: str) -> Example:
    return replace(row, attributes={**row.attributes, NEGATIVE: negative})


STEP = BiAug
