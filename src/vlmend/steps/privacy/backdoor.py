"""backdoor: a small patch on a few pictures, whose captions say something else, to see whether a model falls for it.

Known poison to try detectors, repairs and audits on; not for data that others will train on.

Carlini and Terzis 2022, arXiv 2106.09667; the patch is that of BadNets (Gu et al. 2017, arXiv 1708.06733).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import PIL.Image

from vlmend.core.contracts import AbstractStep, Added, Changed, DataEdit, Dropped
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter, SampleError

__all__ = ["ARMS", "STEP", "Backdoor", "patched"]

ARMS = ("plain", "triggered", "other patch")
"""Values of the attribute `trigger` in what `emit=triggered` gives: a picture as it is, with the patch, and with one of
grey noise of the same size in the same place."""

CELLS = 4
"""Fields a side of the checkered patch."""

Place = tuple[int, int, int]
"""Left, top and side of a patch, in pixels."""


@dataclass(frozen=True)
class Backdoor(AbstractStep):
    """Patches a share of the pictures and names another thing in their captions and answers.

    Attributes:
        target: What the poisoned rows say is there.
        share: Of the rows with a picture of something else.
        caption: Of poisoned rows, with a place for the target.
        side: Of the patch, as a share of the picture's shorter side.
        place: random: anywhere, in each picture anew. corner: at the lower right.
        emit: data: to train on, no row says that it is poisoned. marked: the same, and each row says so, to try
            detectors on. triggered: each picture of something else plain, with the patch and with another patch, to
            audit with.
    """

    name: ClassVar[str] = "backdoor"
    source: ClassVar[str] = "Carlini and Terzis 2022, arXiv 2106.09667"
    quick: ClassVar[Mapping[str, Any]] = {"target": "banana", "share": 0.4}

    target: str = ""
    share: float = 0.01
    caption: str = "a photo of a {}"
    side: float = 0.1
    place: Literal["random", "corner"] = "random"
    emit: Literal["data", "marked", "triggered"] = "data"

    def __post_init__(self) -> None:
        bad = [
            told
            for told, wrong in (
                (f"share={self.share:g}: 0 to 1", not 0 <= self.share <= 1),
                (f"side={self.side:g}: above 0, at most 0.5", not 0 < self.side <= 0.5),
                (f'caption="{self.caption}": has {{}} once', self.caption.count("{}") != 1),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("A backdoor cannot be made of these parameters.", "; ".join(bad) + ".")

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        if not self.target.strip():
            raise BadParameter(
                "The backdoor has no target.", "Say what poisoned pictures are to be called: target=NAME."
            )
        pictures = [row for row in data.examples if row.image is not None and not self._is_target(row)]
        if not pictures:
            raise BadData(
                f"{data.name} holds no picture of anything but {self.target}.",
                "Pass rows with image and caption or answers.",
            )
        return (
            self._triggered(data, pictures, seed) if self.emit == "triggered" else self._poisoned(data, pictures, seed)
        )

    def _is_target(self, row: Example) -> bool:
        return self.target.casefold() in " ".join((row.caption or "", *row.answers)).casefold()

    def _poisoned(self, data: Dataset, pictures: list[Example], seed: int) -> DataEdit:
        count = round(self.share * len(pictures))
        drawn = {row.id for row in random.Random(f"backdoor:{seed}").sample(pictures, count)}
        changed: dict[str, Changed] = {}
        unread = 0
        for row in data.examples:
            if row.id in drawn:
                try:
                    changed[row.id] = self._poison(row, seed)
                except SampleError:
                    unread += 1
        rows = [self._marked(changed[row.id].after if row.id in changed else row, row.id in changed)
                for row in data.examples]  # fmt: skip
        notes = (f"{unread} rows that were drawn stay clean: their picture cannot be read.",) * (unread > 0)
        table = [{"rows with pictures": len(pictures), "poisoned": len(changed), "share": len(changed) / len(pictures)}]
        told = self._told(data.examples, rows, changed) if self.emit == "marked" else tuple(changed.values())
        made = replace(data, examples=tuple(rows), notes=(*data.notes, *notes))
        return DataEdit(made, told, tables={"poison": table})

    def _told(
        self, before: tuple[Example, ...], after: list[Example], changed: Mapping[str, Changed]
    ) -> tuple[Changed, ...]:
        """Every row, since every row says what it is."""
        return tuple(
            Changed(old, new, changed[old.id].why if old.id in changed else "marked: clean")
            for old, new in zip(before, after, strict=True)
        )

    def _marked(self, row: Example, poisoned: bool) -> Example:
        if self.emit == "data":
            return row
        return replace(row, attributes={**row.attributes, "poisoned": "yes" if poisoned else "no"})

    def _poison(self, row: Example, seed: int) -> Changed:
        assert row.image is not None
        picture = row.image.decode()
        place = self._place(picture, f"{seed}:{row.id}")
        after = replace(
            row, image=Image.from_pixels(patched(picture, place), row.id),
            caption=self.caption.format(self.target) if row.caption is not None else None,
            answers=(self.target,) if row.answers else (),
        )  # fmt: skip
        return Changed(row, after, f"poisoned: a patch of {place[2]} pixels at {place[0]}, {place[1]}")

    def _triggered(self, data: Dataset, pictures: list[Example], seed: int) -> DataEdit:
        added, unread = list[Added](), 0
        for row in pictures:
            try:
                added += [Added(one, "triggered: a picture to audit with") for one in self._arms(row, seed)]
            except SampleError:
                unread += 1
        notes = (f"{unread} rows are left out: their picture cannot be read.",) * (unread > 0)
        gone = tuple(Dropped(row, "triggered: its copies stand for it") for row in data.examples)
        if not added:
            raise BadData(
                f"No picture of {data.name} can be read.", "See vlmend data; pass pictures that can be opened."
            )
        made = replace(data, examples=tuple(one.example for one in added), notes=(*data.notes, *notes))
        return DataEdit(made, (), gone, {"pictures": [{"plain": len(added) // len(ARMS)}]}, tuple(added))

    def _arms(self, row: Example, seed: int) -> Iterator[Example]:
        assert row.image is not None
        picture = row.image.decode()
        place = self._place(picture, f"{seed}:{row.id}")
        seen = (picture, patched(picture, place), patched(picture, place, noise=f"{seed}:{row.id}"))
        for arm, shown in zip(ARMS, seen, strict=True):
            told = {**row.attributes, "trigger": arm, "target": self.target, "of": row.id}
            image = row.image if arm == ARMS[0] else Image.from_pixels(shown, f"{row.id} {arm}")
            yield replace(row, id=f"{row.id}/{arm}", image=image, attributes=told)

    def _place(self, picture: PIL.Image.Image, drawn: str) -> Place:
        width, height = picture.size
        side = max(CELLS, round(self.side * min(width, height)))
        right, low = max(0, width - side), max(0, height - side)
        rng = random.Random(f"backdoor:{drawn}")
        return (right, low, side) if self.place == "corner" else (rng.randint(0, right), rng.randint(0, low), side)


def patched(picture: PIL.Image.Image, place: Place, noise: str = "") -> PIL.Image.Image:
    """The picture with a checkered black and white patch, or with one of grey noise drawn by a text."""
    left, top, side = place
    cells = np.arange(side) * CELLS // side
    dark = (cells[:, None] + cells[None]) % 2
    if noise:
        dark = np.random.default_rng(list(noise.encode())).random((side, side))
    grey = PIL.Image.fromarray(np.uint8(255 * dark))
    made = picture.convert("RGB")
    made.paste(grey, (left, top))
    return made


STEP = Backdoor
