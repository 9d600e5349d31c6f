"""What every verb prints for machines: one JSON object that says what it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from tests.audit.test_pairs import people, say
from tests.models import duals
from typer.testing import CliRunner

from vlmend.audit.labels.samples import judged_samples
from vlmend.audit.labels.session import LabelRow
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.cli import app
from vlmend.core.examples import Dataset
from vlmend.core.files import write_json
from vlmend.methods.safety.safety_prompt import SafetyPrompt
from vlmend.testing import ScriptedTarget


def commands() -> dict[str, click.Command]:
    """Every verb, `phantom build` as such."""
    root: Any = typer.main.get_command(app)
    found: dict[str, click.Command] = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {k}": one for k, one in inner.items()}
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "base"
    audit(ScriptedTarget(lambda *_: "no"), Plan(("safety/over_refusal",), limit=2), folder)
    return folder


def printed(*arguments: str, code: int = 0) -> dict[str, Any]:
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exit_code == code, told.output
    content = json.loads(told.stdout)
    assert next(iter(content)) == "schema"
    return content


@pytest.mark.parametrize("verb", list(commands()))
def test_every_verb_takes_json(verb: str) -> None:
    assert "--json" in [option for parameter in commands()[verb].params for option in parameter.opts]


CLIP_RUN = ["--suite", "fairness/retrieval_skew", "--limit", "2", "--out", "OUT"]
SEARCHED = ["--goals", "RUN/mine.jsonl", "--budget", "2", "--judge", "rules", "--search", "random", "--out", "OUT"]
PRINTED: dict[str, tuple[list[str], str]] = {
    "list": (["list", "suites"], "list"),
    "power": (["power", "--rate", "0.6", "--to", "0.2", "--n", "80"], "power"),
    "gate": (["gate", "RUN", "safety.refusal_rate[lookalike:query].n >= 1"], "gates"),
    "rejudge": (["rejudge", "RUN", "--judge", "rules"], "scorecard"),
    "view": (["view", "RUN", "--no-open"], "view"),
    "report": (["report", "RUN", "--out", "RUN/report.html"], "report"),
    "label --report": (["label", "RUN", "--report"], "labels"),
    "label --about fairness --report": (["label", "PAIRS", "--about", "fairness", "--report"], "pairs"),
    "data": (["data", "deduplicate", "RUN/mine.jsonl", "--out", "OUT"], "step"),
    "doctor": (["doctor", "CLIP"], "doctor"),
    "audit": (["audit", "CLIP", *CLIP_RUN], "scorecard"),
    "audit --plan": (["audit", "CLIP", "--plan", *CLIP_RUN], "plan"),
    "mend": (["mend", "text_projection", "CLIP", "--out", "OUT"], "mend"),
    "compare": (["compare", "CLIP", "--methods", "text_projection", *CLIP_RUN], "defences"),
    "attack": (["attack", "pgd", "CLIP", "--steps", "1", "--limit", "2", "--out", "OUT"], "attack"),
    "redteam": (["redteam", "phantom", *SEARCHED], "redteam"),
    "explain": (["explain", "CLIP", "--limit", "2", "--out", "OUT"], "explain"),
    "demo": (["demo", "--out", "OUT"], "report"),
    "study": (["study", "cmrm", "phantom", "--out", "OUT"], "study"),
    "export": (["export", "hf", "phantom", "--mend", "MEND", "--out", "OUT"], "export"),
    "serve": (["serve", "phantom"], "serve"),
    "score": (["score", "OUT", "--data", "pictures.jsonl"], "score"),
    "phantom build": (["phantom", "build", "phantom-mini"], "phantom"),
}
"""A call of every verb, and the schema of what it prints. What takes minutes has stand-ins: see `stood_in`."""


@pytest.fixture
def stood_in(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of what the demo, a study, export, score and build do: files as they leave them, at once."""

    def demo(out: Path, **_: object) -> Path:
        shutil.copytree(run, out / "base")
        return out / "report.html"

    def study(*_: object, **__: object) -> Path:
        write_json(tmp_path / "parts" / "sweep.json", {"rows": []})
        return tmp_path / "parts"

    class Exporter:
        works_on = "chat"

        def check_options(self, options: object) -> None: ...

        def write(self, view: object, out: Path, options: object) -> dict[str, object]:
            return {"out": out, "mends": ["m"], "layers": [1], "error": 0.0, "always": False}

    monkeypatch.setattr("vlmend.demo.demo", demo)
    monkeypatch.setattr("vlmend.studies.cmrm.study.study_cmrm", study)
    monkeypatch.setattr("vlmend.report.study.write_study", lambda folder, out: None)
    monkeypatch.setattr("vlmend.serving.run.serve", lambda view, mends, settings, ready: ready("http://x/v1", ["base"]))
    for module, opened in (("mending", "opened_chat"), ("shipping", "opened"), ("serving", "opened_chat")):
        monkeypatch.setattr(f"vlmend.cli.{module}.{opened}", lambda *_: ScriptedTarget(lambda *_: "no"))
    monkeypatch.setattr("vlmend.redteam.run.open_target", lambda *_, **__: ScriptedTarget(lambda *_: "no"))
    monkeypatch.setattr("vlmend.cli.shipping._ask", lambda *_, **__: ({"n": 0, "named": []}, []))
    monkeypatch.setattr("vlmend.registry.exporter", lambda name: Exporter())
    monkeypatch.setattr("vlmend.phantom.shelf.put_together", lambda name: tmp_path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for part in duals.built("clip"):
        part.save_pretrained(folder)
    return folder


def test_every_verb_is_called() -> None:
    assert {name.partition(" --")[0] for name in PRINTED} == set(commands())


@pytest.mark.usefixtures("stood_in")
@pytest.mark.parametrize("verb", PRINTED)
def test_what_is_printed_says_what_it_is(verb: str, run: Path, clip: Path, tmp_path: Path) -> None:
    (run / "mine.jsonl").write_text('{"prompt": "one"}\n{"prompt": "one"}\n')
    digest = judged_samples(run)[0].digest
    (run / "labels").mkdir(exist_ok=True)
    (run / "labels" / "ann.jsonl").write_text(LabelRow(digest=digest, label="refusal").model_dump_json() + "\n")
    mend = SafetyPrompt().fit(ScriptedTarget(lambda *_: ""), Dataset("d", ()), seed=0)
    mend.save(tmp_path / "mend")
    say(people(tmp_path / "pairs", 4), "ann", "first", "alike")
    places = {"RUN": run, "PAIRS": tmp_path / "pairs", "CLIP": clip, "OUT": tmp_path / "out", "MEND": tmp_path / "mend"}
    arguments, schema = PRINTED[verb]
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    assert printed(*arguments)["schema"] == f"vlmend/{schema}/1"


def test_the_page_names_every_verb_with_its_schema() -> None:
    """A line of its table has a schema for each of its verbs, or one for all."""
    page = (Path(__file__).parents[1] / "docs" / "guides" / "json.md").read_text("utf-8")
    pairs: set[tuple[str, str]] = set()
    for line in page.splitlines():
        if line.startswith("| `"):
            verbs, schemas = (re.findall("`(.+?)`", cell) for cell in line.split("|")[1:3])
            pairs |= set(zip(verbs, schemas * len(verbs) if len(schemas) == 1 else schemas, strict=True))
    assert {(name, schema) for name, (_, schema) in PRINTED.items()} == pairs


def test_gates_are_rows_and_a_failed_one_keeps_its_exit_code(run: Path) -> None:
    content = printed("gate", str(run), "over_refusal.refusal_rate[lookalike:query].value > 2", code=1)
    (row,) = content["gates"]
    assert (row["passed"], row["measure"], row["n"]) == (False, "refusal_rate", 2)
