"""mixgen: lays pictures over each other and joins their captions, so that few pairs go further.

Of every mixture the picture is weight * first + (1 - weight) * second, and the caption is both, one after the other.
The first row becomes the mixture; the second stays as it is, and is mixed with no other.

Hao et al. 2022, arXiv 2206.08358.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import PIL.Image

from vlmend.core.contracts import AbstractStep, Changed, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter, SampleError

__all__ = ["STEP", "MixGen"]


@dataclass(frozen=True)
class MixGen(AbstractStep):
    """Turns a share of the captioned pictures into mixtures with others.

    Attributes:
        share: Of the captioned pictures that become mixtures; each needs a partner of its own.
        weight: Of a row's own picture; its partner's has the rest.
    """

    name: ClassVar[str] = "mixgen"
    source: ClassVar[str] = "Hao et al. 2022, arXiv 2206.08358"
    quick: ClassVar[Mapping[str, Any]] = {"share": 0.5}

    share: float = 0.25
    weight: float = 0.5

    def __post_init__(self) -> None:
        bad = [
            told
            for told, wrong in (
                (f"share={self.share:g}: 0 to 0.5, since each mixture takes two rows", not 0 <= self.share <= 0.5),
                (f"weight={self.weight:g}: 0 to 1", not 0 <= self.weight <= 1),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("Pictures cannot be mixed so.", "; ".join(bad) + ".")

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        pictures = {place: picture for place, row in enumerate(data.examples) if (picture := _captioned(row))}
        if len(pictures) < 2:
            raise BadData(
                f"{data.name} has {len(pictures)} captioned pictures that can be mixed.",
                "Pass two rows or more with an image and a caption, and without a prompt.",
            )
        order = random.Random(f"mixgen:{seed}").sample(sorted(pictures), len(pictures))
        count = int(self.share * len(order))
        rows, changed, unread = list(data.examples), list[Changed](), 0
        for place, partner in zip(order[:count], order[count : 2 * count], strict=True):
            one, other = data.examples[place], data.examples[partner]
            try:
                mixture = self._mixed(pictures[place].decode(), pictures[partner].decode())
            except SampleError:
                unread += 1
            else:
                rows[place] = _both(one, other, Image.from_pixels(mixture, f"{one.id} and {other.id}"))
                changed.append(Changed(one, rows[place], f"mixed: with {other.id}"))
        notes = (f"{unread} rows stay unmixed: their picture or their partner's cannot be read.",) * (unread > 0)
        counts = {"captioned pictures": len(pictures), "mixed": len(changed), "other rows": len(rows) - len(pictures)}
        made = replace(data, examples=tuple(rows), notes=(*data.notes, *notes))
        return DataEdit(made, tuple(changed), tables={"mixtures": [counts]})

    def _mixed(self, first: PIL.Image.Image, second: PIL.Image.Image) -> PIL.Image.Image:
        """Pixel by pixel, at the size of the first."""
        return PIL.Image.blend(second.resize(first.size, PIL.Image.Resampling.BICUBIC), first, self.weight)


def _captioned(row: Example) -> Image | None:
    """The picture of a row that is one picture with its caption and asks nothing."""
    return row.image if row.caption and not (row.prompt or row.turns or row.more_images) else None


def _both(one: Example, other: Example, picture: Image) -> Example:
    """The mixture: captions and answers of both, and what else is true of both alike."""
    shared = {name: value for name, value in one.attributes.items() if other.attributes.get(name) == value}
    return replace(
        one,
        image=picture,
        caption=f"{one.caption} {other.caption}",
        answers=tuple(dict.fromkeys((*one.answers, *other.answers))),
        label=one.label if one.label == other.label else None,
        group=one.group if one.group == other.group else "",
        attributes=shared | {"mixed_with": other.id},
    )


STEP = MixGen
