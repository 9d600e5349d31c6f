"""What a run cost: time, tokens, and energy where the machine can tell.

Kept apart from the scorecard, which must not vary from run to run.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmend.audit.journal import Journal
from vlmend.core.files import write_json
from vlmend.core.samples import read_cost

__all__ = ["energy_joules", "metered"]

RAPL = Path("/sys/class/powercap")
"""Linux's counters of the energy that processor packages used (Running Average Power Limit)."""


@contextmanager
def metered(file: Path, journal: Journal) -> Generator[None]:
    """Time the asking in this block and write the totals over all invocations to `cost.json`.

    `engine_seconds` is what was not spent in the model: tasks, journal, logs, waiting. Energy is that of
    the whole processor while the block ran, other programs included, and null where it cannot be read
    (no Linux, no permission) or the counter overflowed.
    """
    before = read_cost(file.parent)
    known = sum(reply.seconds for reply in journal.replies())
    began, joules = time.monotonic(), energy_joules()
    try:
        yield
    finally:
        seconds = time.monotonic() - began
        used = _difference(joules, energy_joules())
        _write(file, journal, before, seconds, known, used)


def energy_joules(folder: Path = RAPL) -> float | None:
    """Sum of the package counters in joules since some moment, or None."""
    counters = sorted(folder.glob("intel-rapl:[0-9]/energy_uj")) if folder.exists() else []
    try:
        return sum(int(file.read_text()) for file in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or after < before else after - before


def _write(
    file: Path, journal: Journal, before: dict[str, Any], seconds: float, known: float, joules: float | None
) -> None:
    n, tokens, prompt_tokens, model_seconds = 0, 0, 0, 0.0
    for reply in journal.replies():
        n, tokens, prompt_tokens = n + 1, tokens + reply.new_tokens, prompt_tokens + reply.prompt_tokens
        model_seconds += reply.seconds
    in_model = model_seconds - known
    engine = before.get("engine_seconds", 0.0) + max(0.0, seconds - in_model)
    so_far = before.get("energy_joules", 0.0)
    energy = None if joules is None or so_far is None else so_far + joules
    cost = {
        "requests": n,
        "new_tokens": tokens,
        "prompt_tokens": prompt_tokens,
        "model_seconds": round(model_seconds, 3),
        "engine_seconds": round(engine, 3),
        "energy_joules": energy,
        "requests_per_second": round(n / (model_seconds + engine), 3) if n else None,
        "last_invocation_seconds": round(seconds, 3),
        "reused_replies": journal.reused,
        "per_1000_requests": {
            "seconds": round(1000 * (model_seconds + engine) / n, 1),
            "new_tokens": round(1000 * tokens / n),
            "watt_hours": None if energy is None else round(1000 * energy / 3600 / n, 2),
        } if n else None,
    }  # fmt: skip
    write_json(file, cost)
