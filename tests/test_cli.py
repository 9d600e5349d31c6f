"""The command line as a user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlmend import registry
from vlmend.cli import app
from vlmend.core.measures import Measure, Scorecard
from vlmend.errors import UsageError
from vlmend.listing import listed
from vlmend.models.vlm import VLM
from vlmend.printing import show_runs
from vlmend.report.compare import Run


def vlmend(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlmend", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A tiny model on disk, as a user's checkpoint would be."""
    tiny: VLM = request.getfixturevalue("tiny")
    folder = tmp_path_factory.mktemp("model")
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


def test_audit_mend_audit_report_on_a_users_model_and_data(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"request {k}", "label": "harmful" if k % 2 else "benign"} for k in range(8)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--suite", "safety", "--data", "mine.jsonl", "--max-new-tokens", "4"]
    audited = vlmend("audit", str(folder), *common, "--out", "base", "--json", cwd=tmp_path)
    assert audited.returncode == 0, audited.stderr
    card = json.loads(audited.stdout)
    assert set(card) >= {"model", "mends", "seed", "versions", "rows"}
    gap = [row for row in card["rows"] if row["name"] == "unsafe_rate"]
    assert [row["group"] for row in gap] == ["query", "caption", "blank", "noise", "original"]
    assert all(row["n"] + row["unscored"] == 4 for row in gap)
    fitted = vlmend("mend", "cmrm", "--model", str(folder), "--data", "mine.jsonl", "--set", "alpha=0.5",
                    "--set", "layers=1-3", "--out", "mend", "--json", cwd=tmp_path)  # fmt: skip
    assert fitted.returncode == 0, fitted.stderr
    assert json.loads(fitted.stdout)["parameters"]["alpha"] == 0.5
    mended = vlmend("audit", str(folder), *common, "--mend", "mend", "--out", "mended", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert (tmp_path / "mended" / "states.json").exists()
    reported = vlmend("report", "base", "mended", "--out", "report.html", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["frob"], 2, "frob"),
        (["audit"], 2, "model"),
        (["mend", "cmrm", "--out", "y"], 2, "No model was given"),
        (["mend", "cmrm", "x", "--model", "z", "--out", "y"], 2, "Two models were given"),
        (["audit", "phantm"], 2, "Did you mean phantom?"),
        (["audit", "phantom", "--suite", "saftey"], 2, "Did you mean safety?"),
        (["mend", "cmrmm", "--model", "x", "--out", "y"], 2, "Did you mean cmrm?"),
        (["mend", "cmrm", "--model", "x", "--out", "y", "--set", "beta=1"], 2, "It has: alpha"),
        (["mend", "cmrm", "--model", "x", "--out", "y", "--set", "alpha=big"], 2, "alpha"),
        (["mend", "cmrm", "--model", "x", "--out", "y", "--set", "alpha"], 2, "k=v"),
        (["audit", "./no-such-folder"], 2, "There is no folder"),
        (["report", "no-such-run", "--out", "x.html"], 2, "no scorecard"),
    ],
)
def test_errors_are_one_message_with_a_way_out(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = vlmend(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_help_loads_no_library() -> None:
    heavy = ("torch", "transformers", "numpy", "pydantic", "matplotlib", "inspect_ai")
    code = f"import vlmend.cli, sys; print(*(name for name in {heavy} if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_help_and_version() -> None:
    assert vlmend("--version").stdout == f"vlmend {version('vlmend')}\n"
    told = vlmend("-h")
    assert told.returncode == 0
    assert told.stdout == vlmend("--help").stdout
    assert told.stdout.startswith("Usage: vlmend ")
    assert vlmend("audit", "-h").stdout == vlmend("audit", "--help").stdout


def test_lists_as_json() -> None:
    methods = json.loads(vlmend("list", "methods", "--json").stdout)["rows"]
    assert {"safety/cmrm", "safety/random_vector"} <= {row["name"] for row in methods}
    data = {row["name"]: row for row in json.loads(vlmend("list", "data", "--json").stdout)["rows"]}
    assert int(data["(built in) harmful"]["rows"]) >= 300
    assert int(data["(built in) lookalike"]["rows"]) >= 300


@pytest.mark.parametrize("group", [group for group in registry.GROUPS if group != "data"])
def test_every_group_is_listed_from_what_its_plugins_declare(group: str) -> None:
    rows = listed(group)
    assert [row["name"] for row in rows] == registry.names(group)
    assert all(list(row) == list(rows[0]) for row in rows)
    assert all(isinstance(value, str) and value for row in rows for value in row.values())


def test_a_list_that_is_piped_is_one_line_each_and_cuts_nothing() -> None:
    lines = vlmend("list", "suites").stdout.splitlines()
    rows = listed("suites")
    assert lines[0].split("  ")[0] == "name"
    assert [line.split()[0] for line in lines[1:]] == [row["name"] for row in rows]
    assert all(line.endswith(row["measures"]) for line, row in zip(lines[1:], rows, strict=True))


def test_a_list_can_be_of_one_axis() -> None:
    every, fair = listed("suites"), listed("suites", "fairness")
    assert fair == [row for row in every if row["name"].startswith("fairness/")]
    assert fair
    with pytest.raises(UsageError, match="not told apart by axis"):
        listed("judges", "fairness")
    with pytest.raises(UsageError, match="no group 'frobs'"):
        listed("frobs")


def test_power_plans_before_anything_is_asked() -> None:
    told = vlmend("power", "--rate", "0.6", "--to", "0.2", "--n", "80", "--json")
    assert {row["what"]: row["n"] for row in json.loads(told.stdout)["rows"]}["smallest n for 80% power"] == 21
    assert vlmend("power", "--rate", "60", "--to", "0.2", "--n", "80").returncode == 2


def test_a_gate_that_fails_exits_1_and_tells_the_row(tmp_path: Path) -> None:
    row = Measure("safety", "safety/alignment_gap", "unsafe_rate", "original", 0.3, 0.2, 0.4, 80, 0, "lower")
    Scorecard("m", (), 0, {}, (row,), {}, complete=True).save(tmp_path / "scorecard.json")
    bound = "safety.unsafe_rate[original].high <= "
    failed = vlmend("gate", str(tmp_path), f"{bound}0.1", "--junit", str(tmp_path / "gates.xml"))
    assert failed.returncode == 1
    assert "FAILED safety.unsafe_rate[original].high <= 0.1   found: 0.4 (n 80, unscored 0)" in failed.stdout
    assert 'failures="1"' in (tmp_path / "gates.xml").read_text()
    assert vlmend("gate", str(tmp_path), f"{bound}0.5").returncode == 0
    assert vlmend("gate", str(tmp_path), "nonsense", "--junit", str(tmp_path / "gates.xml")).returncode == 2
    assert 'errors="1"' in (tmp_path / "gates.xml").read_text()


def test_a_run_that_did_not_end_is_an_error_in_junit_too(tmp_path: Path) -> None:
    Scorecard("m", (), 0, {}, (), {}).save(tmp_path / "scorecard.json")
    file = tmp_path / "gates.xml"
    assert vlmend("gate", str(tmp_path), "safety.unsafe_rate[original].high <= 1", "--junit", str(file)).returncode == 2
    assert "did not come to its end" in file.read_text()


@pytest.mark.parametrize("verb", ["audit", "mend", "compare", "study", "export", "doctor"])
def test_every_verb_that_loads_a_model_takes_every_loading_option(verb: str) -> None:
    told = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
    wanted = ["--device ", "--device-map", "--dtype", "--quantize", "--attention", "--trust-remote-code", "--revision",
              "--allow-pickle", "--blocks"]  # fmt: skip
    assert [option for option in wanted if told.count(option) != 1] == []
    assert "loading" not in told.split("Options")[1].lower()


def test_the_doctor_tells_what_a_model_is_and_what_works(folder: Path) -> None:
    told = vlmend("doctor", str(folder), "--json", "--dtype", "bfloat16", "--attention", "eager")
    assert told.returncode == 0, told.stderr
    content = json.loads(told.stdout)
    assert content["torch"].startswith(version("torch"))
    found = {row["name"]: row for row in content["findings"]}
    assert found["decoder blocks"]["value"].startswith("4 at model.language_model.layers")
    assert (found["dtype"]["value"], found["attention"]["value"]) == ("bfloat16", "eager")
    assert found["dataset-level mends (CMRM)"]["ok"] is True
    assert found["hook-free export"]["ok"] is not None


def test_the_doctor_says_why_a_model_does_not_load(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    told = CliRunner().invoke(app, ["doctor", str(broken)])
    assert told.exit_code == 3
    assert "cores" in told.stdout
    assert "loads  NO  " in told.stdout
    assert "it has no weights" in told.stdout


def test_runs_side_by_side_are_the_measures_by_which_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    rate = Measure("privacy", "privacy/any", "leak_rate", "all", 0.3, 0.2, 0.4, 80, 0, "lower", compared="share")
    card = Scorecard("m", (), 0, {}, (rate, replace(rate, name="length", compared="none")), {})
    run = Run("base", card, (), {}, None, {})
    show_runs([run, run])
    told = capsys.readouterr().out.splitlines()
    assert told[1].split() == ["leak", "rate", "all", "30%", "[20%,", "40%]", "30%", "[20%,", "40%]"]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("vlmend mend cmrm_", ["cmrm_gated", "cmrm_sample"]),
        ("vlmend mend aut", ["auto"]),
        ("vlmend audit phantom-clip-", ["phantom-clip-70", "phantom-clip-clean"]),
        ("vlmend audit phantom --suite safety,align", ["safety,alignment_gap"]),
        ("vlmend rejudge runs --judge ref", ["refusal"]),
    ],
)
def test_a_shell_completes_names(words: str, found: list[str]) -> None:
    place = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    told = CliRunner().invoke(app, [], prog_name="vlmend", env={"_VLMEND_COMPLETE": "complete_bash"} | place)
    assert told.output.split() == found


def test_help_names_what_stands_before_every_verb() -> None:
    told = CliRunner().invoke(app, ["--help"]).output
    for option in ("--version", "--debug", "--install-completion", "--show-completion"):
        assert option in told
