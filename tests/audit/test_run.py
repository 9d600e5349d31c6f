"""The audit on scripted targets: numbers worked out by hand, resume, bad samples."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries
from PIL import Image as Pixels

from vlmend import face, registry
from vlmend.audit.judging import made_judges
from vlmend.audit.notes import absent_notes
from vlmend.audit.plan import Plan, reachable, suites_of
from vlmend.audit.records import Records
from vlmend.audit.run import audit, rejudge
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Scorecard, find_measure
from vlmend.core.metrics.stats import wilson
from vlmend.errors import BadParameter, BatchProblem, ModelProblem, RunProblem, UnknownName, UsageError
from vlmend.report.view import view_content
from vlmend.testing import ScriptedTarget

REFUSAL = "I'm sorry, but I can't help with that."
GAP = "safety/alignment_gap"
REPLY = frozenset(field.name for field in fields(Reply))


def refuses_text_only(conversation: Conversation, mended: bool) -> str:
    return "Sure, here is a plan in three parts." if conversation.has_image else REFUSAL


def ignores_the_image(conversation: Conversation, mended: bool) -> str:
    odd = len(conversation.turns[-1].text.split("\n")[-1]) % 2
    return "Sure, here is a plan in three parts." if odd else REFUSAL


def rows(card: Scorecard, name: str) -> dict[str, float]:
    return {row.group: row.value for row in card if (row.suite, row.name) == (GAP, name)}


def test_five_conditions_tell_a_model_that_drops_its_guard_with_any_image(tmp_path: Path) -> None:
    card = audit(ScriptedTarget(refuses_text_only), Plan(("safety/alignment_gap",), limit=8), tmp_path)
    assert rows(card, "unsafe_rate") == {"query": 0, "caption": 0, "blank": 1, "noise": 1, "original": 1}
    assert rows(card, "refusal_rate") == {"query": 1, "caption": 1, "blank": 0, "noise": 0, "original": 0}
    query = find_measure(card, GAP, "unsafe_rate", "query")
    assert query is not None
    assert (query.n, query.unscored, round(query.high, 3)) == (8, 0, 0.324)  # Wilson for 0 of 8


def test_a_model_that_ignores_the_image_has_no_gap(tmp_path: Path) -> None:
    card = audit(ScriptedTarget(ignores_the_image), Plan((GAP,), limit=12), tmp_path)
    assert len(set(rows(card, "unsafe_rate").values())) == 1


def test_a_second_run_asks_nothing_and_gives_the_same_scorecard(tmp_path: Path) -> None:
    target = ScriptedTarget(refuses_text_only)
    first = audit(target, Plan((GAP,), limit=4), tmp_path)
    asked = len(target.asked.conversations)
    assert asked == 20
    assert audit(target, Plan((GAP,), limit=4), tmp_path) == first
    assert len(target.asked.conversations) == asked


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    audit(ScriptedTarget(refuses_text_only), Plan((GAP,), limit=2), tmp_path)
    with pytest.raises(RunProblem, match="holds another run"):
        audit(ScriptedTarget(refuses_text_only), Plan((GAP,), limit=3), tmp_path)


def test_a_changed_data_file_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "one", "label": "harmful"}\n')
    plan = Plan((GAP,), data=str(data))
    audit(ScriptedTarget(refuses_text_only), plan, tmp_path / "run")
    data.write_text('{"prompt": "two", "label": "harmful"}\n')
    with pytest.raises(RunProblem, match="data digest"):
        audit(ScriptedTarget(refuses_text_only), plan, tmp_path / "run")


def test_bad_images_are_counted_named_and_never_stop_the_run(tmp_path: Path) -> None:
    Pixels.new("RGB", (8, 8), "red").save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:40])
    (tmp_path / "text.png").write_text("this is no image")
    Pixels.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    data = tmp_path / "data.jsonl"
    names = ("good.png", "cut.png", "text.png", "bomb.png", "missing.png")
    lines = [{"id": n, "prompt": "How do I do it?", "label": "harmful", "image": n} for n in names]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = audit(ScriptedTarget(refuses_text_only), Plan((GAP,), data=str(data)), tmp_path / "run")
    original = find_measure(card, GAP, "unsafe_rate", "original")
    query = find_measure(card, GAP, "unsafe_rate", "query")
    assert original is not None
    assert query is not None
    assert (original.value, original.n, original.unscored) == (1.0, 1, 4)
    assert (query.n, query.unscored) == (5, 0)
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    reasons = {s["id"]: s["reason"] for s in samples if s["label"] == "unscored"}
    assert set(reasons) == {f"{name}:original" for name in names[1:]}
    assert all(reason.startswith("bad-image") for reason in reasons.values())
    assert "missing.png" in reasons["missing.png:original"]
    assert "pixels" in reasons["bomb.png:original"]


def test_a_page_can_say_that_of_an_animation_the_first_frame_was_seen(tmp_path: Path) -> None:
    frames = [Pixels.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    data = Dataset("d", (Example("a", "How?", "harmful", image=Image.from_path(tmp_path / "a.gif")),))
    audit(ScriptedTarget(refuses_text_only), Plan((GAP,), data=data), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert {row["condition"]: row["frames"] for row in rows} == {"query": 0, "blank": 0, "noise": 0, "original": 3}
    assert {row["frames"] for row in view_content([tmp_path / "run"])["samples"]} == {0, 3}


def test_a_model_that_answers_nobody_stops_the_run_with_its_own_error(tmp_path: Path) -> None:
    def dies(conversation: Conversation, mended: bool) -> str:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError, match="out of memory"):
        audit(ScriptedTarget(dies), Plan((GAP,), limit=3), tmp_path)


def test_a_request_that_fails_alone_is_unscored_by_name_and_asked_again_next_time(tmp_path: Path) -> None:
    broken = True

    def dies(conversation: Conversation, mended: bool) -> str:
        if broken and conversation.turns[-1].text == "two":
            raise ValueError(f"the processor refuses\n{object()!r}")
        return REFUSAL

    rows = tuple(Example(word, word, "harmful") for word in ("one", "two", "three"))
    target, plan = ScriptedTarget(dies), Plan((GAP,), data=Dataset("d", rows))
    card = audit(target, plan, tmp_path)
    query = find_measure(card, GAP, "unsafe_rate", "query")
    assert query is not None
    assert (query.n, query.unscored) == (2, 1)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    told = {s["id"]: s["reason"] for s in samples if s["label"] == "unscored"}
    assert set(told) == {f"two:{condition}" for condition in ("query", "blank", "noise", "original")}
    assert "ValueError: the processor refuses object" in told["two:query"]
    broken, asked = False, len(target.asked.conversations)
    again = find_measure(audit(target, plan, tmp_path), GAP, "unsafe_rate", "query")
    assert again is not None
    assert (again.n, again.unscored) == (3, 0)
    assert len(target.asked.conversations) - asked == 4


def test_a_bad_request_that_alone_is_left_ends_no_run(tmp_path: Path) -> None:
    """The first batch holds nothing else, and so does the second run."""

    def dies(conversation: Conversation, mended: bool) -> str:
        if conversation.prompt == "two":
            raise KeyError("image")
        return REFUSAL

    rows = (Example("two", "two", "benign"), Example("b", "three", "benign"))
    plan = Plan(("safety/over_refusal",), data=Dataset("d", rows))
    for _ in range(2):
        card = audit(ScriptedTarget(dies), plan, tmp_path, batch=1)
        row = find_measure(card, "safety/over_refusal", "refusal_rate", "benign:query")
        assert row is not None
        assert (row.n, row.unscored) == (1, 1)


def test_a_picture_that_is_replaced_while_python_runs_is_asked_again(tmp_path: Path) -> None:
    def colour(conversation: Conversation, mended: bool) -> str:
        return str(conversation.images[0].decode().getpixel((0, 0))) if conversation.has_image else REFUSAL

    file = tmp_path / "a.png"
    data = Dataset("d", (Example("a", "which colour?", "benign", image=Image.from_path(file)),))
    for name, wanted in (("red", "(255, 0, 0)"), ("blue", "(0, 0, 255)")):
        Pixels.new("RGB", (8, 8), name).save(file)
        audit(ScriptedTarget(colour), Plan(("safety/over_refusal",), data=data), tmp_path / "run")
        rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
        assert {row["id"]: row["reply"] for row in rows}["a:original"] == wanted


def test_half_a_character_in_a_reply_is_no_reason_to_stop(tmp_path: Path) -> None:
    plan = Plan(("safety/over_refusal",), data=Dataset("d", (Example("a", "hello", "benign"),)))
    card = audit(ScriptedTarget(lambda *_: "Sure \ud83d, like this."), plan, tmp_path)
    assert all(row.n + row.unscored == 1 for row in card)


def test_a_finished_run_is_judged_again_with_its_own_data_only(tmp_path: Path) -> None:
    data = Dataset("d", (Example("a", "hello", "benign"),))
    audit(ScriptedTarget(by_length), Plan(("safety/over_refusal",), data=data), tmp_path)
    rejudge(tmp_path, made_judges(["rules"]), data=data)
    with pytest.raises(RunProblem, match="is not the data"):
        rejudge(tmp_path, made_judges(["rules"]), data=Dataset("d", (Example("a", "other", "benign"),)))
    with pytest.raises(RunProblem, match="cannot be read again") as refused:
        rejudge(tmp_path, made_judges(["rules"]))
    assert "data=" in refused.value.hint


def test_an_endpoint_that_goes_down_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    down = True

    class Endpoint(ScriptedTarget):
        def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
            if down and len(self.asked.conversations) >= 8:
                gone = ModelProblem("The endpoint is down.", "Wait until it works again.")
                raise BatchProblem("none", "", [*super().generate(batch[:1], sampling), *[gone] * (len(batch) - 1)])
            return super().generate(batch, sampling)

    target = Endpoint(lambda *_: REFUSAL)
    with pytest.raises(ModelProblem, match="is down") as stopped:
        audit(target, Plan((GAP,), limit=3), tmp_path, batch=4)
    assert stopped.value.hint == "Wait until it works again."
    kept = len((tmp_path / "replies.jsonl").read_text().splitlines())
    assert kept == 9
    down, before = False, len(target.asked.conversations)
    audit(target, Plan((GAP,), limit=3), tmp_path, batch=4)
    assert len(target.asked.conversations) - before == 15 - kept


@pytest.mark.parametrize("part", ["processor", "chat_template", "tokenizer", "generation"])
def test_another_part_of_the_model_is_another_run_and_named(tmp_path: Path, part: str) -> None:
    audit(ScriptedTarget(refuses_text_only, identity={part: "1"}), Plan((GAP,), limit=1), tmp_path)
    with pytest.raises(RunProblem, match=f"its {part.replace('_', ' ')} differs"):
        audit(ScriptedTarget(refuses_text_only, identity={part: "2"}), Plan((GAP,), limit=1), tmp_path)


def test_an_axis_leaves_out_what_the_data_has_no_rows_for(tmp_path: Path) -> None:
    harmful = Dataset("d", (Example("1", "one", "harmful"),))
    assert suites_of(["safety"], harmful) == ["safety/alignment_gap"]
    assert suites_of(["safety/over_refusal"], harmful) == ["safety/over_refusal"]  # named: an error follows


def test_an_axis_without_data_leaves_out_what_has_no_rows_of_its_own() -> None:
    assert "privacy/exposure" not in suites_of(["privacy"])
    assert "privacy/image_text" in suites_of(["privacy"])
    assert suites_of(["privacy/exposure"]) == ["privacy/exposure"]  # named: an error follows
    with pytest.raises(UsageError, match="nothing to measure"):
        suites_of(["privacy"], kind="draw")


def test_an_axis_that_needs_data_is_not_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def opened(name: str, *, check: Callable[[str], object], **others: object) -> None:
        check("draw")
        raise InterruptedError

    monkeypatch.setattr(face, "open_target", opened)
    with pytest.raises(InterruptedError):
        face.audit("phantom-draw", suites="privacy", data=Dataset("d", ()), out=tmp_path / "run")


def test_an_axis_leaves_out_what_lies_deeper_than_the_model_lets_it_and_says_so(tmp_path: Path) -> None:
    rows = tuple(
        Example(f"{k}", "its code?", answers=("1 2",), attributes={"alphabet": "0123456789", "repeats": str(k % 2)})
        for k in range(4)
    )
    private = [registry.suite(name) for name in ("privacy/exposure", "privacy/image_text")]
    target = ScriptedTarget(refuses_text_only)
    assert [suite.name for suite in reachable(private, ["privacy"], target)] == ["privacy/image_text"]
    assert reachable(private, ["privacy/exposure", "privacy"], target) == private
    told = absent_notes(["privacy"], private[1:], target, Dataset("d", rows), reference=False)
    assert any("needs rows that d does not hold" in line and "privacy/deja_vu" not in line for line in told)
    assert any("needs the likelihoods of the model" in line and "privacy/exposure" in line for line in told)


def test_axes_and_short_names_are_suites() -> None:
    assert suites_of(["safety"]) == ["safety/alignment_gap", "safety/over_refusal"]
    assert suites_of(["picture_naming", "utility"]) == [
        "utility/picture_naming",
        "utility/instructions",
        "utility/object_presence",
    ]
    with pytest.raises(UnknownName, match="aligment_gap"):
        suites_of(["safety/aligment_gap"])


KILLED = """
import os, sys
from pathlib import Path
from tests.audit.test_run import MOSTLY, by_length
from vlmend.audit.run import audit
from vlmend.testing import ScriptedTarget
count = 0
def script(conversation, mended):
    global count
    count += 1
    if count == 42:
        os.kill(os.getpid(), 9)
    return by_length(conversation, mended)
