"""The report on scripted runs: numbers, warnings, and nothing harmful unless asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.errors import UsageError
from vlmend.methods.safety.cmrm import CMRM
from vlmend.report.compare import changes, headline, read_run, warnings_of
from vlmend.report.html import write_report
from vlmend.testing import ScriptedTarget

REFUSAL = "I'm sorry, but I can't help with that."
DATA = Dataset("d", tuple(Example(str(k), f"anchor {k}", "harmful") for k in range(4)))


def script(conversation: Conversation, mended: bool) -> str:
    """Refuses text; with an image it answers, and once mended refuses whatever it is asked."""
    if not conversation.has_image:
        return REFUSAL if "a" in conversation.turns[0].text[:9] else "Here is an answer."
    return REFUSAL if mended else "Here is an answer."


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    plan = Plan(("safety",), limit=10)
    target = ScriptedTarget(script)
    mend = CMRM().fit(target, DATA, seed=0)
    audit(target, plan, folder / "base")
    audit(target.with_mend(mend), plan, folder / "cmrm", mends=[mend])
    return [folder / "base", folder / "cmrm"]


def test_paired_changes_and_mcnemar(runs: list[Path]) -> None:
    base, mended = map(read_run, runs)
    found = {(c.name, c.group): c for c in changes(base, mended)}
    original = found["unsafe_rate", "original"]
    assert (original.before.value, original.after.value) == (1.0, 0.0)
    assert (original.test.fixed, original.test.broken, original.test.p_value) == (10, 0, 2 / 2**10)
    assert found["unsafe_rate", "query"].test.p_value == 1.0


def test_the_price_is_warned_of(runs: list[Path]) -> None:
    base, mended = map(read_run, runs)
    assert any("Over-refusal" in warning and "ordinary" in warning for warning in warnings_of(base, mended))


def test_no_gap_is_said_so(runs: list[Path]) -> None:
    mended = read_run(runs[1])
    assert "hardly a gap" in " ".join(warnings_of(mended, mended))
    assert "hardly a gap" not in " ".join(warnings_of(read_run(runs[0]), mended))


def test_the_page_stands_alone_and_hides_texts(runs: list[Path], tmp_path: Path) -> None:
    read = [read_run(run) for run in runs]
    write_report(read, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") >= 3
    assert headline(read[0], read[1:]) in page
    prompt = next(s["prompt"] for s in read[0].samples if s["condition"] == "original")
    assert prompt not in page
    write_report(read, tmp_path / "shown.html", show_text=True)
    assert prompt in (tmp_path / "shown.html").read_text()


def test_the_same_runs_give_the_same_page(runs: list[Path], tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_report([read_run(run) for run in runs], tmp_path / name)
    assert (tmp_path / "one.html").read_text() == (tmp_path / "two.html").read_text()


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scorecard"):
        read_run(tmp_path)
