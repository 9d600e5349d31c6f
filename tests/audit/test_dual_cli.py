"""The command line on a dual encoder: the same verbs as for models that answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.audit.scripted_dual import named_world
from tests.audit.test_dual_run import written
from tests.models import duals
from typer.testing import CliRunner

from vlmend.cli import app
from vlmend.errors import UsageError
from vlmend.models.loading.dual import is_dual
from vlmend.models.vlm import VLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP on disk, as a user's checkpoint would be."""
    folder = tmp_path_factory.mktemp("clip")
    model, processor = duals.built("clip")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_audit_mend_audit_gate_report_and_view(folder: Path, tmp_path: Path) -> None:
    data = written(named_world(2.0, 0)[1], tmp_path / "data")
    common = ["--suite", "robustness", "--data", data]
    told = run("audit", folder, *common, "--out", tmp_path / "base")
    assert "robustness/ood" in told
    assert "inspect view" not in told
    run("mend", "ood_calibration", "--model", folder, "--data", data, "--set", "kept=0.5", "--out", tmp_path / "mend")
    mended = run("audit", folder, *common, "--mend", tmp_path / "mend", "--out", tmp_path / "mended", "--json")
    rows = {(row["name"], row["group"]): row["value"] for row in json.loads(mended)["rows"]}
    assert rows["accepted", "known"] == 0.5
    run("gate", tmp_path / "mended", "robustness.accepted[known].value >= 0.5")
    run("report", tmp_path / "base", tmp_path / "mended", "--out", tmp_path / "report.html")
    run("view", tmp_path / "base", tmp_path / "mended", "--out", tmp_path / "view.html", "--no-open")
    page = (tmp_path / "report.html").read_text()
    assert "ood_calibration" in page
    assert "sign-flip" in page


def test_methods_and_models_of_different_kinds_are_refused_before_loading(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cmrm works on a model that answers, and .* is a dual encoder"):
        run("mend", "cmrm", "--model", folder, "--out", tmp_path / "mend")
    with pytest.raises(
        UsageError, match="text_projection works on a dual encoder, and api:phantom is a model that answers"
    ):
        run("mend", "text_projection", "--model", "api:phantom", "--out", tmp_path / "mend")
    with pytest.raises(UsageError, match="safety cannot be measured on a dual encoder"):
        run("audit", folder, "--suite", "safety", "--out", tmp_path / "run")


def test_the_kind_of_a_checkpoint_is_told_from_its_config(folder: Path, tiny: VLM, tmp_path: Path) -> None:
    assert is_dual(folder)
    tiny.model.save_pretrained(tmp_path)
    assert not is_dual(tmp_path)
    assert not is_dual(tmp_path / "nowhere")


def test_the_lists_say_what_works_on_which() -> None:
    methods = {row["name"]: row["works on"] for row in json.loads(run("list", "methods", "--json"))["rows"]}
    assert (methods["safety/cmrm"], methods["fairness/text_projection"]) == ("chat", "dual")
    suites = {row["name"]: row["works on"] for row in json.loads(run("list", "suites", "--json"))["rows"]}
    assert (suites["safety/over_refusal"], suites["robustness/ood"]) == ("chat", "dual")
