"""What a red team found: failure modes, tables, the data set that an audit replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmend.core.attack_notes import BESIDE
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import make_folder, write_file, write_together
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.core.verdicts import UNREAD, UNSAFE
from vlmend.data.sources import DESCRIPTION, IMAGES, ROWS
from vlmend.data.writing import write_data
from vlmend.redteam.search import SearchKind

__all__ = ["FINDS", "Asked", "Found", "found_in", "write_finds"]

FINDS = "finds.json"


@dataclass(frozen=True)
class Asked:
    """One try and what came of it.

    Attributes:
        row: What was asked.
        label: The first judge's verdict.
        others: Those of further judges, by judge.
    """

    row: Example
    label: str
    others: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        return self.label not in UNREAD

    @property
    def find(self) -> bool:
        return self.label in UNSAFE


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        search: Which search.
        budget: Tries that were allowed.
        asked: Tries that were made; fewer where nothing was left to try.
        unscored: Tries that no verdict could be given on; they are part of the budget and of no share.
        finds: Tries that the first judge calls unsafe.
        rate: Their share of the scored tries, with Wilson's interval. It is that of this search, not of the model.
        modes: How many finds each failure mode has, in the order in which they were found.
        goals: Goals that leaked at least once.
        curve: Distinct modes after each try.
        by: Tries and finds by template and by carrier.
        confirmed: Finds that each further judge calls unsafe, too.
        unasked: Rewrites of a writer model that were not asked, by why: off_goal, repeat.
        data: The finds as rows.
    """

    search: SearchKind
    budget: int
    asked: int
    unscored: int
    finds: int
    rate: Interval
    modes: dict[str, int]
    goals: int
    curve: tuple[int, ...]
    by: dict[str, dict[str, tuple[int, int]]]
    confirmed: dict[str, int]
    unasked: dict[str, int]
    data: Dataset

    def values(self) -> dict[str, Any]:
        """The same as JSON values, without a word of what was asked: modes are counted."""
        told = {k: v for k, v in asdict(self).items() if k not in ("data", "modes", "rate")}
        return told | {"rate": self.rate._asdict(), "modes": len(self.modes)}


def found_in(
    search: SearchKind, budget: int, every: Sequence[Asked], name: str, judges: Sequence[str] = (),
    unasked: Mapping[str, int] = {},
) -> Found:  # fmt: skip
    """Sum up every try in order.

    Args:
        search: Which search made them.
        budget: What was allowed.
        every: The tries.
        name: Of the data set of finds.
        judges: The further judges.
        unasked: Rewrites that were not asked, by why.
    """
    modes: Counter[str] = Counter()
    curve: list[int] = []
    for one in every:
        if one.find:
            modes[one.row.attributes["mode"]] += 1
        curve.append(len(modes))
    finds = [one for one in every if one.find]
    scored = [one for one in every if one.scored]
    confirmed = {judge: sum(one.others[k] in UNSAFE for one in finds) for k, judge in enumerate(judges)}
    rows = tuple(one.row for one in finds)
    notes = (f"Finds of a red team: {len(finds)} of {len(every)} tries, chosen because they worked.",)
    return Found(
        search, budget, len(every), len(every) - len(scored), len(finds), wilson(len(finds), len(scored)), dict(modes),
        len({one.row.attributes["of"] for one in finds}), tuple(curve),
        {"template": _table(scored, "template"), "carrier": _table(scored, BESIDE)}, confirmed, dict(unasked),
        Dataset(name, rows, "", notes),
    )  # fmt: skip


def write_finds(found: Found, out: Path) -> None:
    """Write the finds into a run folder, which then reads as a data set; without a find it holds none.

    Pictures first, then rows and description together: a kill in between leaves the set that was there.

    Raises:
        RunProblem: The folder cannot be written.
    """
    if not found.data.examples:
        return
    made = out / "made"
    for file in sorted(made.rglob("*"), reverse=True) if made.exists() else []:
        file.rmdir() if file.is_dir() else file.unlink()
    write_data(found.data, made)
    make_folder(out / IMAGES)
    for picture in (made / IMAGES).glob("*") if (made / IMAGES).exists() else []:
        write_file(out / IMAGES / picture.name, picture.read_bytes(), sync=False)
        picture.unlink()
    write_together({out / name: (made / name).read_bytes() for name in (ROWS, DESCRIPTION)})
    for name in (ROWS, DESCRIPTION):
        (made / name).unlink()
    for folder in (made / IMAGES, made):
        if folder.exists():
            folder.rmdir()


def _table(every: Sequence[Asked], what: str) -> dict[str, tuple[int, int]]:
    """Scored tries and finds by an attribute, most finds first."""
    asked = Counter(one.row.attributes[what] for one in every)
    leaked = Counter(one.row.attributes[what] for one in every if one.find)
    return {name: (asked[name], leaked[name]) for name in sorted(asked, key=lambda k: (-leaked[k], k))}
