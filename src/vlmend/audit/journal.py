"""Every finished reply, written down before anyone sees it.

The journal is what makes a killed run lose nothing: a request that is in it is never asked again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from vlmend.audit.records import Records
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.errors import SampleError

__all__ = ["Journal"]


class Journal:
    """Replies of one run folder, keyed by model, mends, words, images and sampling.

    Args:
        file: JSONL file; read if it is there.

    Requests that have no reply, and why, are in `problems.jsonl` beside it.

    Attributes:
        reused: Replies that were there when it was opened.
    """

    def __init__(self, file: Path) -> None:
        later = frozenset(field.name for field in fields(Reply) if field.default_factory is not MISSING)
        self._records = Records(file, frozenset(field.name for field in fields(Reply)) - later, optional=later)
        self._problems = Records(file.with_name("problems.jsonl"), frozenset({"message", "hint"}))
        self.reused = len(self._records.rows)

    def get(self, target_id: str, conversation: Conversation, sampling: Sampling) -> Reply | None:
        """The reply of an earlier run to exactly this request."""
        row = self._records.rows.get(_key(target_id, conversation, sampling))
        return None if row is None else Reply(**row)

    def problem(self, target_id: str, conversation: Conversation, sampling: Sampling) -> SampleError | None:
        """Why exactly this request has no reply, where that was noted."""
        row = self._problems.rows.get(_key(target_id, conversation, sampling))
        return None if row is None else SampleError(**row)

    def note(self, target_id: str, conversation: Conversation, sampling: Sampling, problem: SampleError) -> None:
        """Write down why a request has no reply; it is not asked again in this folder."""
        key = _key(target_id, conversation, sampling)
        self._problems.write([{"key": key, "message": problem.message, "hint": problem.hint}])

    def replies(self) -> list[Reply]:
        """Every reply that is written down."""
        return [Reply(**row) for row in self._records.rows.values()]

    def write(self, rows: list[tuple[str, Conversation, Sampling, Reply]]) -> None:
        """Append a batch and sync it to disk.

        Raises:
            RunProblem: The disk is full or gone; what was written before stays good.
        """
        self._records.write(
            [{"key": _key(target_id, asked, how)} | asdict(reply) for target_id, asked, how, reply in rows]
        )


def _key(target_id: str, conversation: Conversation, sampling: Sampling) -> str:
    text = json.dumps([target_id, conversation.digest, asdict(sampling)])
    return hashlib.sha256(text.encode()).hexdigest()
