"""face_edit: adds each picture of a drawn person once more with another person in it, in the same view.

Whatever goes with the person in the data then goes with the other one as well: name, caption and prompt stay. It works
on the people of our own galleries, where the person is drawn anew and every pixel elsewhere stays. Photographs of
people are not edited: that takes a generator, whose traces can themselves tell the group, and the consent of those
shown.

After Ramaswamy, Kim, Russakovsky, CVPR 2021 (arXiv 2012.01469), and "They're All Doctors" (arXiv 2406.11331).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from vlmend.core.contracts import AbstractStep, Added, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.counterparts import Change, counterparts
from vlmend.pictures.galleries import people_gallery

__all__ = ["STEP", "FaceEdit"]


@dataclass(frozen=True)
class FaceEdit(AbstractStep):
    """Adds the counterpart of each drawn person.

    Attributes:
        change: `gender`: the glyph of the other gender. `skin`: the same person, with skin of the tone furthest from
            its own; hair, clothes and silhouette stay.
    """

    name: ClassVar[str] = "face_edit"
    source: ClassVar[str] = "arXiv 2406.11331, and Ramaswamy et al., arXiv 2012.01469"
    idempotent: ClassVar[bool] = True

    change: Change = "gender"

    def __post_init__(self) -> None:
        if self.change not in get_args(Change):
            raise BadParameter(f"change={self.change!r} is none.", f"One of {', '.join(get_args(Change))}.")

    def sample_data(self) -> Dataset:
        """Four drawn people, and a row without a picture."""
        return Dataset("few-people", (*people_gallery("train").examples[:40:10], Example("text", "a text")))

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        del seed  # nothing is random
        there = {row.id for row in data.examples}
        made = counterparts(data, self.change)
        added = [Added(found, f"edited: {self.change} of {row.id}") for row, found in made if found.id not in there]
        if not made:
            raise BadData(
                f"{data.name} has no picture of a drawn person.",
                "Pass people of vlmend's galleries as they were drawn: their ids and their pixels. Other pictures of "
                "people are not edited here.",
            )
        rows = (*data.examples, *(one.example for one in added))
        groups = Counter(row.group for row in data.examples), Counter(row.group for row in rows)
        shares = [
            {"group": name or "none", "before": groups[0][name], "after": groups[1][name]} for name in sorted(groups[1])
        ]
        return DataEdit(replace(data, examples=rows), tables={"groups": shares}, added=tuple(added))


STEP = FaceEdit
