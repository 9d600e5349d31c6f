"""Fuzz and kill, short: what the slow twin in `test_long.py` does at length."""

from __future__ import annotations

from pathlib import Path

from tests.faults.answers import faulty_answers
from tests.faults.folders import damaged_folders
from tests.faults.kills import killed_audits
from tests.faults.mends import mutated_mends
from tests.faults.models import mutated_models
from tests.faults.rows import mutated_rows
from tests.faults.table import Tally

from vlmend.errors import UsageError


def held_up(tally: Tally) -> None:
    assert tally.clean, "\n".join([str(tally), *tally.seen])


def test_mutated_mends(tmp_path: Path) -> None:
    held_up(mutated_mends(200, 0, tmp_path))


def test_mutated_model_folders(tmp_path: Path) -> None:
    held_up(mutated_models(60, 0, tmp_path))


def test_mutated_data_files(tmp_path: Path) -> None:
    held_up(mutated_rows(300, 0, tmp_path))


def test_damaged_answers_of_an_api(tmp_path: Path) -> None:
    held_up(faulty_answers(48, 0, tmp_path))


def test_damaged_run_folders(tmp_path: Path) -> None:
    held_up(damaged_folders(25, 0, tmp_path))


def test_killed_audits(tmp_path: Path) -> None:
    held_up(killed_audits(4, 0, tmp_path))


def test_a_tally_counts_foreign_errors_and_lets_ours_pass() -> None:
    tally = Tally("planted")

    def ours() -> None:
        raise UsageError("No.", "Yes.")

    assert tally.tried(lambda: 1 // 0, "by zero") is None
    assert tally.tried(ours, "told") is None
    assert tally.tried(lambda: 3, "fine") == 3
    assert (tally.attempts, tally.tracebacks, tally.clean) == (3, 1, False)
