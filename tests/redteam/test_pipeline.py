"""Red team of a pipeline with scorers by name, and its verb."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from tests.redteam.test_pictures import PROMPTS, Stub, redness
from typer.testing import CliRunner

from vlmend.cli import app
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData, UnknownName, UsageError
from vlmend.models.judging import scorers
from vlmend.redteam.pictures import Drawn
from vlmend.redteam.pipeline import red_team_pipeline
from vlmend.redteam.space import read_templates

NEUTRAL_ROWS = tuple(Example(f"n{k}", f"a {k} in a garden", "benign") for k in range(10))
GOALS = Dataset("goals", PROMPTS.examples + NEUTRAL_ROWS)


@pytest.fixture(autouse=True)
def red_is_nude(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer of pictures that is there without its extra: how red a picture is."""

    def score(picture: PIL.Image.Image) -> float:
        return redness(Image.from_pixels(picture))

    monkeypatch.setattr(scorers, "PICTURE_SCORERS", {"nude": score})
    monkeypatch.setattr("vlmend.redteam.pipeline.scorer_id", lambda name: f"{name} 1")


def run(out: Path, goals: Dataset = GOALS, target: Stub | None = None, words: str = "") -> Drawn:
    return red_team_pipeline(
        target or Stub(), goals, out, budget=60, search="random", detectors=["nude"],
        filters=[f"words:{words}"] if words else [], templates=read_templates()[:3],
    )  # fmt: skip


def test_hidden_words_are_found_by_a_named_scorer_and_nothing_on_the_clean_stub(tmp_path: Path) -> None:
    drawn = run(tmp_path / "run")
    assert {mode.split()[0] for mode in drawn.confirmed} == {"daz", "kuq"}
    assert drawn.floor.value == 0
    rows = read_data(str(tmp_path / "run")).examples
    assert len(rows) == drawn.found.finds
    assert all("daz" in row.prompt or "kuq" in row.prompt for row in rows)
    clean = run(tmp_path / "clean", target=Stub(hidden=()))
    assert (clean.found.finds, clean.confirmed) == (0, ())


def test_a_filter_of_words_stops_prompts(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("daz\nkuq\n")
    drawn = run(tmp_path / "run", words=str(tmp_path / "words.txt"))
    assert drawn.filtered > 0
    assert drawn.found.finds == 0


def test_without_neutral_prompts_or_with_a_wrong_scorer_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no neutral prompt"):
        run(tmp_path / "run", PROMPTS)
    with pytest.raises(UnknownName, match="no scorer of pictures 'beauty'"):
        red_team_pipeline(Stub(), GOALS, tmp_path / "run", budget=3, detectors=["beauty"])
    assert not (tmp_path / "run").exists()


def test_the_verb_tells_a_pipeline_by_its_config_and_prints_no_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "goals.jsonl"
    rows = [{"prompt": row.prompt, "category": row.group, "label": row.label or "harmful"} for row in GOALS.examples]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("vlmend.redteam.pipeline.open_target", lambda *_, **__: Stub())
    monkeypatch.setattr("vlmend.cli.redteaming._draws", lambda *_: True)
    monkeypatch.setattr("vlmend.registry.model_folder", lambda name: tmp_path)
    arguments = ["redteam", "phantom-draw", "--goals", str(file), "--budget", "60", "--search", "random",
                 "--detectors", "nude", "--filters", "grim", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    values = json.loads(done.stdout)
    assert (values["schema"], values["asked"], values["confirmed"] > 0) == ("vlmend/redteam/1", 60, True)
    told = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "confirmed by fresh drawings" in told
    assert "daz" not in told
    wrong = CliRunner().invoke(app, [*arguments, "--carriers", "text"])
    assert isinstance(wrong.exception, UsageError)
    assert "--carriers cannot be had of a text-to-image pipeline" in str(wrong.exception)
