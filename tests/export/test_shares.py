"""One party's shares say nothing of what was shared, and a sharing that says something is found; rounds are counted."""

from __future__ import annotations

import json
import random
import secrets
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare
from tests.export.rounds import CAME, SENT, Event, rounds_of

from vlmend.export.private.parties import BITS, PLAIN, POINT

needs_mpyc = pytest.mark.skipif(find_spec("mpyc") is None, reason="needs mpyc")

COUNT, BINS = 5_000, 64
NEVER = 1e-4
"""Below this a p-value is a finding. Draws are seeded; 27 looks at a sound sharing would find one in 400 seeds."""

Below = Callable[[int], int]
INPUTS: dict[str, list[float]] = {
    "nothing": [0.0] * COUNT,
    "small, both signs": [(-1) ** k * k / COUNT for k in range(COUNT)],
    "the largest": [float(2**19)] * COUNT,
}


@pytest.fixture(scope="module")
def field() -> Any:
    """The prime field of the exporter's numbers."""
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it asks numpy for old names
        patched.setattr(sys, "argv", ["parties", "--no-log"])  # mpyc reads them when it is imported
        from mpyc.runtime import mpc

        return mpc.SecFxp(BITS, POINT).field


def shares(field: Any, values: Sequence[float], below: Below, patched: pytest.MonkeyPatch) -> list[list[int]]:
    """Of each of three parties, as `score` hands numbers out: one of three reads nothing, two read all."""
    from mpyc import thresha

    patched.setattr(secrets, "randbelow", below)
    return thresha.random_split(field, [round(value * 2**POINT) % field.modulus for value in values], 1, 3)


def faults(field: Any, below: Below, patched: pytest.MonkeyPatch) -> list[str]:
    """What one party can tell: shares that are not uniform, that differ with what is shared, or hang together."""
    told: list[str] = []
    p = field.modulus
    held = {name: shares(field, values, below, patched) for name, values in INPUTS.items()}
    for party in range(3):
        counts = {name: counted(each[party], p) for name, each in held.items()}
        told += [f"{party}: {name}: not uniform" for name, each in counts.items() if chisquare(each).pvalue < NEVER]
        apart = np.stack(list(counts.values()))
        apart = apart[:, apart.any(0)]
        if apart.shape[1] == 1 or chi2_contingency(apart).pvalue < NEVER:
            told.append(f"{party}: the inputs differ")
        for name, each in held.items():
            steps = [(b - a) % p for a, b in zip(each[party], each[party][1:], strict=False)]
            if chisquare(counted(steps, p)).pvalue < NEVER:
                told.append(f"{party}: {name}: one share tells the next")
    return told


def counted(values: Sequence[int], p: int) -> np.ndarray:
    """How many values fall into each of equal parts of the field."""
    return np.bincount([value * BINS // p for value in values], minlength=BINS)


@needs_mpyc
def test_the_shares_of_one_party_are_uniform_whatever_is_shared(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(field, random.Random(0).randrange, monkeypatch) == []


@needs_mpyc
@pytest.mark.parametrize(
    ("below", "found"),
    [
        (lambda order: 0, "not uniform"),  # every share is the number itself
        (lambda order: random.Random(0).randrange(2**64), "one share tells the next"),  # one draw for all
        (lambda order: DRAW.randrange(3 * order // 5), "not uniform"),  # too few values
    ],
    ids=["no draw", "one draw", "a narrow draw"],
)
def test_a_broken_sharing_is_found(
    below: Below, found: str, field: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    told = faults(field, below, monkeypatch)
    assert {line.partition(":")[0] for line in told if found in line} == {"0", "1", "2"}


DRAW = random.Random(1)


@needs_mpyc
def test_any_two_shares_give_the_number_back(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpyc import thresha

    as_shared = [round(value * 2**POINT) % field.modulus for value in INPUTS["small, both signs"]]
    held = shares(field, INPUTS["small, both signs"], random.Random(0).randrange, monkeypatch)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        found = thresha.recombine(field, [(first + 1, held[first]), (second + 1, held[second])])
        assert [value % field.modulus for value in found] == as_shared


# --- rounds


def test_rounds_are_the_longest_chain_of_messages_that_waited() -> None:
    """0 asks both; 1 hands on what it read, and tells 2 a word that waits for nothing; 2 answers when it has both."""
    parties: list[list[Event]] = [
        [(SENT, 1, 10), (SENT, 2, 10), (CAME, 2, 30)],
        [(SENT, 2, 5), (CAME, 0, 10), (SENT, 2, 20)],
        [(CAME, 1, 5), (CAME, 0, 10), (CAME, 1, 20), (SENT, 0, 30)],
    ]
    assert rounds_of(parties) == 3
    assert rounds_of([parties[0][:2], [], [(CAME, 0, 10)]]) == 1
    assert rounds_of([[], [], []]) == 0


@needs_mpyc
def test_a_question_takes_four_rounds(tmp_path: Path) -> None:
    """The embedding is shared out; products are shared anew beside bits of a mask; masked they are opened; scores."""
    program = Path(__file__).with_name("counted_party.py")
    asked = [sys.executable, program, tmp_path, "-M3", "--no-log", PLAIN]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 20
    while len(found := [*tmp_path.glob("?.json")]) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)  # the other two end a moment later
    parties = [json.loads(file.read_text()) for file in sorted(found)]
    assert parties[0]["scores"] == [pytest.approx(row, abs=1e-6) for row in parties[0]["plain"]]
    assert rounds_of([party["events"] for party in parties]) == 4
    links = Counter((k, to) for k, party in enumerate(parties) for way, to, _ in party["events"] if way == SENT)
    assert sum(links.values()) == 18


def test_a_message_of_an_earlier_question_begins_no_chain() -> None:
    assert rounds_of([[(CAME, 1, 1), (SENT, 1, 2)], [(CAME, 0, 2)]]) == 1