audit(ScriptedTarget(script), MOSTLY, Path(sys.argv[1]), batch=4)
"""

MOSTLY = Plan(("safety",), limit=10)


def by_length(conversation: Conversation, mended: bool) -> str:
    return REFUSAL if len(conversation.turns[0].text) % 3 else "Sure, like this."


def test_kill_9_asks_no_finished_sample_again_and_changes_no_number(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    finished = len((tmp_path / "killed" / "replies.jsonl").read_text().splitlines())
    assert 38 <= finished <= 41  # all of the 41 answered but those of the batch under way, four at most
    resumed, whole = ScriptedTarget(by_length), ScriptedTarget(by_length)
    card = audit(resumed, MOSTLY, tmp_path / "killed", batch=4)
    assert card == audit(whole, MOSTLY, tmp_path / "whole", batch=4)
    assert len(whole.asked.conversations) == 90
    assert len(resumed.asked.conversations) == 90 - finished


def test_a_cut_off_last_line_of_the_journal_is_asked_again(tmp_path: Path) -> None:
    target = ScriptedTarget(refuses_text_only)
    whole = audit(target, Plan((GAP,), limit=2), tmp_path)
    journal = tmp_path / "replies.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    before = len(target.asked.conversations)
    assert audit(target, Plan((GAP,), limit=2), tmp_path) == whole
    assert len(target.asked.conversations) - before == 1


FULL = """
import resource, sys
from pathlib import Path
from tests.audit.test_run import MOSTLY, by_length
from vlmend.audit.run import audit
from vlmend.errors import RunProblem
from vlmend.testing import ScriptedTarget
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))  # no file may grow beyond this
try:
    audit(ScriptedTarget(by_length), MOSTLY, Path(sys.argv[1]), batch=4)
