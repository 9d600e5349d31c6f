"""What is shown while a verb works, and how it stops."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmend import face
from vlmend.cli import main
from vlmend.cli.progress import progress_bars
from vlmend.core.measures import Scorecard
from vlmend.errors import UsageError
from vlmend.models.vlm import VLM
from vlmend.report.compare import read_run

STOPPING = "stopping after this batch; Ctrl-C again to stop now"


def test_what_is_loaded_is_said_at_once_and_each_step_when_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars("phantom") as report:
        assert capsys.readouterr().err == "loading phantom\n"
        report("load", 1, 1)
        report("ask", 0, 506)
        report("ask", 506, 506)
        report("refusal-1", 12, 12)
    assert capsys.readouterr().err == "asking, 506 in all\nrefusal-1, 12 in all\n"


def test_the_time_left_is_told_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """184 of 506 were kept; 32 took 40 s, so the 290 that are left take 290 x 40 / 32 = 362 s."""
    clock = iter((0.0, 10.0, 40.0))
    monkeypatch.setattr("vlmend.cli.progress.time.monotonic", lambda: next(clock))
    with progress_bars() as report:
        report("ask", 184, 506)
        report("ask", 200, 506)
        report("ask", 216, 506)
    assert capsys.readouterr().err.splitlines()[1:] == ["asking: 216 of 506, about 6 min left"]


def test_the_first_ctrl_c_lets_the_batch_end(capsys: pytest.CaptureFixture[str]) -> None:
    reached: list[int] = []
    with pytest.raises(KeyboardInterrupt), progress_bars() as report:  # noqa: PT012
        report("ask", 0, 4)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
        report("ask", 2, 4)
        reached.append(4)
    assert reached == [2]
    assert STOPPING in capsys.readouterr().err


def test_the_second_ctrl_c_stops_at_once() -> None:
    reached: list[int] = []
    with pytest.raises(KeyboardInterrupt), progress_bars() as report:  # noqa: PT012
        report("ask", 0, 4)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == []


@pytest.mark.parametrize("state", [(0, 1), (4, 4)])
def test_where_there_is_no_batch_to_keep_ctrl_c_stops_at_once(state: tuple[int, int]) -> None:
    with pytest.raises(KeyboardInterrupt), progress_bars() as report:  # noqa: PT012
        report("load", *state)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")


def test_afterwards_ctrl_c_is_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with progress_bars():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_audit_exits_130_and_leaves_no_scorecard_and_the_next_one_finishes(
    tiny: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped after a first window of 32 requests, of 8 in each of five conditions and those of over_refusal."""
    honest = face.audit

    def stopped(*given: Any, progress: face.Progress, **named: Any) -> Scorecard:
        def tick(step: str, done: int, total: int) -> None:
            progress(step, done, total)
            if step == "ask" and 0 < done < total:
                signal.raise_signal(signal.SIGINT)

        return honest(tiny, *given[1:], progress=tick, **named)

    monkeypatch.setattr(face, "audit", stopped)
    monkeypatch.setattr("vlmend.audit.desk.WINDOW", 1)
    run = tmp_path / "run"
    arguments = ["audit", "toy", "--suite", "safety", "--limit", "8", "--max-new-tokens", "2", "--out", str(run)]
    monkeypatch.setattr(sys, "argv", ["vlmend", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert left.value.code == 130
    assert STOPPING in told.err
    assert "stopped. Run the same command again" in told.err
    assert told.out == ""
    assert not (run / "scorecard.json").exists()
    with pytest.raises(UsageError, match="holds no scorecard"):
        read_run(run)
    card = honest(tiny, "safety", run, limit=8, max_new_tokens=2)
    assert card.complete
    assert Scorecard.finished(run).complete


def test_a_scorecard_that_is_not_complete_is_refused_by_name(tmp_path: Path) -> None:
    Scorecard("m", (), 0, {}, (), {}).save(tmp_path / "scorecard.json")
    for take in (read_run, Scorecard.finished):
        with pytest.raises(UsageError, match="did not come to its end"):
            take(tmp_path)
