"""What attacks propose, how it is held to what they may do, and where finished rows are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlmend.core.budget import LEVELS, Budget, levels_of, with_levels
from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.errors import BadData

__all__ = ["Kept", "Nowhere", "Progress", "Proposal", "silent", "within"]

TAKEN = ("prompt", "turns", "attributes")
"""Fields of a proposed row that are taken over; the others stay."""

Progress = Callable[[str, int, int], None]


def silent(step: str, done: int, total: int) -> None:
    """No progress to show."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A changed row, and what finding it cost.

    Attributes:
        row: With new prompt, turns and attributes, if any. Everything else stays as it was given, images included.
        pixels: New pixels of the image, 0 to 1, or None where the picture stays.
        forward, backward: Passes of this one row.
        dropped: Steps that were not made, since loss or gradient was no finite number or the gradient 0 everywhere.
        drawn: Pictures in the place of the row's own, of any size; of attacks that draw alone. Empty for none.
    """

    row: Example
    pixels: Float[NDArray[np.float32], "height width channel"] | None = None
    forward: int = 0
    backward: int = 0
    dropped: int = 0
    drawn: tuple[Image, ...] | None = None


@runtime_checkable
class Kept(Protocol):
    """Where finished rows are kept, so that nothing is asked twice."""

    def get(self, name: str) -> Example | None:
        """The attacked row of this id, where it is finished."""
        ...

    def keep(self, rows: Sequence[Example]) -> None:
        """Write down finished rows."""
        ...


class Nowhere:
    """Keeps nothing."""

    def get(self, name: str) -> Example | None:
        """None."""
        return None

    def keep(self, rows: Sequence[Example]) -> None:
        """Forget them."""


def within(before: Example, proposed: Proposal, budget: Budget, words: int | None, draws: bool = False) -> Example:
    """The proposed row with a picture of 8 bits that is nowhere farther than epsilon from the one before.

    Rounded to the nearest step: epsilon is whole steps, so that a change within epsilon stays within it. An attack that
    `draws` may put other pictures in its place.

    Raises:
        BadData: It differs in what an attack may not change, or in more than so many words.
    """
    _check_kept(before, proposed.row)
    if words is not None and _words_apart(before.prompt, proposed.row.prompt) > words:
        raise BadData(f"{before.id}: an attack changed more than {words} words.", "`propose` keeps to `words_allowed`.")
    if proposed.drawn is not None:
        if not draws:
            raise BadData(f"{before.id}: an attack that draws nothing proposed new pictures.", "Set `draws`.")
        return replace(proposed.row, image=next(iter(proposed.drawn), None), more_images=proposed.drawn[1:])
    if proposed.pixels is None:
        return proposed.row
    clean = levels_of(before)
    if clean.shape != proposed.pixels.shape:
        raise BadData(
            f"{before.id}: an attack proposed pixels of shape {proposed.pixels.shape} in the place of {clean.shape}.",
            "`propose` keeps the size of the pictures that it is given.",
        )
    wanted = np.rint(proposed.pixels.astype(np.float64) * LEVELS) - clean
    change = np.clip(np.nan_to_num(wanted), -budget.levels, budget.levels).astype(np.int16)
    return with_levels(proposed.row, clean + change)


def _check_kept(before: Example, proposed: Example) -> None:
    """Refuse a proposed row that differs in more than words and attributes: pictures are the base class's."""
    other = [one.name for one in fields(Example) if getattr(before, one.name) != getattr(proposed, one.name)]
    changed = [name for name in other if name not in TAKEN]
    if _turned(before) != _turned(proposed):
        changed.append("images in turns")
    if changed:
        raise BadData(
            f"{before.id}: an attack proposed a row with other {', '.join(changed)}.",
            f"`propose` changes {', '.join(TAKEN)}; new pixels go into `Proposal.pixels`.",
        )


def _words_apart(before: str, after: str) -> int:
    """Places at which two texts have other words; words too many or too few count as well."""
    return sum(a != b for a, b in zip_longest(before.split(), after.split()))


def _turned(row: Example) -> list[Image]:
    return [image for turn in row.turns for image in turn.images]
