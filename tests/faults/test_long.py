"""Fuzz and kill at length: `pytest -m slow -s tests/faults/test_long.py` prints the table.

10,000 inputs and 102 disturbed invocations; each kind can be run by itself with -k.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from tests.faults.answers import faulty_answers
from tests.faults.folders import damaged_folders
from tests.faults.kills import How, disturbed
from tests.faults.mends import mutated_mends
from tests.faults.models import mutated_models
from tests.faults.redone import damaged_work
from tests.faults.rows import mutated_rows
from tests.faults.table import Tally, held_up, table

SEED = 1
INPUTS: dict[str, Callable[[Path], Tally]] = {
    "mends": partial(mutated_mends, 4_500, SEED),
    "data": partial(mutated_rows, 3_000, SEED),
    "models": partial(mutated_models, 1_000, SEED),
    "answers": partial(faulty_answers, 1_000, SEED),
    "folders": partial(damaged_folders, 400, SEED),
    "work": partial(damaged_work, 100, SEED),
}
TIMES = {"audit": 10, "label": 6, "mend": 6, "attack": 6, "compare": 3, "study": 3}
"""Disturbed invocations of each work, for each way to disturb it."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tallies() -> Generator[list[Tally]]:
    found: list[Tally] = []
    yield found
    print(f"\n{table(found)}")


@pytest.mark.parametrize("kind", INPUTS)
def test_whatever_is_read(kind: str, tmp_path: Path, tallies: list[Tally]) -> None:
    tallies.append(INPUTS[kind](tmp_path))
    held_up(tallies[-1])


@pytest.mark.parametrize("how", get_args(How))
@pytest.mark.parametrize("name", TIMES)
def test_whatever_is_done(name: str, how: How, tmp_path: Path, tallies: list[Tally]) -> None:
    tallies.append(disturbed(name, how, TIMES[name], SEED, tmp_path))
    held_up(tallies[-1])
