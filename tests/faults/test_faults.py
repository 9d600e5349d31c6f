"""Fuzz and kill, short: what the slow twin in `test_long.py` does at length."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import pytest
from tests.faults.answers import faulty_answers
from tests.faults.folders import damaged_folders
from tests.faults.kills import How, disturbed
from tests.faults.mends import mutated_mends
from tests.faults.models import mutated_models
from tests.faults.redone import damaged_work
from tests.faults.rows import mutated_rows
from tests.faults.table import Hangs, Tally, bounded, held_up

from vlmend.errors import UsageError


def test_mutated_mends(tmp_path: Path) -> None:
    held_up(mutated_mends(120, 0, tmp_path))


def test_mutated_model_folders(tmp_path: Path) -> None:
    held_up(mutated_models(45, 0, tmp_path))


def test_mutated_data_files(tmp_path: Path) -> None:
    held_up(mutated_rows(300, 0, tmp_path))


def test_damaged_answers_of_an_api(tmp_path: Path) -> None:
    held_up(faulty_answers(48, 0, tmp_path))


def test_damaged_run_folders(tmp_path: Path) -> None:
    held_up(damaged_folders(16, 0, tmp_path))


def test_damaged_folders_of_other_work(tmp_path: Path) -> None:
    held_up(damaged_work(5, 0, tmp_path))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("audit", "kill -9"), ("compare", "kill -9"), ("study", "full disk"), ("mend", "full disk"),
        ("attack", "Ctrl-C"), ("label", "kill -9"), ("redteam", "kill -9"),
    ],
)  # fmt: skip
def test_disturbed_work(name: str, how: How, tmp_path: Path) -> None:
    held_up(disturbed(name, how, 1, 0, tmp_path))


def test_the_harness_sees_a_file_that_is_half_written(tmp_path: Path) -> None:
    tally = disturbed("careless", "kill -9", 5, 0, tmp_path)
    assert tally.wrong > 0
    assert not tally.clean


def test_a_tally_counts_foreign_errors_and_lets_ours_pass() -> None:
    tally = Tally("planted")

    def ours() -> None:
        raise UsageError("No.", "Yes.")

    def hangs() -> None:
        raise Hangs

    assert tally.tried(lambda: 1 // 0, "by zero") is None
    assert tally.tried(ours, "told") is None
    assert tally.tried(hangs, "long") is None
    assert tally.tried(lambda: 3, "fine") == 3
    assert (tally.attempts, tally.tracebacks, tally.hangs, tally.clean) == (4, 1, 1, False)


def test_an_attempt_without_an_end_is_ended() -> None:
    with pytest.raises(Hangs), bounded(0.05):
        for _ in repeat(None):
            pass
