"""An append-only file of keyed rows: what is in it is never computed again.

Of a row its key and its place in the file are in memory, and no more. Every batch is synced to disk before anyone sees
it. A last line that a kill cut off, or any line that a fault garbled, is dropped when the file is read, and computed
again: each row carries a sum over all that it holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmend.core.files import append, replacing
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
        self.rows = _Rows(file)
        if not file.exists():
            return
        total, bad, place, line = 0, 0, 0, b"\n"
        with file.open("rb") as held:
            for line in held:
                if words := line.removesuffix(b"\n"):
                    key = self._key(words)
                    total, bad = total + 1, bad + (key is None)
                    if key is not None:
                        self.rows.put(key, place, len(words))
                place += len(line)
        if foreign:
            return
        if bad:
            log.warning("%s: %d of %d lines were cut off or changed since; they are made again.", file, bad, total)
        if bad or not line.endswith(b"\n"):  # what comes next begins a line of its own
            self._put_right(file)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, each with its `key`, and sync them to disk.

        Raises:
            RunProblem: The disk is full or gone; what was written before stays good.
        """
        lines = [json.dumps(row | {SUM: sum_of(row)}) + "\n" for row in rows]
        place = self._file.stat().st_size if self._file.exists() else 0
        append(self._file, "".join(lines))
        for row, line in zip(rows, lines, strict=True):
            self.rows.put(row["key"], place, len(line) - 1)  # what `json` writes is ASCII
            place += len(line)

    def _put_right(self, file: Path) -> None:
        """Leave the good lines alone in the file."""
        place = 0
        with file.open("rb") as held, replacing(file) as out:
            for line in held:
                words = line.removesuffix(b"\n")
                if (key := self._key(words)) is not None:
                    out.write(words + b"\n")
                    self.rows.put(key, place, len(words))
                    place += len(words) + 1

    def _key(self, line: bytes) -> str | None:
        """The key of a good line."""
        row = _parsed(line)
        if row is None:
            return None
        needed = {"key", *self._fields}
        if not needed <= {*map(str, row)} <= needed | self._optional:
            return None
        return row["key"] if isinstance(row["key"], str) and self._good(row) else None


class _Rows(Mapping[str, dict[str, Any]]):
    """Rows by key, without it, each read from the file when it is asked for."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: dict[str, int] = {}

    def put(self, key: str, place: int, length: int) -> None:
        """The row of a key is so many bytes from this place on."""
        self._places[key] = place << 32 | length

    def __getitem__(self, key: str) -> dict[str, Any]:
        held = self._places[key]
        try:
            with self._file.open("rb") as file:
                file.seek(held >> 32)
                row = _parsed(file.read(held & 0xFFFFFFFF))
        except OSError as problem:
            raise KeyError(key) from problem
        if row is None or row.pop("key", None) != key:
            raise KeyError(key)  # another run's file, which that run has put right since
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A row whose sum is right, without it; rows of before have none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    told = row.pop(SUM, None)
    return None if told is not None and told != sum_of(row) else row
