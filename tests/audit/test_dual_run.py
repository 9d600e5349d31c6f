"""The audit of a dual encoder: one folder, resumed, refused where it makes no sense, mended and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.audit.scripted_dual import named_world, titled_world

from vlmend.audit.judging import made_judges
from vlmend.audit.plan import Plan, suites_of
from vlmend.audit.run import audit, rejudge
from vlmend.core.examples import Dataset
from vlmend.core.gates import check_gates, parse_gate
from vlmend.core.images import Image
from vlmend.core.measures import Scorecard, find_measure
from vlmend.errors import RunProblem, UsageError
from vlmend.printing import show_scorecard
from vlmend.report.compare import headline, moves, read_run
from vlmend.report.html import write_report
from vlmend.report.view import write_view
from vlmend.testing import ScriptedTarget, tiny_clip

SKEW, OOD = "fairness/retrieval_skew", "robustness/ood"


def written(data: Dataset, folder: Path) -> str:
    """The data as a user would have it: JSONL beside its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for e in data.examples:
        row: dict[str, object] = {"id": e.id, "prompt": e.prompt, "label": e.label, "category": e.group,
                                  "caption": e.caption, "answers": e.answers}  # fmt: skip
        if isinstance(e.image, Image):
            (folder / f"{e.id}.png").write_bytes(e.image.content)
            row["image"] = f"{e.id}.png"
        lines.append(json.dumps(row) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return str(folder / "rows.jsonl")


def test_an_audit_of_user_data_writes_a_scorecard_that_gates_and_pages_read(tmp_path: Path) -> None:
    target, data = titled_world(12.0, 0)
    file = written(data, tmp_path / "data")
    card = audit(target, Plan(("fairness",), data=file), tmp_path / "run")
    read = Scorecard.load(tmp_path / "run" / "scorecard.json")
    assert [row.floor for row in read] == pytest.approx([row.floor for row in card], nan_ok=True)
    assert [(row.name, row.group, row.value) for row in read] == [(row.name, row.group, row.value) for row in card]
    bound = parse_gate("fairness.bias_at_10[directed].high <= 0.2")
    assert [result.passed for result in check_gates(read, [bound])] == [False]
    assert read.provenance["data"]["rows"] == len(data.examples)
    write_view([tmp_path / "run"], tmp_path / "view.html")


def test_a_second_run_embeds_nothing_and_gives_the_same_scorecard(tmp_path: Path) -> None:
    target, data = named_world(2.0, 0)
    plan = Plan(("ood",), data=written(data, tmp_path / "data"))
    audit(target, plan, tmp_path / "run")
    first = (tmp_path / "run" / "scorecard.json").read_text()
    mute = type(target)({}, {})  # would fail at the first embedding
    audit(mute, plan, tmp_path / "run")
    assert (tmp_path / "run" / "scorecard.json").read_text() == first


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    target, data = named_world(2.0, 0)
    file = written(data, tmp_path / "data")
    audit(target, Plan((OOD,), data=file), tmp_path / "run")
    with pytest.raises(RunProblem, match="holds another run"):
        audit(target, Plan((OOD,), data=file, limit=3), tmp_path / "run")


def test_suites_are_chosen_by_what_they_work_on() -> None:
    assert {SKEW, OOD} <= set(suites_of(["fairness", "robustness"], kind="dual"))
    with pytest.raises(UsageError, match="safety cannot be measured on a dual encoder"):
        suites_of(["safety"], kind="dual")
    with pytest.raises(UsageError, match="ood cannot be measured on a model that answers"):
        suites_of(["ood"])


def test_what_speaks_of_replies_is_refused(tmp_path: Path) -> None:
    target, _ = named_world(2.0, 0)
    with pytest.raises(UsageError, match="give replies, so judges, temperature, epochs"):
        audit(target, Plan((OOD,), temperature=0.5, epochs=2), tmp_path, judges=made_judges(["rules"]))
    with pytest.raises(UsageError, match="cannot be measured on a model that answers"):
        audit(ScriptedTarget(lambda *_: "yes"), Plan((OOD,)), tmp_path)


def test_nobody_judges_embeddings(tmp_path: Path) -> None:
    target, data = named_world(2.0, 0)
    audit(target, Plan((OOD,), data=written(data, tmp_path / "data")), tmp_path / "run")
    with pytest.raises(UsageError, match="no finished run with replies"):
        rejudge(tmp_path / "run", made_judges(["rules"]))


def test_before_and_after_are_paired_by_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(titled_world(12.0, 0)[1], tmp_path / "data")
    for name, bias in (("base", 12.0), ("mended", 2.0)):
        card = audit(titled_world(bias, 0)[0], Plan((SKEW,), data=file), tmp_path / name)
        show_scorecard(card, tmp_path / name, every=True)
    assert "by chance" in capsys.readouterr().out
    base, mended = read_run(tmp_path / "base"), read_run(tmp_path / "mended")
    found = {(move.before.name, move.before.group): move for move in moves(base, mended)}
    signed = found["bias_at_10", "directed"]
    assert signed.n == 20  # two titles a concept
    assert signed.difference.value == pytest.approx(signed.after.value - signed.before.value)
    assert signed.difference.high < 0
    assert signed.holm < 0.05
    assert found["bias_at_10", "neutral"].holm == 1
    assert "favours the expected group" in headline(base, [mended])
    write_report([base, mended], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "by chance" in page
    assert "Every verdict" not in page
    assert "harmful requests" not in page


def test_a_mended_view_has_a_folder_of_its_own(tmp_path: Path) -> None:
    from vlmend.methods.robustness.ood_calibration import OodCalibration

    data = named_world(2.0, 0)[1]
    target, plan = tiny_clip(), Plan((OOD,), data=written(data, tmp_path / "data"))
    mend = OodCalibration(kept=0.5).fit(target, data, seed=0)
    audit(target, plan, tmp_path / "base")
    card = audit(target.with_mend(mend), plan, tmp_path / "mended")
    rows = {(row.name, row.group): row.value for row in card}
    assert rows["accepted", "known"] == 0.5
    assert card.mends[0]["method"] == "ood_calibration"
    with pytest.raises(RunProblem, match="its target, mends"):
        audit(target.with_mend(mend), plan, tmp_path / "base")


def test_groups_changed_in_the_data_are_another_run(tmp_path: Path) -> None:
    target, data = titled_world(12.0, 0)
    folder = tmp_path / "data"
    plan = Plan((SKEW,), data=written(data, folder))
    before = audit(target, plan, tmp_path / "run")
    other = {"man": "woman", "woman": "man"}
    written(
        replace(data, examples=tuple(replace(e, group=other[e.group]) if e.image else e for e in data.examples)), folder
    )
    with pytest.raises(RunProblem, match="its data digest differs"):
        audit(target, plan, tmp_path / "run")
    after = audit(target, plan, tmp_path / "fresh")
    one, two = (find_measure(card, SKEW, "bias_at_10", "directed") for card in (before, after))
    assert one is not None
    assert two is not None
    assert two.value == pytest.approx(-one.value)


def test_a_picture_that_is_replaced_is_measured_again(tmp_path: Path) -> None:
    target, data = named_world(2.0, 0)
    file = written(data, tmp_path / "data")
    audit(target, Plan((OOD,), data=file), tmp_path / "run")
    first, second = data.examples[0].image, data.examples[1].image
    assert first is not None
    assert second is not None
    (tmp_path / "data" / "0.png").write_bytes(second.content)
    changed = audit(target, Plan((OOD,), data=file), tmp_path / "run")
    accuracy = find_measure(changed, OOD, "accuracy", "known")
    assert accuracy is not None
    assert accuracy.value < 1


def test_a_data_set_is_a_plan_of_its_own(tmp_path: Path) -> None:
    target, data = named_world(2.0, 0)
    card = audit(target, Plan((OOD,), data=data), tmp_path)
    assert card.provenance["data"]["digest"] == data.digest
    assert audit(target, Plan((OOD,), data=data), tmp_path) == card
