"""Every finished reply, written down before anyone sees it.

The journal is what makes a killed run lose nothing: a request that is in it is never asked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from vlmend.audit.records import Records
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.typed import made

__all__ = ["Journal"]

REPLY = frozenset(field.name for field in fields(Reply))


class Journal:
    """Replies of one run folder, keyed by target, mends, words, images and sampling.

    Args:
        file: JSONL file; read if it is there.
        foreign: It belongs to another run: it is read and never touched.

    Attributes:
        reused: Replies that were there when it was opened.
    """

    def __init__(self, file: Path, *, foreign: bool = False) -> None:
        later = frozenset(field.name for field in fields(Reply) if field.default_factory is not MISSING)
        self._records = Records(file, REPLY - later, optional=later, good=_usable, foreign=foreign)
        self.reused = len(self._records.rows)

    @staticmethod
    def key(target: str, conversation: Conversation, sampling: Sampling) -> str:
        """The key of exactly this request to exactly this target (`core.targets.key_of`)."""
        text = json.dumps([target, conversation.digest, asdict(sampling)])
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> Reply | None:
        """The reply of an earlier batch or run."""
        row = self._records.rows.get(key)
        return None if row is None else Reply(**row)

    @property
    def keys(self) -> KeysView[str]:
        """Of the replies that are written down."""
        return self._records.rows.keys()

    def replies(self) -> Iterator[Reply]:
        """Every reply that is written down, read one at a time."""
        return (Reply(**row) for row in self._records.rows.values())

    def write(self, replies: Mapping[str, Reply]) -> None:
        """Append replies by key and sync them to disk.

        Raises:
            RunProblem: The disk is full or gone; what was written before stays good.
        """
        if replies:
            self._records.write([{"key": key} | asdict(reply) for key, reply in replies.items()])


def _usable(row: dict[str, Any]) -> bool:
    """Whether the values of a row are those of a reply; a fault of the disk can leave JSON of another kind."""
    try:
        made(Reply, {name: value for name, value in row.items() if name != "key"})
    except ValueError:
        return False
    return True
