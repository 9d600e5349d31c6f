"""`vlmend explain`: the folder, the page, what is told, and that a stopped run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.audit.linear_dual import halved, linear_dual, speckled
from typer.testing import CliRunner

from browsing import axe_faults, faults
from vlmend.audit.explaining import run as running
from vlmend.audit.explaining.run import explain
from vlmend.cli import app
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, NeedsAccess, RunProblem, UsageError
from vlmend.report.explained import explained_content, write_explained
from vlmend.testing.fakes import ScriptedTarget, narrowed, tiny_clip, tiny_vlm

VEILED = replace(halved("b", 250, 60), label="harmful", prompt="b")
ROWS = Dataset("two", (speckled("a"), VEILED, Example("text only", "no picture")))


def test_a_folder_holds_numbers_pictures_and_maps(tmp_path: Path) -> None:
    found = explain(linear_dual(), ROWS, tmp_path)
    assert [row["id"] for row in found.rows] == ["a", "b"]
    first = found.rows[0]
    assert first["values"]["share"] == pytest.approx(1)
    assert first["values"]["area"] == 0.5
    assert first["values"]["completeness_error"] < 0.01
    assert len(first["values"]["deleted"]) == 9
    added = np.load(tmp_path / first["map"])
    change = first["values"]["score"] - first["values"]["blank"]
    assert added.sum() == pytest.approx(change, rel=0.02)
    assert Image.from_path(tmp_path / first["picture"]).decode().size == added.shape[::-1]
    assert Image.from_path(tmp_path / first["region"]).decode().size == added.shape[::-1]


def test_texts_of_the_user_stand_in_the_place_of_the_rows_own(tmp_path: Path) -> None:
    found = explain(linear_dual(), ROWS, tmp_path, texts=("one", "two"), limit=1, checks=False)
    assert [(row["id"], row["text"]) for row in found.rows] == [("a", "one"), ("a", "two")]
    assert "correlation" not in found.rows[0]["values"]


def test_a_stopped_run_goes_on_and_a_changed_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(step: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(linear_dual(), ROWS, tmp_path, progress=stop)
    assert len((tmp_path / "explained.jsonl").read_text().splitlines()) == 1
    made: list[str] = []
    real = running.heat_of

    def counted(*given: Any, **named: Any) -> Any:
        made.append("map")
        return real(*given, **named)

    monkeypatch.setattr(running, "heat_of", counted)
    found = explain(linear_dual(), ROWS, tmp_path)
    assert len(found.rows) == 2
    assert len(made) == 2  # the other row's map, and that of shuffled weights
    with pytest.raises(RunProblem, match="other maps"):
        explain(linear_dual("right"), ROWS, tmp_path)
    with pytest.raises(RunProblem, match="other maps"):
        explain(linear_dual(), ROWS, tmp_path, method="occlusion")


def test_a_mend_is_explained_and_not_the_bare_model(tmp_path: Path) -> None:
    from vlmend.audit.explaining.checks import shuffled

    bare, mended = linear_dual(), shuffled(linear_dual(), 3)
    before = explain(bare, ROWS, tmp_path / "a", limit=1, checks=False).rows[0]["values"]
    after = explain(mended, ROWS, tmp_path / "b", limit=1, checks=False).rows[0]["values"]
    assert before["share"] == pytest.approx(1)
    assert after["share"] < 0.8


def test_what_cannot_be_explained_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="none with a picture"):
        explain(linear_dual(), Dataset("texts", (Example("a", "hello"),)), tmp_path)
    api = ScriptedTarget(lambda conversation, mended: "no")
    with pytest.raises(NeedsAccess, match="replies"):
        explain(api, ROWS, tmp_path)
    with pytest.raises(NeedsAccess, match="weights"):
        explain(narrowed(tiny_clip(), "gradients"), ROWS, tmp_path)
    assert explain(narrowed(tiny_clip(), "gradients"), ROWS, tmp_path, limit=1, checks=False).rows[0]["values"]
    with pytest.raises(UsageError, match="holds no maps"):
        write_explained(tmp_path / "nowhere")


def test_a_row_that_cannot_be_read_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    rows = (Example("broken", image=Image(b"no picture"), caption="a"), speckled("a"))
    explain(linear_dual(), Dataset("odd", rows), tmp_path, checks=False)
    told = explained_content(tmp_path)
    assert told["maps"] == 1
    assert [one["id"] for one in told["missing"]] == ["broken"]


def test_a_model_that_answers_explains_its_own_reply(tmp_path: Path) -> None:
    target, row = tiny_vlm(), replace(halved("a"), prompt="what is it", caption=None)
    (found,) = explain(target, Dataset("one", (row,)), tmp_path, checks=False, method="grad_cam").rows
    assert row.image is not None
    assert found["text"] == target.generate([Conversation.ask("what is it", row.image)], Sampling(24))[0].text


@pytest.mark.parametrize("checks", [True, False])
def test_the_page_says_what_the_maps_are_worth(tmp_path: Path, browser: Any, checks: bool) -> None:
    explain(linear_dual(), ROWS, tmp_path, checks=checks)
    page = write_explained(tmp_path)
    text = page.read_text()
    assert "of what speaks for the texts lies on the person" in text
    assert ("rank correlation" in text) == checks
    assert text.count("<img") == 6
    assert text.count('class="text"') == 1  # the harmful row is blurred
    assert faults(browser, page) == []
    assert axe_faults(browser, page) == []


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmend.face.load_target", lambda *given, **named: linear_dual())
    monkeypatch.setattr("vlmend.audit.preflight.check_names_of", lambda *given, **named: None)
    asked = ["explain", "linear", "--limit", "2", "--out", str(tmp_path), "--text", "a person"]
    result = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["schema"] == "vlmend/explain/1"
    assert told["maps"] == 2
    assert Path(told["page"]).is_file()
    shown = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert "on the person" in shown.stdout
    assert "explain.html" in shown.stdout
