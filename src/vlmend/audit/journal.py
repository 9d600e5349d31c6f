"""Every finished reply, written down before anyone sees it.

The journal is what makes a killed run lose nothing: a batch is appended and synced to disk before
its replies are handed on, and a request that is in the journal is never asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.errors import RunProblem

__all__ = ["Journal"]


class Journal:
    """Replies of one run folder, keyed by model, mends, words, images and sampling.

    Args:
        file: JSONL file; read if it is there. A last line that was cut off by a kill is dropped.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._replies: dict[str, Reply] = {}
        self.reused = 0
        if not file.exists():
            return
        lines = file.read_bytes().split(b"\n")
        good = [line for line in lines if self._read(line)]
        if len(good) != len([line for line in lines if line]):
            file.write_bytes(b"".join(line + b"\n" for line in good))

    def get(self, target_id: str, conversation: Conversation, sampling: Sampling) -> Reply | None:
        """The reply of an earlier run to exactly this request."""
        reply = self._replies.get(_key(target_id, conversation, sampling))
        self.reused += reply is not None
        return reply

    def replies(self) -> list[Reply]:
        """Every reply that is written down."""
        return list(self._replies.values())

    def write(self, rows: list[tuple[str, Conversation, Sampling, Reply]]) -> None:
        """Append a batch and sync it to disk.

        Raises:
            RunProblem: The disk is full or gone; what was written before stays good.
        """
        keyed = [(_key(target_id, asked, sampling), reply) for target_id, asked, sampling, reply in rows]
        lines = "".join(json.dumps({"key": key} | asdict(reply)) + "\n" for key, reply in keyed)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as out:
                out.write(lines)
                out.flush()
                os.fsync(out.fileno())
        except OSError as problem:
            raise RunProblem(
                f"Replies cannot be written to {self._file} ({problem.strerror}).",
                "Make room and run the same command again: finished replies are kept.",
            ) from problem
        self._replies |= dict(keyed)

    def _read(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
            key = row.pop("key")
            self._replies[key] = Reply(**row)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return True


def _key(target_id: str, conversation: Conversation, sampling: Sampling) -> str:
    text = json.dumps([target_id, conversation.digest, asdict(sampling)])
    return hashlib.sha256(text.encode()).hexdigest()
