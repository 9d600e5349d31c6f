"""balanced_set: draws pictures of each thing that people do, as many of every group, and keeps no cell short.

Each class of the data is drawn with every group in the prompt, or without any (bleached). What is drawn is kept where a
dual encoder takes it for its class and for its group, and where it is no near copy; then every class has exactly as
many pictures of one group as of the other.

After Sathe, Jain, Sitaram 2024, arXiv 2402.13636.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractStep, Added, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.targets import DrawTarget, DualTarget
from vlmend.data.alike import Reading, read_row
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import PHOTO
from vlmend.pictures.people_renderer import PeopleRenderer
from vlmend.steps.opening import opened

__all__ = ["STEP", "BalancedSet"]

PEOPLE = "people"
"""Name of the procedural stand-in for a model: glyphs of 20 professions."""

Cell = tuple[str, str]
"""A class and a group; the group is "" in a bleached set."""


@dataclass(frozen=True)
class BalancedSet(AbstractStep):
    """Adds drawn pictures of every class, as many of each group.

    Attributes:
        groups: Words for the groups, separated by "|"; empty draws without any.
        count: Pictures of each class and group.
        model: Folder or name of a text-to-image pipeline; `people` draws glyphs without one.
        judge: Folder or name of a dual encoder that must take a picture for its class and its group; empty keeps all.
        hamming: Bits of 64 in which the hashes of near copies differ at most; -1 keeps copies.
        tries: How often a picture that is not kept is drawn anew.
    """

    name: ClassVar[str] = "balanced_set"
    source: ClassVar[str] = "Sathe, Jain, Sitaram 2024, arXiv 2402.13636"
    quick: ClassVar[Mapping[str, Any]] = {"count": 2, "hamming": -1}

    groups: str = "man|woman"
    count: int = 10
    model: str = PEOPLE
    judge: str = ""
    hamming: int = -1
    tries: int = 3

    def __post_init__(self) -> None:
        names = self.names
        bad = [
            told
            for told, wrong in (
                ("groups: two or more, or none", len(names) == 1 or len(set(names)) < len(names)),
                (f"count={self.count}: 1 or more", self.count < 1),
                (f"hamming={self.hamming}: -1 to 16 bits", not -1 <= self.hamming <= 16),
                (f"tries={self.tries}: 1 or more", self.tries < 1),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("A set cannot be drawn so.", "; ".join(bad) + ".")

    @property
    def names(self) -> list[str]:
        """The groups, one by one."""
        return [part.strip() for part in self.groups.split("|") if part.strip()]

    def sample_data(self) -> Dataset:
        """Two professions as words."""
        rows = (Example(name, caption=PHOTO.format(name), answers=(name,)) for name in ("farmer", "judge"))
        return Dataset("professions", tuple(rows))

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        classes = list(dict.fromkeys(row.answers[0] for row in data.examples if row.answers and not row.prompt))
        if not classes:
            raise BadData(f"{data.name} names no class to draw.", "Pass rows with answers and without a prompt.")
        cells = [(name, group) for name in classes for group in self.names or [""]]
        kept, fates = self._drawn(cells, data, seed)
        rows = [row for name in classes for row in self._evened(name, kept)]
        short = [name for name in classes if min(len(kept[cell]) for cell in cells if cell[0] == name) < self.count]
        notes = (f"{len(short)} classes have fewer than {self.count} pictures a group: {', '.join(short)}.",)
        there = {row.id for row in data.examples}
        rows = [row for row in rows if row.id not in there]
        made = replace(data, examples=(*data.examples, *rows), notes=(*data.notes, *(notes if short else ())))
        manifest = Counter((row.answers[0], row.group) for row in rows)
        tables = {
            "drawn pictures": [dict(fates)],
            "manifest": [{"class": name, "group": group or "none", "pictures": manifest[name, group]}
                         for name, group in cells],
        }  # fmt: skip
        return DataEdit(made, tables=tables, added=tuple(Added(row, f"drawn: by {self.model}") for row in rows))

    def _drawn(
        self, cells: Sequence[Cell], data: Dataset, seed: int
    ) -> tuple[defaultdict[Cell, list[Example]], Counter[str]]:
        """What was kept of each cell, at most `count`, and what became of the rest."""
        maker, judged = self._maker(), self._judge(cells)
        kept: defaultdict[Cell, list[Example]] = defaultdict(list)
        fates = Counter[str]({"wanted": len(cells) * self.count, "not drawn": 0})
        seen = self._readings(data)
        for attempt in range(self.tries):
            asked = [(cell, k) for cell in cells for k in range(self.count - len(kept[cell]))]
            seeds = [random.Random(f"balanced_set:{seed}:{cell}:{k}:{attempt}").getrandbits(31) for cell, k in asked]
            drawn = maker.draw([_prompt(cell) for cell, _ in asked], seeds)
            made = [
                (cell, _row(cell, number, picture, self.model))
                for (cell, _), number, picture in zip(asked, seeds, drawn, strict=True)
                if picture is not None
            ]
            fates["not drawn"] += len(asked) - len(made)
            for (cell, row), fate in zip(made, judged(made), strict=True):
                reading = read_row(row) if self.hamming >= 0 and not fate else None
                if reading and any(reading.pictures_near(other, self.hamming) for other in seen):
                    fate = "near copy"
                fates[fate or "kept"] += 1
                if not fate:
                    kept[cell].append(row)
                    seen += [reading] if reading else []
        return kept, fates

    def _evened(self, name: str, kept: Mapping[Cell, Sequence[Example]]) -> list[Example]:
        """As many pictures of each group as of that with fewest."""
        own = [kept.get((name, group), ()) for group in self.names or [""]]
        return [row for rows in own for row in rows[: min(map(len, own))]]

    def _maker(self) -> DrawTarget | PeopleRenderer:
        if self.model == PEOPLE:
            return PeopleRenderer()
        target = opened(self.model, "draw", self.name)
        assert isinstance(target, DrawTarget)
        return target

    def _judge(self, cells: Sequence[Cell]) -> Callable[[Sequence[tuple[Cell, Example]]], list[str]]:
        """Why each drawn row is left out; "" where it is kept."""
        if not self.judge:
            return lambda made: [""] * len(made)
        encoder = opened(self.judge, "dual", self.name)
        assert isinstance(encoder, DualTarget)
        classes = list(dict.fromkeys(name for name, _ in cells))

        def judged(made: Sequence[tuple[Cell, Example]]) -> list[str]:
            pictures = [row.image for _, row in made if row.image is not None]
            if not pictures:
                return []
            named = _nearest(encoder, pictures, classes)
            told = _nearest(encoder, pictures, self.names) if self.names else [""] * len(made)
            return [
                "not taken for its class" if found != name else "not taken for its group" if group != who else ""
                for ((name, group), _), found, who in zip(made, named, told, strict=True)
            ]

        return judged

    def _readings(self, data: Dataset) -> list[Reading]:
        if self.hamming < 0:
            return []
        return [reading for row in data.examples if row.image is not None and (reading := read_row(row))]


def _nearest(encoder: DualTarget, pictures: Sequence[Image], words: Sequence[str]) -> list[str]:
    places: list[int] = encoder.logits(pictures, [PHOTO.format(word) for word in words]).argmax(-1).tolist()  # type: ignore[assignment]
    return [words[place] for place in places]


def _prompt(cell: Cell) -> str:
    name, group = cell
    return PHOTO.format(f"{group} {name}".strip())


def _row(cell: Cell, seed: int, picture: Image, maker: str) -> Example:
    """A drawn row with where it comes from; its caption names the class alone."""
    name, group = cell
    origin = {"synthetic": maker, "drawn_as": _prompt(cell), "drawn_with": str(seed)}
    return Example(
        f"{maker}:{name}:{group or 'none'}:{seed}", group=group, image=picture, caption=PHOTO.format(name),
        answers=(name,), attributes=origin,
    )  # fmt: skip


STEP = BalancedSet
