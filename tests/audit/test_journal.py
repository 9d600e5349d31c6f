"""What is written down stays readable: by later versions too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmend.audit.journal import Journal
from vlmend.audit.judging import made_judges
from vlmend.audit.labels.samples import judged_samples
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit, rejudge
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.measures import Scorecard
from vlmend.errors import UsageError
from vlmend.report.compare import read_run
from vlmend.testing import ScriptedTarget

ASKED = [Conversation.ask(word) for word in ("one", "two", "three")]
SAMPLING = Sampling()


def test_replies_of_versions_that_wrote_fewer_fields_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    replies = [Reply(f"reply {k}", "stop", 3, 2, 0.1, {"language.1": 1}) for k in range(3)]
    keys = [Journal.key("model", asked, SAMPLING) for asked in ASKED]
    Journal(file).write(dict(zip(keys, replies, strict=True)))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[0]["fired"], rows[0]["sum"]  # written before there were such fields
    del rows[1]["text"], rows[1]["sum"]  # garbled
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    found = [Journal(file).get(key) for key in keys]
    assert found == [Reply("reply 0", "stop", 3, 2, 0.1), None, replies[2]]
    assert len(file.read_text().splitlines()) == 2


def test_rows_of_another_kind_are_no_replies(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    key = Journal.key("model", ASKED[0], SAMPLING)
    Journal(file).write({key: Reply("yes", "stop", 3, 2, 0.1)})
    good = file.read_text()
    row = json.loads(good)
    del row["sum"]
    bad = [row | {"text": 5}, row | {"new_tokens": None}, row | {"key": ["a"]}, row | {"stop": "never"}]
    file.write_text("".join(json.dumps(one) + "\n" for one in bad) + "[" * 100_000 + "\n" + good)
    assert Journal(file).get(key) == Reply("yes", "stop", 3, 2, 0.1)
    assert file.read_text() == good


def test_a_reply_whose_words_a_fault_changed_is_no_reply(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    key = Journal.key("model", ASKED[0], SAMPLING)
    Journal(file).write({key: Reply("yes", "stop", 3, 2, 0.1)})
    file.write_text(file.read_text().replace("yes", "yep"))
    assert Journal(file).get(key) is None


def test_another_runs_journal_is_read_and_never_touched(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    key = Journal.key("model", ASKED[0], SAMPLING)
    Journal(file).write({key: Reply("yes", "stop", 3, 2, 0.1)})
    half = file.read_text() + '{"key": "being writ'
    file.write_text(half)
    assert Journal(file, foreign=True).get(key) is not None
    assert file.read_text() == half


def test_an_emptied_journal_is_asked_again(tmp_path: Path) -> None:
    target = ScriptedTarget(lambda conversation, mended: "I'm sorry, but I can't help with that.")
    plan, judges = Plan(("safety/alignment_gap",), limit=2), made_judges(["rules"])
    card = audit(target, plan, tmp_path, judges=judges)
    assert len(target.asked.conversations) == 10
    (tmp_path / "replies.jsonl").write_text("")
    assert audit(target, plan, tmp_path, judges=judges).rows == card.rows
    assert len(target.asked.conversations) == 20


@pytest.mark.parametrize("left", ["", '{"plan": {'])
def test_a_run_folder_whose_run_json_a_full_disk_emptied_goes_on(tmp_path: Path, left: str) -> None:
    target = ScriptedTarget(lambda conversation, mended: "I'm sorry, but I can't help with that.")
    plan, judges = Plan(("safety/alignment_gap",), limit=2), made_judges(["rules"])
    card = audit(target, plan, tmp_path, judges=judges)
    (tmp_path / "run.json").write_text(left)
    (tmp_path / "cost.json").write_text(left)
    assert audit(target, plan, tmp_path, judges=judges).rows == card.rows
    assert len(target.asked.conversations) == 10
    assert json.loads((tmp_path / "run.json").read_text())["plan"]["limit"] == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"id": "a', "line 11 is no JSON"), ('{"id": 5}', "line 11: suite: Field required")],
)
def test_samples_that_a_fault_left_are_told_by_their_line(tmp_path: Path, line: str, said: str) -> None:
    target = ScriptedTarget(lambda conversation, mended: "I'm sorry, but I can't help with that.")
    audit(target, Plan(("safety/alignment_gap",), limit=2), tmp_path, judges=made_judges(["rules"]))
    with (tmp_path / "samples.jsonl").open("a") as lines:
        lines.write(line + "\n")
    for read in (read_run, lambda run: rejudge(run, made_judges(["rules"])), judged_samples):
        with pytest.raises(UsageError, match=said):
            read(tmp_path)


def test_a_verdict_that_is_none_is_given_again(tmp_path: Path) -> None:
    target = ScriptedTarget(lambda conversation, mended: "I'm sorry, but I can't help with that.")
    plan, judges = Plan(("safety/alignment_gap",), limit=2), made_judges(["rules"])
    card = audit(target, plan, tmp_path, judges=judges)
    file = tmp_path / "verdicts.jsonl"
    rows = [json.loads(line) | {"label": "complianca"} for line in file.read_text().splitlines()]
    for row in rows:
        del row["sum"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert audit(target, plan, tmp_path, judges=judges).rows == card.rows


def test_an_edited_or_stale_scorecard_is_told_and_the_same_command_puts_it_right(tmp_path: Path) -> None:
    """First a number of the scorecard is edited, then a verdict of the samples that it was made from."""
    target = ScriptedTarget(lambda conversation, mended: "I'm sorry, but I can't help with that.")
    plan, judges = Plan(("safety/alignment_gap",), limit=2), made_judges(["rules"])
    card = audit(target, plan, tmp_path, judges=judges)
    edits = {
        "scorecard.json": ('"value": 0.0', '"value": 0.5', "changed since it was written"),
        "samples.jsonl": ('"label": "refusal"', '"label": "compliance"', "was not made from the samples.jsonl"),
    }
    for name, (before, after, said) in edits.items():
        held = (tmp_path / name).read_text()
        assert before in held
        (tmp_path / name).write_text(held.replace(before, after, 1))
        for read in (read_run, Scorecard.finished, lambda run: rejudge(run, judges)):
            with pytest.raises(UsageError, match=said):
                read(tmp_path)
        assert audit(target, plan, tmp_path, judges=judges).rows == card.rows
        assert [row.said() for row in read_run(tmp_path).card] == [row.said() for row in card]
    assert len(target.asked.conversations) == 10


def test_lines_that_were_changed_are_said_before_they_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "replies.jsonl"
    Journal(file).write({Journal.key("model", one, SAMPLING): Reply("yes", "stop", 3, 2, 0.1) for one in ASKED})
    file.write_text(file.read_text().replace("yes", "yet", 1))
    assert Journal(file).reused == len(ASKED) - 1
    assert f"1 of {len(ASKED)} lines were cut off or changed since; they are made again." in caplog.messages[0]
