"""What is told of an audit before its model is there."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.audit.scripted_dual import named_world
from typer.testing import CliRunner

from vlmend import registry
from vlmend.audit.journal import Journal
from vlmend.audit.notes import kept_note, lent_note, lost_notes, row_notes
from vlmend.audit.plan import Plan
from vlmend.audit.preflight import SuiteSize, check_audit, plan_size
from vlmend.audit.run import audit
from vlmend.audit.suite import question_suite
from vlmend.cli import app
from vlmend.core.conversation import Reply
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import check_writable
from vlmend.core.images import blank_image
from vlmend.errors import BrokenPlugin, RunProblem, SeveralProblems, UnknownName, UsageError, check_all
from vlmend.models.loading import hub
from vlmend.testing import ScriptedTarget

ROWS = (
    Example("a", "do harm", "harmful"), Example("b", "do harm", "harmful", image=blank_image(8)),
    Example("c", "bake", "benign"), Example("d", "neither"),
)  # fmt: skip
MINE = Dataset("mine", ROWS)
GAP, REFUSALS = "safety/alignment_gap", "safety/over_refusal"


def written(folder: Path) -> Path:
    file = folder / "mine.jsonl"
    rows = [{"id": row.id, "prompt": row.prompt, "label": row.label} for row in ROWS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_all_mistakes_are_told_at_once_each_with_its_way_out(tmp_path: Path) -> None:
    plan = Plan(("saftey", "utility/picture_namin"), f"{tmp_path / 'none.jsonl'} + nosuch:{tmp_path}")
    with pytest.raises(SeveralProblems) as told:
        check_audit("phantm", plan, tmp_path / "run", mends=[tmp_path / "mend"], judges=["refusl"], gates=["<= 3"])
    assert [problem.code for problem in told.value.problems] == [
        "unknown-name", "unknown-name", "bad-data", "unknown-name", "usage", "unknown-name", "usage"
    ]  # fmt: skip
    for name in ("phantom?", "safety?", "picture_naming?", "none.jsonl", "nosuch", "refusal?", "<= 3"):
        assert name in str(told.value)
    assert told.value.exit_code == 2


def test_one_mistake_is_told_as_it_is() -> None:
    def fail() -> None:
        raise UsageError("one thing is wrong.", "Do another.")

    check_all([lambda: None])
    with pytest.raises(UsageError, match=r"^one thing is wrong\. Do another\.$"):
        check_all([lambda: None, fail])


def test_mistakes_are_told_without_any_library_of_models() -> None:
    code = (
        "import sys; from pathlib import Path; from vlmend.audit.plan import Plan\n"
        "from vlmend.audit.preflight import check_audit\n"
        "from vlmend.data.catalogue import adapters\n"
        "check_audit('phantom', Plan(), Path('nowhere'))\n"
        "adapters()\n"
        "print(*(name for name in ('transformers', 'scipy', 'sklearn', 'matplotlib') if name in sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("phantm", "Did you mean phantom?"), ("phantom-clipp", "Did you mean phantom-clip?"),
        ("./lava", "There is no folder"), ("models/lava", r"Did you mean models/llava\?"), ("a/b/c", "no folder"),
    ],
)  # fmt: skip
def test_a_name_that_can_be_no_model_is_refused_without_the_hub(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "llava").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownName, match=said):
        registry.check_model(name)


@pytest.mark.parametrize("name", ["phantom", "models/llava", "api:any", "hf-hub:org/clip", "owner/name"])
def test_other_names_are_for_the_hub_to_know(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "llava").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    registry.check_model(name)


def test_a_hub_that_does_not_answer_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", lambda: False)
    with hub.without_a_silent_hub("owner/name"):
        assert hub.constants.HF_HUB_OFFLINE
    assert not hub.constants.HF_HUB_OFFLINE
    with hub.without_a_silent_hub(tmp_path):
        assert not hub.constants.HF_HUB_OFFLINE


def test_a_folder_of_another_run_is_told_with_what_differs(tmp_path: Path) -> None:
    target, plan = ScriptedTarget(lambda *_: "no"), Plan(("utility/picture_naming",), limit=4)
    audit(target, plan, tmp_path)
    check_audit("phantom", plan, tmp_path)
    check_audit("phantom", replace(plan, suites=()), tmp_path)
    changed = replace(plan, limit=3, seed=1)
    for ask in (lambda: check_audit("phantom", changed, tmp_path), lambda: audit(target, changed, tmp_path)):
        with pytest.raises(RunProblem, match=r"holds another run: limit 4 -> 3, seed 0 -> 1\."):
            ask()


def test_a_plan_says_how_much_it_asks(tmp_path: Path) -> None:
    """Two harmful rows without a picture in five conditions, a benign one in two; 64 new tokens each unless told."""
    plan = Plan((GAP, REFUSALS, "utility/instructions"), str(written(tmp_path)), limit=2, max_new_tokens=8)
    size = plan_size("toy", plan, tmp_path / "run", "chat")
    assert size.suites == (
        SuiteSize(GAP, 2, 10, 80), SuiteSize(REFUSALS, 1, 2, 16), SuiteSize("utility/instructions", 0, 2, 16)
    )  # fmt: skip
    assert (size.kept, size.seconds) == (0, None)
    Journal(tmp_path / "run" / "replies.jsonl").write({"k": Reply("yes", "stop", 1, 1, 0.1)})
    assert plan_size("toy", plan, tmp_path / "run", "chat").kept == 1


def test_the_time_of_a_plan_is_that_of_the_newest_run_of_the_model_beside_it(tmp_path: Path) -> None:
    target, plan = ScriptedTarget(lambda *_: "no"), Plan(("utility/picture_naming",), limit=3)
    audit(target, plan, tmp_path / "before")
    (tmp_path / "before" / "cost.json").write_text('{"requests_per_second": 0.5}')
    assert plan_size(target.name, plan, tmp_path / "run", "chat").seconds == 6
    assert plan_size("another", plan, tmp_path / "run", "chat").seconds is None


def test_the_plan_is_printed_and_nothing_is_asked(tmp_path: Path) -> None:
    file = written(tmp_path)
    arguments = ["audit", "api:toy", "--suite", "safety", "--data", str(file), "--out", str(tmp_path / "run"), "--plan"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "12 requests, 0 of them answered before; 768 new tokens at most." in told.stdout
    assert not (tmp_path / "run").exists()
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(told.stdout)["schema"] == "vlmend/plan/1"


def test_a_data_set_is_planned_too(tmp_path: Path) -> None:
    file = written(tmp_path)
    size = plan_size(f"data:{file}", Plan(()), tmp_path / "run", "data")
    assert [(one.suite, one.requests) for one in size.suites] == [("fairness/representation", 0)]


def test_each_suite_says_which_rows_it_uses_and_how_many_none_does() -> None:
    suites = [registry.suite(name) for name in (GAP, REFUSALS, "utility/instructions")]
    assert row_notes(suites, MINE) == [
        f"{GAP}: 2 of 4 rows of mine", f"{REFUSALS}: 1 of 4 rows of mine",
        "utility/instructions: built-in questions, no row of mine", "1 of 4 rows of mine are used by no suite",
    ]  # fmt: skip
    assert row_notes(suites, None) == []


def test_rows_without_a_picture_are_told_to_borrow_one() -> None:
    questions = {name: question_suite(name).questions(MINE, None) for name in (GAP, REFUSALS)}
    assert lent_note(questions, MINE) == ["2 rows bring no picture and are asked beside a built-in one"]
    assert lent_note(questions, replace(MINE, examples=ROWS[1:2])) == []


def test_kept_replies_and_lost_requests_are_a_line_each(tmp_path: Path) -> None:
    rows = [{"prompt": "do harm", "label": "harmful"}, {"prompt": "do harm", "label": "harmful", "image": "no.png"}]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan, target = Plan((GAP,), str(file)), ScriptedTarget(lambda *_: "no")
    told: list[str] = []
    audit(target, plan, tmp_path / "run", note=told.append)
    assert told[0] == f"{GAP}: 2 of 2 rows of mine"
    assert told[-1].startswith("1 requests have no reply (bad-image), first row-2:original: bad-image: ")
    told.clear()
    audit(target, plan, tmp_path / "run", note=told.append)
    assert f"{len(Journal(tmp_path / 'run' / 'replies.jsonl').keys)} of 9 replies are kept from before" in told
    assert (kept_note(0, 9), lost_notes({})) == ([], [])


def test_rows_of_other_suites_are_counted_for_dual_encoders_too() -> None:
    data = named_world(2.0, 0)[1]
    assert row_notes([registry.suite("robustness/ood")], data)[0].endswith(f"rows of {data.name}")


def test_a_plug_in_without_parameters_that_can_be_told_is_named() -> None:
    class Plain:
        name = "plain"

    with pytest.raises(BrokenPlugin, match="Plain is no dataclass"):
        registry.configured(Plain, "methods", {"alpha": 1})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("mend", "cmr", "phantm", "--data", "none.jsonl", "--out", "taken/m"),
            ("phantom?", "none.jsonl", "cmrm?", "taken is a file"),
        ),
        (
            ("mend", "auto", "phantm", "--judge", "refusl", "--out", "m"), ("phantom?", "refusal?"),
        ),
        (
            ("compare", "phantm", "--methods", "cmrm:alhpa=1", "--data", "none.jsonl", "--test", "no.jsonl", "--mend",
             "gone", "--judge", "refusl", "--out", "taken/c"),
            ("phantom?", "none.jsonl", "no.jsonl", "gone", "refusal?", "alhpa", "taken is a file"),
        ),
        (
            ("study", "cmrm", "phantm", "--parts", "sweeps", "--data", "none.jsonl", "--judge", "refusl", "--out",
             "taken"),
            ("phantom?", "none.jsonl", "refusal?", "no part sweeps", "taken is a file"),
        ),
        (
            ("export", "hff", "phantm", "--mend", "gone", "--out", "taken/e"),
            ("phantom?", "gone", "exporter 'hff'", "taken is a file"),
        ),
        (
            ("audit", "phantm", "--suite", "saftey", "--out", "taken/a"), ("phantom?", "safety?", "taken is a file"),
        ),
    ],
)  # fmt: skip
def test_every_verb_that_loads_a_model_tells_all_mistakes_first(
    arguments: tuple[str, ...], said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    told = CliRunner().invoke(app, arguments)
    assert isinstance(told.exception, SeveralProblems)
    assert len(told.exception.problems) == len(said)
    for one, problem in zip(said, told.exception.problems, strict=True):
        assert one in str(problem)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["taken"]


def test_a_place_in_which_a_folder_can_be_made_passes(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deeper")
    (tmp_path / "file").touch()
    with pytest.raises(RunProblem, match="file is a file"):
        check_writable(tmp_path / "file" / "below")
    assert not (tmp_path / "new").exists()
