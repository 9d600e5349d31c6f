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
