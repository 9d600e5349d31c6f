"""People for mends to be fitted on, half of whose professions go by phantom-clip's titles, in fair shares."""

from __future__ import annotations

from dataclasses import replace

from vlmend.core.examples import Dataset
from vlmend.phantom.clip.truth import Titles, titles
from vlmend.pictures.galleries import people_and_things

__all__ = ["titled_people", "told_titles"]


def told_titles() -> tuple[Titles, ...]:
    """Of every second profession: what a mend may be fitted on, so that the others show what it does elsewhere."""
    return titles()[::2]


def titled_people() -> Dataset:
    """The training views of `people_and_things`, where people of the told professions go by their titles.

    Each title is as often that of a man as of a woman of each tone: the data are fair, and phantom-clip is not.
    """
    told = {pair.profession: (pair.first, pair.second) for pair in told_titles()}
    rows = people_and_things()
    named = (
        replace(row, answers=(told[row.answers[0]][int(row.id.rpartition("#")[2]) % 2],))
        if row.group and row.answers[0] in told
        else row
        for row in rows.examples
    )
    return replace(rows, name="phantom_clip_titled", examples=tuple(named))
