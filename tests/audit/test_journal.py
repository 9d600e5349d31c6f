"""What is written down stays readable: by later versions too."""

from __future__ import annotations

import json
from pathlib import Path

from vlmend.audit.journal import Journal
from vlmend.core.conversation import Conversation, Reply, Sampling

ASKED = [Conversation.ask(word) for word in ("one", "two", "three")]
SAMPLING = Sampling()


def test_replies_of_versions_that_wrote_fewer_fields_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    replies = [Reply(f"reply {k}", "stop", 3, 2, 0.1, {"language.1": 1}) for k in range(3)]
    keys = [Journal.key("model", asked, SAMPLING) for asked in ASKED]
    Journal(file).write(dict(zip(keys, replies, strict=True)))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[0]["fired"]  # written before there was such a field
    del rows[1]["text"]  # garbled
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
    bad = [row | {"text": 5}, row | {"new_tokens": None}, row | {"key": ["a"]}, row | {"stop": "never"}]
    file.write_text("".join(json.dumps(one) + "\n" for one in bad) + "[" * 100_000 + "\n" + good)
    assert Journal(file).get(key) == Reply("yes", "stop", 3, 2, 0.1)
    assert file.read_text() == good


def test_another_runs_journal_is_read_and_never_touched(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    key = Journal.key("model", ASKED[0], SAMPLING)
    Journal(file).write({key: Reply("yes", "stop", 3, 2, 0.1)})
    half = file.read_text() + '{"key": "being writ'
    file.write_text(half)
    assert Journal(file, foreign=True).get(key) is not None
    assert file.read_text() == half
