"""What run folders hold of each sample, read back and checked: reports, labels and other judges start from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from vlmend.core.contracts import Sample
from vlmend.core.files import read_json
from vlmend.core.verdicts import VerdictLabel
from vlmend.errors import UsageError

__all__ = ["SHOWN", "is_measured", "read_cost", "read_measured", "read_samples", "read_shown"]

SHOWN = "shown.json"
"""Which samples of a run stand side by side in pictures."""


class _Said(BaseModel):
    label: VerdictLabel
    reason: str = ""


class _Asked(BaseModel):
    """A row of `samples.jsonl`; fields with a default are not in those of every version."""

    model_config = ConfigDict(extra="allow")

    suite: str
    id: str
    condition: str
    group: str
    label: VerdictLabel
    prompt: str
    reply: str
    category: str = ""
    reason: str = ""
    stop: str = ""
    problem: str = ""
    asked: str = ""
    target: tuple[str, ...] = ()
    prompt_tokens: int = 0
    new_tokens: int = 0
    fired: int = 0
    request: str = ""
    verdicts: dict[str, _Said] | None = None
    image: str | None = None


class _Measured(BaseModel):
    """A row of `measured.jsonl`."""

    key: str
    suite: str = ""
    samples: list[Sample]


class _Shown(BaseModel):
    """A sample in `shown.json`; a picture that could not be read has no file."""

    id: str
    text: str
    by: str
    pictures: list[tuple[str, str | None]]


_SHOWN = TypeAdapter(dict[str, list[_Shown]])


class _Cost(BaseModel):
    """What `cost.json` holds; fields with a default are not in those of every version."""

    model_config = ConfigDict(extra="allow")

    requests: int = 0
    new_tokens: int = 0
    prompt_tokens: int = 0
    model_seconds: float = 0.0
    engine_seconds: float = 0.0
    energy_joules: float | None = None
    requests_per_second: float | None = None
    last_invocation_seconds: float = 0.0
    reused_replies: int = 0
    per_1000_requests: dict[str, float | None] | None = None


def read_cost(run: Path) -> dict[str, Any]:
    """What a run's `cost.json` holds; nothing where it is not there, was cut off or is garbled."""
    held = read_json(run / "cost.json")
    try:
        _Cost.model_validate(held)
    except ValidationError:
        return {}
    return held


def read_samples(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's `samples.jsonl`: questions, replies and verdicts; none where the run asked nothing.

    Raises:
        UsageError: A row was cut off, garbled or holds what it cannot; which one and what is told.
    """
    return _read(run / "samples.jsonl", _Asked)


def read_measured(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's `measured.jsonl`: the samples of each suite that measures by itself.

    Raises:
        UsageError: As for `read_samples`.
    """
    return _read(run / "measured.jsonl", _Measured)


def read_shown(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Of each suite the samples that a page shows in pictures; nothing where the file is not there or is garbled."""
    held = read_json(run / SHOWN)
    try:
        _SHOWN.validate_python(held)
    except ValidationError:
        return {}
    return held  # type: ignore[no-any-return]


def is_measured(row: Mapping[str, Any]) -> bool:
    """Whether a row of `measured.jsonl` holds samples that can be used."""
    try:
        _Measured.model_validate(row)
    except ValidationError:
        return False
    return True


def _read(file: Path, kind: type[BaseModel]) -> list[dict[str, Any]]:
    try:
        lines = file.read_bytes().split(b"\n") if file.exists() else []
    except OSError as problem:
        raise _unreadable(file, str(problem.strerror)) from problem
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
            kind.model_validate(rows[-1])
        except ValidationError as problem:
            first = problem.errors()[0]
            place = ".".join(map(str, first["loc"])) or "row"
            raise _unreadable(file, f"line {number}: {place}: {first['msg']}") from problem
        except (ValueError, RecursionError) as problem:
            raise _unreadable(file, f"line {number} is no JSON") from problem
    return rows


def _unreadable(file: Path, what: str) -> UsageError:
    return UsageError(
        f"{file} cannot be read ({what}).",
        "Run the audit of this folder again: it writes the file anew, and no reply that is kept is asked for again.",
    )
