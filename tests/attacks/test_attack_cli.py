"""The verb `attack`: a user's checkpoint, data of their own, and what it prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.models import duals
from typer.testing import CliRunner

from vlmend.cli import app
from vlmend.cli.attacking import epsilon_of
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.data.layouts import read_data
from vlmend.data.writing import write_data
from vlmend.errors import BadParameter, UnknownName

DATA = Dataset("noise", tuple(Example(str(k), image=noise_image(20, k), answers=(f"thing {k % 3}",)) for k in range(6)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP on disk, as a user's checkpoint would be."""
    folder = tmp_path_factory.mktemp("clip")
    model, processor = duals.built("clip")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(DATA, tmp_path / "data")
    return tmp_path / "data"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_attack_then_audit_what_came_of_it(folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "adv"
    common = ["--data", data, "--epsilon", "8/255", "--steps", 3, "--out", out]
    told = run("attack", "pgd", folder, *common)
    assert "epsilon 8/255, 6 rows. Right:" in told
    values = json.loads(run("attack", "pgd", folder, *common, "--json"))
    attacked = [row.attributes["attacked"] for row in read_data(str(out)).examples]
    assert values["attacked"]["value"] == attacked.count("right") / 6
    assert (values["n"], values["epsilon"]) == (6, 8 / 255)
    card = json.loads(
        run("audit", folder, "--suite", "robustness/adversarial", "--data", out, "--out", tmp_path / "run", "--json")
    )
    rows = {(row["name"], row["group"]): row["value"] for row in card["rows"]}
    assert rows["accuracy", "pgd 8/255"] == values["attacked"]["value"]


def test_a_limit_takes_the_first_rows_and_a_parameter_is_set(folder: Path, data: Path, tmp_path: Path) -> None:
    run(
        "attack",
        "pgd",
        folder,
        "--data",
        data,
        "--steps",
        2,
        "--limit",
        3,
        "--set",
        "restarts=2",
        "--out",
        tmp_path / "a",
    )
    rows = read_data(str(tmp_path / "a")).examples
    assert [row.id for row in rows] == ["0", "1", "2"]
    assert rows[0].attributes["forward"] == str(2 * 2 + 2)


def test_a_mend_is_attacked_with_the_model(folder: Path, data: Path, tmp_path: Path) -> None:
    write_data(replace(DATA, examples=(*DATA.examples, *others())), tmp_path / "known")
    run("mend", "ood_calibration", "--model", folder, "--data", tmp_path / "known", "--out", tmp_path / "mend")
    run("attack", "pgd", folder, "--data", data, "--steps", 1, "--mend", tmp_path / "mend", "--out", tmp_path / "adv")
    assert "+ood_calibration@" in read_data(str(tmp_path / "adv")).notes[0]


def others() -> tuple[Example, ...]:
    return tuple(Example(f"other {k}", image=noise_image(20, 50 + k)) for k in range(6))


def test_attacks_of_two_sizes_are_audited_in_one_run_and_paired(folder: Path, data: Path, tmp_path: Path) -> None:
    sets = ["--data", data]
    for levels in (4, 16):
        run(
            "attack", "pgd", folder, "--data", data, "--epsilon", f"{levels}/255", "--steps", 2,
            "--out", tmp_path / str(levels),
        )  # fmt: skip
        sets += ["--data", tmp_path / str(levels)]
    suite = ["--suite", "robustness/adversarial"]
    card = json.loads(run("audit", folder, *suite, *sets, "--out", tmp_path / "run", "--json"))
    rows = {(row["name"], row["group"]): row for row in card["rows"]}
    groups = {"clean", "noise 4/255", "noise 16/255", "pgd 4/255", "pgd 16/255"}
    assert {group for name, group in rows if name == "accuracy"} == groups
    assert rows["rise", "pgd"]["n"] == 6
    said = [row["group"] for row in card["rows"] if row["says"]]
    assert said == ["pgd 4/255"]


def test_where_nothing_may_be_changed_it_says_so(folder: Path, data: Path, tmp_path: Path) -> None:
    told = run("attack", "text_swap", folder, "--data", data, "--epsilon", 0, "--out", tmp_path / "same")
    assert "nothing was changed" in told
    assert "under attack" not in told
    assert read_data(str(tmp_path / "same")).digest == read_data(str(data)).digest


def test_epsilon_is_a_fraction_or_a_number() -> None:
    assert epsilon_of("4/255") == epsilon_of(" 4 / 255") == pytest.approx(4 / 255)
    assert epsilon_of("0.0157") == 0.0157
    for text in ("4/0", "much", "nan"):
        with pytest.raises(BadParameter, match="is no number"):
            epsilon_of(text)


@pytest.mark.parametrize("epsilon", ["-1/255", "1.5", "4"])
def test_an_epsilon_that_is_no_share_is_refused_before_anything_is_loaded(epsilon: str, tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="epsilon lies between 0 and 1"):
        run("attack", "pgd", tmp_path / "none", f"--epsilon={epsilon}", "--out", tmp_path / "adv")


def test_an_attack_that_is_not_there_is_named_with_the_nearest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no attack 'pgdd'"):
        run("attack", "pgdd", folder, "--out", tmp_path / "adv")
