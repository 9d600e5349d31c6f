"""Fuzz and kill, short: what the slow twin in `test_long.py` does at length."""

from __future__ import annotations

from pathlib import Path

from tests.faults.folders import damaged_folders
from tests.faults.mends import mutated_mends
from tests.faults.table import Tally


def held_up(tally: Tally) -> None:
    assert tally.clean, "\n".join([str(tally), *tally.seen])


def test_mutated_mends(tmp_path: Path) -> None:
    held_up(mutated_mends(200, 0, tmp_path))


def test_damaged_run_folders(tmp_path: Path) -> None:
    held_up(damaged_folders(25, 0, tmp_path))
