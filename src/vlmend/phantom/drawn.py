"""Data that phantoms draw themselves, as sets by name."""

from __future__ import annotations

from collections.abc import Callable

from vlmend.core.examples import Dataset
from vlmend.data.adapter import Adapter, Kind, Pictures

__all__ = ["drawn_set"]


def drawn_set(
    name: str, kind: Kind, title: str, made: Callable[[], Dataset], *, phantom: str, caution: str,
    licence: str = "Apache-2.0", pictures: Pictures = "needed",
) -> Adapter:  # fmt: skip
    """A set that is drawn and not read.

    Args:
        name: What `--data` calls it.
        kind: As of every set.
        title: A line for lists.
        made: Draws it.
        phantom: Whose page tells of it.
        caution: What its reader must know.
        licence: Of what is drawn.
        pictures: As of every set.
    """
    page = f"docs/phantoms/{phantom}.md"
    return Adapter(
        name=name, kind=kind, title=title, paper=page, repository=page, licence=licence, files=(),
        convert=lambda row, place: "it is drawn, not read", how="Nothing is needed: it is drawn.", pictures=pictures,
        caution=caution, unlabelled=None, made=made,
    )  # fmt: skip
