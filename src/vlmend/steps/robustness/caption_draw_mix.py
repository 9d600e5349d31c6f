"""caption_draw_mix: adds pictures that a text-to-image model draws from the captions of real ones.

Each prompt is "class, caption" of one real row. What is drawn is kept where a dual encoder takes it for its class and
where it is no near copy of a picture that is there already, and is mixed in until its share of all rows is the one
asked for.

After Lei et al. 2023, arXiv 2307.08526.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

from vlmend.core.contracts import AbstractStep, Added, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.targets import DrawTarget, DualTarget
from vlmend.data.alike import Reading, read_row
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.pictures.galleries import PHOTO, some_objects
from vlmend.pictures.renderer import Renderer
from vlmend.steps.opening import opened

__all__ = ["STEP", "CaptionDrawMix"]

RENDERER = "renderer"
"""Name of the procedural stand-in for a model."""


class Draws(Protocol):
    """What draws: a pipeline, or the renderer."""

    @property
    def name(self) -> str: ...

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]: ...


@dataclass(frozen=True)
class CaptionDrawMix(AbstractStep):
    """Adds drawn pictures to named or captioned ones, so many that they are the given share of all.

    Attributes:
        ratio: Share of drawn rows among all that come out; 0 leaves the data as they are.
        model: Folder or name of a text-to-image pipeline; `renderer` draws glyphs of things without one.
        shift: What the renderer changes in every picture; `none` draws ordinary views.
        judge: Folder or name of a dual encoder that must take a drawn picture for its class; empty keeps all.
        top: Among how many classes of the data, nearest first, its own must be.
        hamming: Bits of 64 in which the hashes of near copies differ at most; -1 keeps copies.
        tries: How often a picture that is not kept is drawn anew.
    """

    name: ClassVar[str] = "caption_draw_mix"
    source: ClassVar[str] = "Lei et al. 2023, arXiv 2307.08526"
    quick: ClassVar[Mapping[str, Any]] = {"hamming": -1}

    ratio: float = 0.5
    model: str = RENDERER
    shift: Literal["none", "ground", "rotation", "blur", "style"] = "none"
    judge: str = ""
    top: int = 1
    hamming: int = 6
    tries: int = 3

    def __post_init__(self) -> None:
        bad = [
            told
            for told, wrong in (
                (f"ratio={self.ratio:g}: 0 or more and below 1", not 0 <= self.ratio < 1),
                (f"top={self.top}: 1 or more", self.top < 1),
                (f"hamming={self.hamming}: -1 to 16 bits", not -1 <= self.hamming <= 16),
                (f"tries={self.tries}: 1 or more", self.tries < 1),
                (f"shift={self.shift}: for the renderer alone", self.shift != "none" and self.model != RENDERER),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("Pictures cannot be drawn so.", "; ".join(bad) + ".")

    def sample_data(self) -> Dataset:
        return some_objects()

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        wanted = round(len(data.examples) * self.ratio / (1 - self.ratio))
        if not wanted:
            return DataEdit(data)
        sources, maker = _sources(data), self._maker()
        order = random.Random(f"caption_draw_mix:{seed}").sample(sources, len(sources))
        judged, seen, fates = self._judge(sources), self._readings(data), Counter[str]()
        kept: dict[int, Example] = {}
        for attempt in range(self.tries):
            asked = {place: order[place % len(order)] for place in range(wanted) if place not in kept}
            seeds = [random.Random(f"{seed}:{place}:{attempt}").getrandbits(31) for place in asked]
            drawn = maker.draw([_prompt(row) for row in asked.values()], seeds)
            made = {
                place: _made(row, place, picture, number, maker.name)
                for (place, row), picture, number in zip(asked.items(), drawn, seeds, strict=True)
                if picture is not None
            }
            fates["not drawn"] += len(asked) - len(made)
            for place, right in zip(made, judged([*made.values()]), strict=True):
                reading = read_row(made[place]) if self.hamming >= 0 else None
                if not right:
                    fates["not taken for its class"] += 1
                elif reading and any(reading.pictures_near(other, self.hamming) for other in seen):
                    fates["near copy"] += 1
                else:
                    kept[place] = made[place]
                    seen += [reading] if reading else []
        return _mixed(data, [kept[place] for place in sorted(kept)], wanted, maker.name, fates)

    def _maker(self) -> Draws:
        if self.model == RENDERER:
            return Renderer(None if self.shift == "none" else self.shift)
        target = opened(self.model, "draw", self.name)
        assert isinstance(target, DrawTarget)
        return target

    def _judge(self, sources: Sequence[Example]) -> Callable[[Sequence[Example]], list[bool]]:
        """Tells of drawn rows whether the encoder has their class among the nearest."""
        if not self.judge:
            return lambda rows: [True] * len(rows)
        names = sorted({_class_of(row) for row in sources})
        encoder = opened(self.judge, "dual", self.name)
        assert isinstance(encoder, DualTarget)

        def judged(rows: Sequence[Example]) -> list[bool]:
            if not rows:
                return []
            pictures = [row.image for row in rows if row.image is not None]
            logits = encoder.logits(pictures, [PHOTO.format(name) for name in names])
            nearest = logits.topk(min(self.top, len(names))).indices.tolist()
            return [names.index(_class_of(row)) in places for row, places in zip(rows, nearest, strict=True)]

        return judged

    def _readings(self, data: Dataset) -> list[Reading]:
        """What drawn pictures are held against."""
        if self.hamming < 0:
            return []
        return [reading for row in data.examples if row.image is not None and (reading := read_row(row))]


def _sources(data: Dataset) -> list[Example]:
    """Rows that pictures are drawn from: those with a picture and a name or a caption, which ask nothing.

    Raises:
        UsageError: The data are for testing only.
        BadData: There is no such row.
    """
    if data.test_only:
        raise UsageError(
            f"{data.name} is for testing only, so nothing is drawn from it to train on.",
            "Its authors forbid that. Draw from other rows.",
        )
    found = [
        row
        for row in data.examples
        if row.image is not None
        and not row.prompt
        and _class_of(row)
        and row.attributes.get("split", "train") == "train"
    ]
    if not found:
        raise BadData(
            f"{data.name} has no row to draw from.",
            "Pass rows with an image and its class (answers) or its caption, and without a prompt; rows whose "
            "attribute `split` is not `train` are left alone.",
        )
    return found


def _class_of(row: Example) -> str:
    return row.answers[0] if row.answers else row.caption or ""


def _prompt(row: Example) -> str:
    """Class and caption, or what there is of the two."""
    return ", ".join(dict.fromkeys([_class_of(row), row.caption or _class_of(row)]))


def _made(row: Example, place: int, picture: Image, seed: int, maker: str) -> Example:
    """A drawn row with where it comes from."""
    origin = {"synthetic": maker, "drawn_from": row.id, "drawn_as": _prompt(row), "drawn_with": str(seed)}
    return replace(row, id=f"{row.id}*{place}", image=picture, attributes={**row.attributes, **origin})


def _mixed(data: Dataset, drawn: Sequence[Example], wanted: int, maker: str, fates: Mapping[str, int]) -> DataEdit:
    share = len(drawn) / (len(data.examples) + len(drawn))
    notes = () if len(drawn) == wanted else (f"{len(drawn)} of {wanted} pictures were kept: a share of {share:.2f}.",)
    made = replace(data, examples=(*data.examples, *drawn), notes=(*data.notes, *notes))
    table = {"wanted": wanted, "kept": len(drawn), "share of all": share, **fates}
    added = tuple(Added(row, f"drawn: by {maker}") for row in drawn)
    return DataEdit(made, tables={"drawn pictures": [table]}, added=added)


STEP = CaptionDrawMix
