"""The study of transfer on tiny CLIPs and on black boxes: what carries over, what it is held against, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.models import duals
from typer.testing import CliRunner

from vlmend.attacks.robustness.pgd import PGD
from vlmend.cli import app
from vlmend.core.attacks import Budget
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.data.writing import write_data
from vlmend.errors import BadParameter, UsageError
from vlmend.models.vlm import VLM
from vlmend.report.study import write_transfer
from vlmend.studies.transfer import parse_attacks, study_transfer
from vlmend.testing import ScriptedTarget, tiny_clip

NAMES = ("hammer", "teapot", "zebra")
ROWS = tuple(Example(str(k), image=noise_image(16, k), answers=(NAMES[k % 3],)) for k in range(6))
DATA = Dataset("d", ROWS)
BUDGET = Budget(16 / 255, 4)
MODELS = {"one": lambda: tiny_clip(0), "twin": lambda: tiny_clip(0), "other": lambda: tiny_clip(7)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("transfer")
    content = study_transfer(MODELS, parse_attacks(["pgd", "text_swap:words=1"]), DATA, BUDGET, out)
    write_transfer(content, out / "transfer.html")
    return out


def cells(folder: Path) -> dict[tuple[str, str, str], Any]:
    content = json.loads((folder / "transfer.json").read_text())
    return {(cell["source"], cell["target"], cell["attack"]): cell for cell in content["cells"]}


def test_every_attack_of_every_model_is_put_to_every_model(folder: Path) -> None:
    found = cells(folder)
    assert len(found) == 3 * 3 * 2
    assert all(cell["n"] == 6 and not cell["unscored"] for cell in found.values())


def test_a_twin_is_fooled_alike_and_its_ratio_is_exactly_one(folder: Path) -> None:
    found = cells(folder)
    home, twin = found["one", "one", "pgd"], found["one", "twin", "pgd"]
    assert {key: home[key] for key in ("clean", "noise", "attacked")} == {
        key: twin[key] for key in ("clean", "noise", "attacked")
    }
    assert home["lift"]["value"] > 0
    assert twin["ratio"]["value"] == 1.0


def test_the_lift_is_what_is_wrong_beyond_random_changes(folder: Path) -> None:
    for cell in cells(folder).values():
        assert cell["lift"]["value"] == pytest.approx(cell["noise"]["value"] - cell["attacked"]["value"])
        assert cell["lift_over_clean"]["value"] == pytest.approx(cell["clean"]["value"] - cell["attacked"]["value"])


def test_the_page_has_a_matrix_for_each_attack(folder: Path) -> None:
    page = (folder / "transfer.html").read_text()
    assert page.count("<svg") == 2
    assert "made on one" in page


def test_stopped_it_goes_on_and_asks_nothing_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "transfer.json").read_text()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(PGD, "propose", fail)
    monkeypatch.setattr("vlmend.audit.suites.robustness.adversarial.Adversarial.samples", fail)
    study_transfer(MODELS, parse_attacks(["pgd", "text_swap:words=1"]), DATA, BUDGET, folder)
    assert (folder / "transfer.json").read_text() == before


def test_other_attacks_in_the_same_folder_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="is of another attack"):
        study_transfer(MODELS, parse_attacks(["pgd"]), DATA, Budget(4 / 255, 4), folder)


def test_a_black_box_is_a_target_and_no_source(tiny: VLM, tmp_path: Path) -> None:
    """Asked about a hammer it says hammer whatever it is shown: clean, at random and under attack all are right."""
    rows = tuple(Example(str(k), "what is it", image=noise_image(16, k), answers=("hammer",)) for k in range(2))
    box = ScriptedTarget(lambda asked, mended: "a hammer")
    found = study_transfer(
        {"tiny": lambda: tiny, "box": lambda: box},
        parse_attacks(["pgd"]),
        Dataset("d", rows),
        Budget(4 / 255, 1),
        tmp_path,
    )
    assert "needs the gradients" in found["left_out"]["pgd on box"]
    (cell,) = [cell for cell in found["cells"] if cell["target"] == "box"]
    assert [cell[key]["value"] for key in ("clean", "noise", "attacked", "lift")] == [1.0, 1.0, 1.0, 0.0]


def test_pictures_carry_over_to_another_kind_of_model_and_words_do_not(tiny: VLM, tmp_path: Path) -> None:
    rows = tuple(Example(str(k), "what is it", image=noise_image(16, k), answers=(NAMES[k],)) for k in range(3))
    found = study_transfer(
        {"tiny": lambda: tiny, "clip": lambda: tiny_clip()}, parse_attacks(["pgd", "text_swap"]), Dataset("d", rows),
        Budget(4 / 255, 2), tmp_path,
    )  # fmt: skip
    pairs = {
        (cell["source"], cell["target"]): cell["attack"] for cell in found["cells"] if cell["source"] != cell["target"]
    }
    assert pairs == {("tiny", "clip"): "pgd", ("clip", "tiny"): "pgd"}


def test_one_model_or_no_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to carry over"):
        study_transfer({"one": MODELS["one"]}, parse_attacks(["pgd"]), DATA, BUDGET, tmp_path)
    with pytest.raises(UsageError, match="is no k=v"):
        parse_attacks(["pgd:restarts"])
    with pytest.raises(BadParameter, match="no parameter speed"):
        parse_attacks(["pgd:speed=2"])


def test_the_verb_names_models_with_commas(tmp_path: Path) -> None:
    model, processor = duals.built("clip")
    folders = [str(tmp_path / name) for name in ("clip", "twin")]
    for folder in folders:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    write_data(DATA, tmp_path / "data")
    done = CliRunner().invoke(
        app,
        ["study", "transfer", ",".join(folders), "--data", str(tmp_path / "data"), "--limit", "4", "--steps", "2",
         "--out", str(tmp_path / "out"), "--json"],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["schema"] == "vlmend/transfer/1"
    assert {cell["n"] for cell in told["cells"]} == {4}
    assert (tmp_path / "out" / "transfer.html").is_file()
