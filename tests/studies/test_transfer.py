"""The study of transfer on tiny CLIPs and on black boxes: what carries over, what it is held against, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
from tests.models import duals
from typer.testing import CliRunner

from vlmend.attacks.robustness.pgd import PGD
from vlmend.cli import app
from vlmend.core.attacks import Budget
from vlmend.core.budget import levels_of, with_levels
from vlmend.core.edits import ReplaceWeights
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import plain_name
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.data.writing import write_data
from vlmend.errors import BadParameter, UsageError
from vlmend.models.vlm import VLM
from vlmend.report.study import write_transfer
from vlmend.studies.shared_parts import part_digests, shared_parts
from vlmend.studies.transfer import parse_attacks, study_transfer
from vlmend.studies.transfer_rows import own_rows, put_to
from vlmend.testing import ScriptedTarget, tiny_clip

NAMES = ("hammer", "teapot", "zebra")
ROWS = tuple(Example(str(k), image=noise_image(16, k), answers=(NAMES[k % 3],)) for k in range(6))
DATA = Dataset("d", ROWS)
BUDGET = Budget(16 / 255, 4)
MODELS = {"one": lambda: tiny_clip(0), "twin": lambda: tiny_clip(0), "other": lambda: tiny_clip(7)}


def grey(level: int) -> Image:
    return Image.from_pixels(PIL.Image.new("RGB", (4, 4), cast("Any", (level,) * 3)))


def wide(seed: int) -> Image:
    """Noise between 50 and 200, twice as wide as high."""
    levels = np.random.default_rng(seed).integers(50, 200, (8, 16, 3), dtype=np.uint8)
    return Image.from_pixels(PIL.Image.fromarray(levels))


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


def test_the_page_has_a_matrix_for_each_attack_and_a_picture_beside_it(folder: Path) -> None:
    page = (folder / "transfer.html").read_text()
    assert page.count("<svg") == 2
    assert "made on one" in page
    assert "Sharing tower, text tower, rest" in page
    for name in ("transfer-pgd.png", f"transfer-{plain_name('text_swap:words=1')}.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_another_pictures_change_is_told_where_pictures_were_changed(folder: Path) -> None:
    for (_, _, attack), cell in cells(folder).items():
        if attack == "pgd":
            assert cell["shuffled"]["n"] == 6
            lift = cell["shuffled"]["value"] - cell["attacked"]["value"]
            assert cell["lift_over_shuffled"]["value"] == pytest.approx(lift)
        else:
            assert cell["shuffled"] is None


def test_shuffled_changes_are_those_of_the_attack_each_on_another_picture() -> None:
    """Three grey pictures, one of which gets 1 more, one 2 less, one 4 more; epsilon is 4."""
    own = [Example(name, image=grey(100), answers=("a",)) for name in "abc"]
    moves = {"a": 1, "b": -2, "c": 4}
    told = {"attack": "pgd", "epsilon": f"{4 / 255:.6g}"}
    made = [replace(row, image=grey(100 + moves[row.id]), attributes={**told, "of": row.id}) for row in own]
    put = put_to(Dataset("d", tuple(own)), Dataset("made", tuple(made)), alike=True, seed=0)
    assert put is not None
    found = {row.attributes["of"]: levels_of(row) - 100 for row in put.examples[6:]}
    assert all(change.min() == change.max() != moves[of] for of, change in found.items())
    assert sorted(int(change.max()) for change in found.values()) == sorted(moves.values())
    assert {row.attributes["attack"] for row in put.examples[6:]} == {"shuffled"}


def test_a_change_that_cannot_be_told_is_not_shuffled() -> None:
    """One picture was cut before it was attacked, so that it differs from ours by more than epsilon."""
    own = [Example(name, image=noise_image(8, k), answers=("a",)) for k, name in enumerate("abc")]
    told = {"attack": "pgd", "epsilon": f"{4 / 255:.6g}"}
    made = [replace(row, attributes={**told, "of": row.id}) for row in own]
    made[0] = replace(made[0], image=noise_image(8, 9))
    put = put_to(Dataset("d", tuple(own)), Dataset("made", tuple(made)), alike=True, seed=0)
    assert put is not None
    assert {row.attributes["of"] for row in put.examples[6:]} == {"b", "c"}


def test_a_picture_that_the_model_crops_is_held_against_its_middle() -> None:
    """Twice as wide as high: the middle was attacked, so the change is told from it and not from a squeezed picture."""
    own = [Example(name, image=wide(k), answers=("a",)) for k, name in enumerate("abc")]
    told = {"attack": "pgd", "epsilon": f"{4 / 255:.6g}"}
    made: list[Example] = []
    for move, row in zip((1, -2, 4), own, strict=True):
        assert row.image is not None
        middle = np.asarray(row.image.decode().crop((4, 0, 12, 8)), dtype=np.int16)
        made.append(with_levels(replace(row, attributes={**told, "of": row.id}), middle + move))
    put = put_to(Dataset("d", tuple(own)), Dataset("made", tuple(made)), alike=True, seed=0)
    assert put is not None
    assert {row.attributes["of"] for row in put.examples[6:]} == {"a", "b", "c"}


def test_rows_under_a_shift_stand_for_themselves() -> None:
    shifted = Example("fog/a", image=grey(9), answers=("a",), attributes={"shift": "fog", "of": "a", "kept": "x"})
    assert own_rows("dual", Dataset("d", (shifted,)), None).examples[0].attributes == {"kept": "x"}


def test_parts_are_shared_by_the_digest_of_their_weights(folder: Path, tiny: VLM) -> None:
    found = cells(folder)
    assert found["one", "twin", "pgd"]["shares"] == ["tower", "text tower", "rest"]
    assert found["one", "other", "pgd"]["shares"] == []
    clip = tiny_clip()
    tower = clip.towers.path(cast("Any", clip.towers.vision))
    name = next(one for one in clip.towers.model.state_dict() if one.startswith(f"{tower}.") and one.endswith("weight"))
    weight = clip.towers.model.state_dict()[name]
    card = MendCard("by_hand", {}, clip.name, clip.model_digest, "none", "", 0, {}, {}, "test")
    mended = clip.with_mend(Mend((ReplaceWeights(name, weight + 1),), card))
    assert shared_parts(part_digests(clip), part_digests(mended)) == ["text tower", "rest"]
    assert list(part_digests(tiny)) == ["tower", "decoder", "rest"]
    assert shared_parts(part_digests(ScriptedTarget(lambda asked, mended: "")), part_digests(clip)) is None


def test_the_mean_lift_is_told_by_what_is_shared(folder: Path) -> None:
    (pgd, _) = json.loads((folder / "transfer.json").read_text())["means"]
    groups = {tuple(one["shares"]): one for one in pgd["by_shared"]}
    assert {shares: one["pairs"] for shares, one in groups.items()} == {(): 4, ("tower", "text tower", "rest"): 2}
    assert groups["tower", "text tower", "rest"]["value"] == pytest.approx(pgd["at_home"]["value"], abs=0.34)
    total = sum(one["value"] * one["pairs"] for one in groups.values())
    assert total / 6 == pytest.approx(pgd["elsewhere"]["value"])


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
