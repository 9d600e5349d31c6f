"""Maps of pictures, and their page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vlmend.audit.attributed import some_people
from vlmend.audit.explaining.maps import MapMethod
from vlmend.audit.explaining.run import Explained, explain
from vlmend.core.examples import Dataset
from vlmend.core.targets import Target
from vlmend.pictures.regions import people_in_place
from vlmend.report.explained import write_explained

__all__ = ["explain_pictures"]

PEOPLE = 12
"""Built-in pictures that are explained unless a limit says otherwise."""


def explain_pictures(
    target: Target, data: Dataset | None, out: Path, *, texts: Sequence[str], method: MapMethod, limit: int | None,
    seed: int, checks: bool, progress: Callable[[str, int, int], None],
) -> Explained:  # fmt: skip
    """Make maps of the user's pictures or of built-in people, and the page `explain.html` beside them.

    Parameters and errors are those of `audit.explaining.run.explain`.
    """
    rows = some_people(people_in_place("held_out"), limit or PEOPLE) if data is None else data
    found = explain(target, rows, out, texts=texts, method=method, limit=limit, seed=seed, checks=checks,
                    progress=progress)  # fmt: skip
    write_explained(out)
    return found
