"""The whole study on a tiny random model: every part is written, the page is made, a second run asks nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from browsing import axe_faults, faults
from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.files import read_json, write_json
from vlmend.data.sources import builtin_dataset
from vlmend.errors import RunProblem, UnknownName
from vlmend.models.vlm import VLM
from vlmend.report.study import write_defences, write_study
from vlmend.studies.cmrm.lab import StudyPlan
from vlmend.studies.cmrm.study import PARTS, study_cmrm
from vlmend.studies.measuring import Sizes
from vlmend.testing import tiny_vlm

SIZES = Sizes(6, 4, 4, 4, 4)
PLAN = StudyPlan(
    SIZES, SIZES, alphas=(0.5, 1.0), layer_step=3, anchor_sizes=(1, 4), anchors=8, states=10, timed=2, rounds=1,
    defences=("random_vector", "safety_prompt", "tbop"),
)  # fmt: skip


def run(target: VLM, out: Path, **changes: object) -> Path:
    settings: dict = {"judges": [RuleJudge()], "seed": 0, "progress": lambda *_: None} | changes
    return study_cmrm(
        target, builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor"), [], out, PLAN, **settings
    )


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    run(tiny_vlm(seed=0), out)
    return out


def test_every_part_is_written_and_the_page_shows_them(studied: Path) -> None:
    assert {file.stem for file in (studied / "parts").glob("*.json")} == set(PARTS)
    write_study(studied, studied / "study.html")
    page = (studied / "study.html").read_text()
    for title in (
        "Five conditions",
        "Strength",
        "Which layers",
        "Which calibration set",
        "Negative controls",
        "The price",
        "Baselines",
    ):
        assert f"<h2>{title}" in page
    assert page.count("<svg") == 7


@pytest.fixture(params=["study.html", "defences.html"])
def page(request: pytest.FixtureRequest, studied: Path) -> Path:
    write_study(studied, studied / "study.html")
    about = {"model": "tiny", "judge": "rules-2"}
    write_defences(about | read_json(studied / "parts" / "defences.json"), studied / "defences.html")
    return studied / request.param


def test_its_page_can_be_read_on_a_phone_in_the_dark_and_by_ear(browser: Any, page: Path) -> None:
    assert faults(browser, page) == []


def test_axe_finds_nothing_wrong_with_it(browser: Any, page: Path) -> None:
    assert axe_faults(browser, page) == []


def test_its_files_are_json_to_strict_parsers(studied: Path) -> None:
    """A study has no floor by chance and no second judge: where Python wrote NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    files = [studied / "study.json", *(studied / "parts").glob("*.json")]
    read = {file.stem: json.loads(file.read_text(), parse_constant=refuse) for file in files}
    assert read["defences"]["rows"][0]["unsafe"]["floor"] is None


def test_a_finished_study_asks_the_model_nothing(studied: Path) -> None:
    target = tiny_vlm(seed=0)
    run(target, studied)
    assert target.vision.calls == 0


def test_the_strengths_come_from_the_validation_split_alone(studied: Path) -> None:
    sweep = json.loads((studied / "parts" / "sweep.json").read_text())
    assert sweep["split"] == "validation"
    assert set(sweep["best"]) == {"dataset", "sample"}
    assert sorted({row["alpha"] for row in sweep["rows"]}) == [0.0, 0.5, 1.0]


def test_all_anchors_have_cosine_one_with_themselves(studied: Path) -> None:
    transfer = json.loads((studied / "parts" / "transfer.json").read_text())
    assert transfer["matrix"][0]["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert transfer["sizes"][-1]["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert transfer["sizes"][0]["cosine"] < 0.999


def test_another_study_in_the_folder_is_refused(studied: Path) -> None:
    with pytest.raises(RunProblem, match="seed"):
        run(tiny_vlm(seed=0), studied, seed=1)
    with pytest.raises(UnknownName, match="no part nothing"):
        run(tiny_vlm(seed=0), studied, parts=("nothing",))


def test_the_same_weights_under_another_chat_template_are_another_study(studied: Path) -> None:
    other = tiny_vlm(seed=0)
    other.processor.chat_template += " "
    with pytest.raises(RunProblem, match="identity differs"):
        run(other, studied)


def test_a_page_is_made_where_nothing_could_be_scored(studied: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "study.json").write_text((studied / "study.json").read_text())
    part = json.loads((studied / "parts" / "defences.json").read_text())
    for row in part["rows"]:
        row["unsafe"] |= {"value": None, "low": None, "high": None}
    write_json(tmp_path / "parts" / "defences.json", part)
    write_study(tmp_path, tmp_path / "study.html")
    assert "<h2>Baselines" in (tmp_path / "study.html").read_text()


def test_the_page_of_a_half_done_study_shows_what_is_there(studied: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name in ("study.json", "parts/sweep.json"):
        (tmp_path / name).write_text((studied / name).read_text())
    write_study(tmp_path, tmp_path / "study.html")
    page = (tmp_path / "study.html").read_text()
    assert "<h2>Strength" in page
    assert "<h2>Baselines" not in page
