"""An append-only file of keyed rows: what is in it is never computed again.

Every batch is synced to disk before anyone sees it. A last line that a kill cut off, or any line that a fault garbled,
is dropped when the file is read, and computed again: each row carries a sum over all that it holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlmend.core.files import append, write_file
from vlmend.core.jsontext import SUM, sum_of

__all__ = ["Records"]

log = logging.getLogger(__name__)


class Records:
    """Rows of one JSONL file by their `key`.

    Args:
        file: Read if it is there; made at the first write.
        fields: What every good row holds besides its key.
        optional: What it may hold: fields that earlier versions did not write.
        good: Whether the values of a row can be used.
        foreign: It belongs to another run, which may be writing: it is read and never touched.
    """

    def __init__(
        self, file: Path, fields: frozenset[str], optional: frozenset[str] = frozenset(), *,
        good: Callable[[dict[str, Any]], bool] = lambda row: True, foreign: bool = False,
    ) -> None:  # fmt: skip
        self._file = file
        self._fields, self._optional, self._good = fields, optional, good
        self.rows: dict[str, dict[str, Any]] = {}
        if not file.exists():
            return
        lines = [line for line in file.read_bytes().split(b"\n") if line]
        kept = [line for line in lines if self._read(line)]
        if len(kept) != len(lines) and not foreign:
            lost = len(lines) - len(kept)
            log.warning(
                "%s: %d of %d lines were cut off or changed since; they are made again.", file, lost, len(lines)
            )
            write_file(file, b"".join(line + b"\n" for line in kept))

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, each with its `key`, and sync them to disk.

        Raises:
            RunProblem: The disk is full or gone; what was written before stays good.
        """
        append(self._file, "".join(json.dumps(row | {SUM: sum_of(row)}) + "\n" for row in rows))
        for row in rows:
            self._keep(dict(row))

    def _read(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(row, dict):
            return False
        told = row.pop(SUM, None)
        if told is not None and told != sum_of(row):  # rows of before have none
            return False
        needed = {"key", *self._fields}
        if not needed <= {*map(str, row)} <= needed | self._optional:
            return False
        good = isinstance(row["key"], str) and self._good(row)
        if good:
            self._keep(row)
        return good

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows[row.pop("key")] = row
