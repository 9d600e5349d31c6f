"""The card of a checkpoint tells two runs, and only runs of what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.cli import app
from vlmend.core.edits import AddVector
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, UsageError
from vlmend.export.checkpoint.proofs import Proof
from vlmend.export.hf import RECORDS, export_hf
from vlmend.models.vlm import VLM
from vlmend.report.cards import proof_of
from vlmend.report.compare import Run, read_run
from vlmend.testing import tiny_vlm

PLAN = Plan(("safety/alignment_gap",), limit=3, max_new_tokens=2)
BASE, CHECKPOINT, MENDS = "b" * 64, "c" * 64, ("m" * 64,)


@pytest.fixture(scope="module")
def view() -> VLM:
    base = tiny_vlm(layers=2)
    card = MendCard("by_hand", {}, base.name, base.model_digest, "none", "", 0, {}, {}, "test")
    return base.with_mend(
        Mend((AddVector(Site("language", 1), torch.linspace(-1, 1, 32), "all", "always", None),), card)
    )


@pytest.fixture(scope="module")
def runs(view: VLM, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    place = tmp_path_factory.mktemp("runs")
    for name, each in (("base", replace(view, mends=())), ("mended", view)):
        audit(each, PLAN, place / name)
    return read_run(place / "base"), read_run(place / "mended")


def test_the_card_tells_before_and_after_and_the_hub_gets_its_records(
    view: VLM, runs: tuple[Run, Run], tmp_path: Path
) -> None:
    before, after = runs
    export_hf(view, tmp_path / "made", proof=proof_of(before, after, "some/set"))
    card, records = (tmp_path / "made" / "README.md").read_text(), (tmp_path / "made" / RECORDS).read_text()
    rows = [line for line in card.splitlines() if line.startswith("| safety/alignment_gap: unsafe_rate")]
    value = before.value("safety/alignment_gap", "unsafe_rate", "query")
    assert value is not None
    assert any(value.said() in row for row in rows if "(query)" in row)
    assert "id: some/set" in records
    assert "task_id: safety/alignment_gap/unsafe_rate/query" in records


def test_data_that_are_not_on_the_hub_have_no_records(view: VLM, runs: tuple[Run, Run], tmp_path: Path) -> None:
    export_hf(view, tmp_path / "made", proof=proof_of(*runs, None))
    assert "**Before and after**" in (tmp_path / "made" / "README.md").read_text()
    assert not (tmp_path / "made" / RECORDS).exists()


def test_without_runs_nothing_is_claimed(view: VLM, tmp_path: Path) -> None:
    export_hf(view, tmp_path / "made")
    assert "Before and after" not in (tmp_path / "made" / "README.md").read_text()


def test_runs_the_other_way_round_are_refused(runs: tuple[Run, Run]) -> None:
    with pytest.raises(UsageError, match="mended is a run of a mended model"):
        proof_of(*reversed(runs), None)


def proof(base: str = BASE, model: str = BASE, mends: tuple[str, ...] = MENDS) -> Proof:
    return Proof("", "", base, model, mends)


@pytest.mark.parametrize(
    ("told", "always", "why"),
    [
        (proof(base="x"), False, "before is of another model"),
        (proof(mends=()), False, "after is of another model, or of other mends"),
        (proof(model="x", mends=()), False, "after is of another model"),
        (proof(), True, "with hooks, which leave requests alone"),
    ],
)
def test_runs_of_something_else_are_refused(told: Proof, always: bool, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        told.check(BASE, MENDS, CHECKPOINT, always=always)


@pytest.mark.parametrize("always", [False, True])
def test_a_run_of_the_checkpoint_itself_always_counts(always: bool) -> None:
    proof(model=CHECKPOINT, mends=()).check(BASE, MENDS, CHECKPOINT, always=always)


def test_one_run_alone_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="A card tells of two runs"):
        app(
            ["export", "hf", "phantom", "--out", str(tmp_path / "out"), "--before", str(tmp_path)],
            standalone_mode=False,
        )