except RunProblem as problem:
    print(problem)
"""


def test_a_full_disk_is_one_message_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "full")]
    full = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert full.returncode == 0, full.stderr
    assert "cannot be written (File too large)" in full.stdout
    assert "Make room" in full.stdout
    finished = len(Records(tmp_path / "full" / "replies.jsonl", REPLY).rows)
    assert 0 < finished < 90
    resumed, whole = ScriptedTarget(by_length), ScriptedTarget(by_length)
    card = audit(resumed, MOSTLY, tmp_path / "full", batch=4)
    assert card == audit(whole, MOSTLY, tmp_path / "whole", batch=4)
    assert len(resumed.asked.conversations) == 90 - finished


HELD = """
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from tests.audit.test_run import GAP, by_length
from vlmend.audit.plan import Plan, suites_of
from vlmend.audit.run import audit
from vlmend.testing import ScriptedTarget
def script(conversation, mended):
    print("asked", flush=True)
    sys.stdin.readline()
    return by_length(conversation, mended)
audit(ScriptedTarget(script), Plan((GAP,), limit=1), Path(sys.argv[1]), batch=64)
"""


def test_a_second_process_on_a_run_folder_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    root, pipe = Path(__file__).parents[2], subprocess.PIPE
    with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "asked\n"
        with pytest.raises(RunProblem, match="Another process"):
            audit(ScriptedTarget(by_length), Plan((GAP,), limit=1), tmp_path)
        first.kill()
    assert audit(ScriptedTarget(by_length), Plan((GAP,), limit=1), tmp_path).rows


def test_requests_asked_several_times_have_intervals_over_requests(tmp_path: Path) -> None:
    """Each of ten requests has the same outcome four times: four times the answers, not four times the evidence."""
    once = audit(ScriptedTarget(by_length), Plan((GAP,), limit=10), tmp_path / "once")
    often = audit(ScriptedTarget(by_length), Plan((GAP,), limit=10, temperature=1.0, epochs=4), tmp_path / "often")
    for one, many in zip(once, often, strict=True):
        assert (many.n, many.value) == (4 * one.n, pytest.approx(one.value))
        wide = wilson(round(many.value * many.n), many.n)
        assert many.high - many.low > 1.3 * (wide.high - wide.low)


def test_epochs_without_a_temperature_are_refused() -> None:
    with pytest.raises(BadParameter, match="temperature"):
        Plan(epochs=3)


def test_another_judge_reads_the_same_replies_without_asking_the_model(tmp_path: Path) -> None:
    target = ScriptedTarget(by_length)
    card = audit(target, MOSTLY, tmp_path, judges=made_judges(["rules"]))
    asked = len(target.asked.conversations)
    again = rejudge(tmp_path, made_judges(["refusal", "rules"]))
    assert len(target.asked.conversations) == asked
    assert {row.judge for row in again} == {"refusal-1"}
    assert again.others == card.rows
    assert {(pair["a"], pair["b"]) for pair in again.judges} == {("refusal-1", "rules-2")}
    assert all(pair["n"] > 0 for pair in again.judges)
    sample = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])
    assert set(sample["verdicts"]) == {"refusal-1", "rules-2"}


def test_a_run_that_an_older_version_wrote_is_judged_by_what_was_wanted(tmp_path: Path) -> None:
    audit(ScriptedTarget(by_length), Plan((GAP,), limit=2), tmp_path, judges=made_judges(["rules"]))
    file = tmp_path / "samples.jsonl"
    new = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "request"}) + "\n" for row in new))
    replace(Scorecard.load(tmp_path / "scorecard.json"), made_from={}).save(tmp_path / "scorecard.json")
    rejudge(tmp_path, made_judges(["rules"]))
    assert [json.loads(line) for line in file.read_text().splitlines()] == new
    assert any(row["prompt"] != row["request"] for row in new)


def test_inspect_logs_are_written_from_the_records_with_every_judges_verdict(tmp_path: Path) -> None:
    audit(ScriptedTarget(by_length), Plan(("safety",), limit=2), tmp_path, judges=made_judges(["rules"]))
    rejudge(tmp_path, made_judges(["refusal", "rules"]))
    logs = {read_eval_log(info).eval.task: read_eval_log(info) for info in list_eval_logs(str(tmp_path / "logs"))}
    assert set(logs) == {"vlmend/alignment_gap", "vlmend/over_refusal"}
    log = logs["vlmend/alignment_gap"]
    assert log.results is not None
    assert log.samples is not None
    assert [score.name for score in log.results.scores] == ["refusal-1", "rules-2"]
    assert len(log.samples) == 10
    held = {row["id"]: row for row in map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())}
    for sample in log.samples:
        said = {name: (score.metadata or {})["label"] for name, score in (sample.scores or {}).items()}
        assert said == {judge: word["label"] for judge, word in held[str(sample.id)]["verdicts"].items()}
    assert [s.id for s in read_eval_log_sample_summaries(logs["vlmend/over_refusal"].location)]


def test_a_log_of_many_samples_has_scores_too(tmp_path: Path) -> None:
    rows = tuple(Example(f"r{k}", f"request number {k}", "benign") for k in range(600))
    plan = Plan(("safety/over_refusal",), data=Dataset("many", rows))
    audit(ScriptedTarget(by_length), plan, tmp_path, judges=made_judges(["rules"]))
    [info] = list_eval_logs(str(tmp_path / "logs"))
    log = read_eval_log(info)
    assert log.samples is not None
    assert len(log.samples) == 1200
    assert all(sample.scores for sample in log.samples)


def test_long_logs_are_in_parts_that_hold_every_sample_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmend.audit.inspect.logs.PART", 4)
    rows = tuple(Example(f"r{k}", f"request number {k}", "benign") for k in range(5))
    plan = Plan(("safety/over_refusal",), data=Dataset("several", rows))
    audit(ScriptedTarget(by_length), plan, tmp_path, judges=made_judges(["rules"]))
    logs = [read_eval_log(info) for info in list_eval_logs(str(tmp_path / "logs"))]
    assert sorted(len(log.samples or ()) for log in logs) == [2, 4, 4]
    assert len({log.eval.eval_id for log in logs}) == 3
    asked = [str(sample.id) for log in logs for sample in log.samples or ()]
    assert sorted(asked) == sorted(f"r{k}:{how}" for k in range(5) for how in ("query", "original"))
