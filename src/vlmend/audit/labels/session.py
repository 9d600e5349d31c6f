"""A labelling session: what comes next, what was said, what is taken back, and the file that keeps it.

What is asked, and what a label of it can be, are an `Asked` and its `Row`: replies in `labelling`, pairs in `pairs`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlmend.audit.labels.samples import Key
from vlmend.core.files import append
from vlmend.errors import BadData, BadParameter

__all__ = ["Asked", "HumanLabel", "LabelRow", "Row", "Session", "Shown", "label_file", "read_rows", "rows_in"]

HumanLabel = Literal["compliance", "partial", "refusal", "off_topic", "unscored"]
"""What a person can say; `unscored` is "cannot tell"."""

SHOWN = 5
"""Bad rows that an error lists in full."""

Shown = Callable[[str | None], str | None]
"""Gives an image's content, as an address that a page can show, for the name of its file."""


class Row(BaseModel):
    """One line of a labels file: a person's word on a thing, or None where it was taken back.

    Attributes:
        digest: SHA-256 over the words that were read, without images.
        seconds: How long they were looked at.
        labeller: Who gave it.
        at: When, in UTC.
        image: As in the item that was asked.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    label: Any
    seconds: float = Field(0.0, ge=0)
    labeller: str = ""
    at: str = ""
    image: str | None = None

    @property
    def key(self) -> Key:
        return self.digest, self.image


class LabelRow(Row):
    """A person's word on a reply.

    Attributes:
        strata, chosen: As in `labelling.Item`.
    """

    label: HumanLabel | None
    strata: tuple[str, ...] = ()
    chosen: str = ""


R = TypeVar("R", bound=Row)


class Asked(Protocol):
    """What a session asks about."""

    @property
    def key(self) -> Key:
        """What its label is kept by."""
        ...

    def row(self, label: str | None, **told: Any) -> Row:
        """The line for a label that the page sent; `told` are the fields that every row has.

        Raises:
            ValidationError: It is no label of this kind.
        """
        ...

    def shown(self, image: Shown) -> dict[str, Any]:
        """All that the page gets of it."""
        ...


class Session:
    """A queue and the file that the labels go to: what comes next, what was said, what is taken back.

    Args:
        queue: What to ask.
        file: Labels file; read if it is there. A last line that was cut off is dropped.
        kind: What its lines are.
    """

    def __init__(self, queue: Sequence[Asked], file: Path, kind: type[Row] = LabelRow) -> None:
        self.queue = tuple(queue)
        self._file = file
        self._labels: dict[Key, Row] = {}
        if file.exists():
            _drop_cut_line(file)
            self._labels = dict(rows_in(file, kind))
        place = {item.key: index for index, item in enumerate(self.queue)}
        self._history = [place[key] for key in self._labels if key in place]
        self._skipped: set[int] = set()
        self._returned: int | None = None

    @property
    def done(self) -> int:
        """Labelled items of this queue."""
        return sum(item.key in self._labels for item in self.queue)

    @property
    def skipped(self) -> int:
        """Items skipped since the session began; the next session offers them again."""
        return len(self._skipped)

    def current(self) -> int | None:
        """Place in the queue of what to label now, or None at the end."""
        if self._returned is not None:
            return self._returned
        return next((k for k, item in enumerate(self.queue) if self._open(k, item)), None)

    def label(self, index: int, label: str, seconds: float) -> None:
        """Keep a label, synced to disk; a second one for the same thing takes the place of the first.

        Raises:
            ValidationError: It is no label of what is asked.
            RunProblem: It cannot be written.
        """
        self._write(self.queue[index], label, seconds)
        self._did(index)
        self._skipped.discard(index)

    def skip(self, index: int) -> None:
        """Leave an item unlabelled for now."""
        self._skipped.add(index)
        self._did(index)

    def undo(self) -> bool:
        """Take the last label or skip back, also one of an earlier session; False where there is none.

        Raises:
            RunProblem: It cannot be written.
        """
        if not self._history:
            return False
        index = self._history[-1]
        if index in self._skipped:
            self._skipped.remove(index)
        else:
            self._write(self.queue[index], None, 0.0)
        self._history.pop()
        self._returned = index
        return True

    def _open(self, index: int, item: Asked) -> bool:
        return index not in self._skipped and item.key not in self._labels

    def _did(self, index: int) -> None:
        self._history = [*(k for k in self._history if k != index), index]
        self._returned = None

    def _write(self, item: Asked, label: str | None, seconds: float) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = item.row(label, seconds=round(seconds, 1), labeller=self._file.stem, at=now)
        append(self._file, row.model_dump_json() + "\n")
        _apply(self._labels, row)


def label_file(run: Path, name: str) -> Path:
    """Where a labeller's labels are kept.

    Raises:
        BadParameter: The name is no file name.
    """
    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise BadParameter(
            f"{name!r} cannot name a labels file.", "Use up to 64 letters, digits, dots, dashes or underscores."
        )
    return run / "labels" / f"{name}.jsonl"


def rows_in(file: Path, kind: type[R]) -> dict[Key, R]:
    """The rows that stand, the one given last at the end; of two for the same thing the later one.

    Raises:
        BadData: See `read_rows`.
    """
    standing: dict[Key, R] = {}
    for row in read_rows(file, kind):
        _apply(standing, row)
    return standing


def read_rows(file: Path, kind: type[R]) -> list[R]:
    """Every row of a labels file in the order written; a last line that was cut off is left out.

    Raises:
        BadData: The file cannot be read, or holds other rows.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadData(f"{file} cannot be read ({problem}).", "Pass a file that `vlmend label` wrote.") from problem
    rows: list[R] = []
    bad: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        try:
            rows += [kind.model_validate_json(line)] if line.strip() else []
        except ValidationError as problem:
            first = problem.errors()[0]
            cut = number == len(lines)
            bad += [] if cut else [f"line {number}: {'.'.join(map(str, first['loc'])) or 'row'}: {first['msg']}"]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadData(
            f"{file} is no labels file ({'; '.join(bad[:SHOWN])}{more}).",
            "Take these lines out: their replies are then asked for again.",
        )
    return rows


def _apply(standing: dict[Key, R], row: R) -> None:
    standing.pop(row.key, None)
    if row.label is not None:
        standing[row.key] = row


def _drop_cut_line(file: Path) -> None:
    """So that the next row starts on a line of its own."""
    content = file.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)
