"""Attacks into folders: kept row by row, asked once, refused where the folder is of something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from vlmend.attacks.robustness.pgd import PGD
from vlmend.attacks.running import KEPT, own_pictures, run_attack
from vlmend.attacks.tasks import PixelTask
from vlmend.core.attacks import Budget, Proposal
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData, UsageError
from vlmend.testing import tiny_clip

ROWS = tuple(Example(str(k), image=noise_image(20, k), answers=(f"thing {k % 2}",)) for k in range(6))
DATA = Dataset("noise", ROWS, "CC0")
FOUR = Budget(4 / 255, 3)


@dataclass(frozen=True)
class Slow(PGD):
    """PGD two rows at a time that notes what it was asked, and stops where it is told to."""

    batch: ClassVar[int] = 2
    asked: list[str] = field(default_factory=list[str])
    stop: int = 99

    def propose(self, task: PixelTask, rows: Sequence[Example], budget: Budget, seeds: Sequence[int]) -> list[Proposal]:
        if len(self.asked) >= self.stop:
            raise KeyboardInterrupt
        self.asked.extend(row.id for row in rows)
        return super().propose(task, rows, budget, seeds)

    @property
    def parameters(self) -> dict[str, object]:
        return {}


def test_the_folder_reads_again_as_what_was_made(tmp_path: Path) -> None:
    found = run_attack(PGD(), tiny_clip(), DATA, FOUR, out=tmp_path / "adv")
    again = read_data(str(tmp_path / "adv"))
    assert again.digest == found.data.digest
    assert (again.name, again.licence) == ("noise-pgd", "CC0")
    assert again.examples[0].attributes["attack"] == "pgd"
    assert not list(tmp_path.glob("*.unfinished*"))


def test_a_stopped_run_asks_for_the_rest_only_and_comes_out_alike(tmp_path: Path) -> None:
    target, out = tiny_clip(), tmp_path / "adv"
    with pytest.raises(KeyboardInterrupt):
        run_attack(Slow(stop=4), target, DATA, FOUR, out=out)
    assert not out.exists()
    with (tmp_path / "adv.unfinished.jsonl").open("a") as cut:
        cut.write('{"id": "5", "ima')  # a kill in the middle of a line
    again = Slow()
    found = run_attack(again, target, DATA, FOUR, out=out)
    assert again.asked == ["4", "5"]
    assert found.data.digest == run_attack(Slow(), target, DATA, FOUR).data.digest


def test_a_row_that_was_changed_since_it_was_kept_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "adv"
    with pytest.raises(KeyboardInterrupt):
        run_attack(Slow(stop=4), tiny_clip(), DATA, FOUR, out=out)
    kept = tmp_path / "adv.unfinished.jsonl"
    whole = kept.read_text()
    kept.write_text(whole.replace('"success": "', '"success": "un', 1))
    assert kept.read_text() != whole
    again = Slow()
    found = run_attack(again, tiny_clip(), DATA, FOUR, out=out)
    assert len(again.asked) == 3
    assert found.data.digest == run_attack(Slow(), tiny_clip(), DATA, FOUR).data.digest


def test_a_finished_run_asks_nothing(tmp_path: Path) -> None:
    first = run_attack(Slow(), tiny_clip(), DATA, FOUR, out=tmp_path / "adv")
    again = Slow()
    second = run_attack(again, tiny_clip(), DATA, FOUR, out=tmp_path / "adv")
    assert again.asked == []
    assert (second.data.digest, second.attacked) == (first.data.digest, first.attacked)
    assert (tmp_path / "adv" / KEPT).is_file()


@pytest.mark.parametrize("change", ["budget", "seed", "data", "target"])
def test_another_attack_in_the_same_folder_is_refused(change: str, tmp_path: Path) -> None:
    out = tmp_path / "adv"
    run_attack(PGD(), tiny_clip(), DATA, FOUR, out=out)
    target = tiny_clip(seed=int(change == "target"))
    data = replace(DATA, examples=ROWS[:4]) if change == "data" else DATA
    budget = Budget(5 / 255, 3) if change == "budget" else FOUR
    with pytest.raises(UsageError, match="is of another attack"):
        run_attack(PGD(), target, data, budget, seed=int(change == "seed"), out=out)


def test_a_folder_of_something_else_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    slow = Slow()
    with pytest.raises(UsageError, match="holds something else"):
        run_attack(slow, tiny_clip(), DATA, FOUR, out=tmp_path)
    assert slow.asked == []


def test_shares_are_those_of_the_rows() -> None:
    found = run_attack(PGD(), tiny_clip(), DATA, Budget(16 / 255, 5))
    for share, what in ((found.clean, "clean"), (found.noise, "noise"), (found.attacked, "attacked")):
        assert share.value == sum(row.attributes[what] == "right" for row in found.data.examples) / 6
        assert share.low <= share.value <= share.high
    assert (found.n, found.epsilon) == (6, 16 / 255)


def test_an_empty_budget_tells_clean_accuracy_and_writes_the_data_as_they_are(tmp_path: Path) -> None:
    found = run_attack(PGD(), tiny_clip(), DATA, Budget(0.0), out=tmp_path / "clean")
    assert found.clean == found.attacked == run_attack(PGD(), tiny_clip(), DATA, FOUR).clean
    assert read_data(str(tmp_path / "clean")).digest == DATA.digest


def test_only_what_survived_an_earlier_attack_is_attacked() -> None:
    """Rows that pgd turned stay as they are, cost nothing, and are no row fewer: the result is the worse of both."""
    target, budget = tiny_clip(), Budget(8 / 255, 2)
    first = run_attack(PGD(), target, DATA, budget)
    turned = {row.id: row for row in first.data.examples if row.attributes["attacked"] == "wrong"}
    assert 0 < len(turned) < len(ROWS)
    slow = Slow()
    then = run_attack(slow, target, DATA, budget, earlier=first.data)
    assert slow.asked == [row.id for row in ROWS if row.id not in turned]
    for row in then.data.examples:
        assert row.attributes["attack"] == "pgd+pgd"
        assert (row.attributes["forward"] == "0") == (row.id in turned)
        if row.id in turned:
            assert row.image == turned[row.id].image
    assert then.attacked.value <= first.attacked.value
    assert then.n == first.n


def test_an_earlier_attack_is_brought_within_epsilon_and_judged_anew() -> None:
    """Made at 64/255 on another model: what is taken over at 2/255 is 2/255 away, and wrong for this model."""
    target, other = tiny_clip(), tiny_clip(seed=3)
    far = run_attack(PGD(), other, DATA, Budget(64 / 255, 5)).data
    found = run_attack(PGD(), target, DATA, Budget(2 / 255, 1), earlier=far).data
    assert all(float(row.attributes["largest"]) <= 2 / 255 + 1e-6 for row in found.examples)
    task = PGD().task(target, DATA)
    kept = [row for row in found.examples if row.attributes["forward"] == "0"]
    assert task.wrong(kept) == [True] * len(kept)


def test_own_pictures_all_have_a_name() -> None:
    assert all(row.answers and row.image is not None for row in own_pictures().examples)
    assert len(own_pictures().examples) > 50


def test_an_earlier_attack_on_other_rows_is_refused_and_one_on_some_is_told() -> None:
    target, budget = tiny_clip(), Budget(8 / 255, 1)
    half = replace(DATA, examples=DATA.examples[:3])
    first = run_attack(PGD(), target, half, budget).data
    found = run_attack(PGD(), target, DATA, budget, earlier=first)
    assert any("3 of 6 rows are new to this attack" in note for note in found.data.notes)
    others = replace(DATA, examples=tuple(replace(row, id=f"other {row.id}") for row in DATA.examples))
    for earlier in (DATA, run_attack(PGD(), target, others, budget).data):
        with pytest.raises(BadData, match="none of these rows as an attack left them"):
            run_attack(PGD(), target, DATA, budget, earlier=earlier)


def test_without_epsilon_a_picture_that_cannot_be_read_is_left_out_and_told() -> None:
    broken = Example("broken", image=Image(b"x"), answers=DATA.examples[0].answers)
    found = run_attack(PGD(), tiny_clip(), replace(DATA, examples=(*DATA.examples, broken)), Budget(0.0))
    assert found.n == len(DATA.examples)
    assert found.clean == run_attack(PGD(), tiny_clip(), DATA, Budget(0.0)).clean
    assert any("broken" in note for note in found.data.notes)
    with pytest.raises(BadData, match="no row that pgd can attack"):
        run_attack(PGD(), tiny_clip(), Dataset("d", (broken,)), Budget(0.0))
