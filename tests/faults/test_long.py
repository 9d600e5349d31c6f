"""Fuzz and kill at length: `pytest -m slow -s tests/faults/test_long.py` prints the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.folders import damaged_folders
from tests.faults.kills import killed_audits
from tests.faults.mends import mutated_mends
from tests.faults.table import table


@pytest.mark.slow
def test_nothing_is_lost_asked_twice_or_wrong(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("mends", "folders", "kills")]
    for place in places:
        place.mkdir()
    tallies = [
        mutated_mends(9_000, 1, places[0]), damaged_folders(500, 1, places[1]), killed_audits(100, 1, places[2]),
    ]  # fmt: skip
    print(f"\n{table(tallies)}")
    assert all(tally.clean for tally in tallies), "\n".join(text for tally in tallies for text in tally.seen)
