"""What every verb prints for machines: one JSON object that says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.cli import app
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


@pytest.mark.parametrize(
    ("arguments", "schema"),
    [
        (["list", "suites"], "list"),
        (["power", "--rate", "0.6", "--to", "0.2", "--n", "80"], "power"),
        (["gate", "RUN", "safety.refusal_rate[lookalike:query].n >= 1"], "gates"),
        (["rejudge", "RUN", "--judge", "rules"], "scorecard"),
        (["view", "RUN", "--no-open"], "view"),
        (["report", "RUN", "--out", "RUN/report.html"], "report"),
        (["data", "deduplicate", "RUN/mine.jsonl", "--out", "RUN/unique"], "step"),
        (["doctor"], "doctor"),
    ],
)
def test_what_is_printed_says_what_it_is(arguments: list[str], schema: str, run: Path) -> None:
    (run / "mine.jsonl").write_text('{"prompt": "one"}\n{"prompt": "one"}\n')
    given = [argument.replace("RUN", str(run)) for argument in arguments]
    assert printed(*given)["schema"] == f"vlmend/{schema}/1"


def test_gates_are_rows_and_a_failed_one_keeps_its_exit_code(run: Path) -> None:
    content = printed("gate", str(run), "over_refusal.refusal_rate[lookalike:query].value > 2", code=1)
    (row,) = content["gates"]
    assert (row["passed"], row["measure"], row["n"]) == (False, "refusal_rate", 2)
