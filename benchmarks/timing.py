"""Times of things that are compared: run in turns, so that a slow minute of the machine hits them all.

A B C A B C ..., after one warm-up each. Ratios are taken within each round and then their median, which
cancels drift that a ratio of medians would keep. Memory is what torch itself allocates while one call runs,
counted from the profiler's record of every allocation and free: exact, repeatable and blind to what the
process held before.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from vlmend.core.provenance import versions

__all__ = ["Case", "Table", "interleaved", "machine", "peak_bytes", "ratios", "shown_ratio", "write_tables"]

MEGABYTE = 1e6


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        name: What the table calls it.
        work: What is timed.
        around: Entered before the clock starts and left after it stops.
    """

    name: str
    work: Callable[[], object]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Table:
    """One table of results; `name` is its place in the docs page."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.columns) + " |", "|---" * len(self.columns) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    @property
    def json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Table:
        found = json.loads(line)
        rows = tuple(tuple(row) for row in found["rows"])
        return cls(found["name"], tuple(found["columns"]), rows, tuple(found["notes"]))


def interleaved(
    cases: Sequence[Case], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every round of every case, after one warm-up each.

    Args:
        cases: In turns.
        rounds: How many of these.
        clock: `time.process_time` counts what this process computes, where a machine has other work too.
    """
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    for turn in range(rounds + 1):
        for case in cases:
            with case.around():
                began = clock()
                case.work()
                took = clock() - began
            if turn:
                seconds[case.name].append(took)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], name: str, floor: str) -> list[float]:
    """Each round's time over the floor's time in the same round."""
    return [mine / base for mine, base in zip(seconds[name], seconds[floor], strict=True)]


def shown_ratio(found: Sequence[float]) -> str:
    """Median, and the span of the middle half of the rounds."""
    low, high = torch.tensor(found).quantile(torch.tensor([0.25, 0.75])).tolist()
    return f"{median(found):.3f} [{low:.3f}, {high:.3f}]"


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch holds at once of what it allocates during one call, in bytes."""
    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        work()
    results = found.profiler
    assert results is not None
    assert results.kineto_results is not None
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, held)
    return peak


def machine(rounds: int) -> str:
    """One line: what the numbers were measured on, and how."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    cpu = models[0] if models else platform.processor() or platform.machine()
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{cpu}, {torch.get_num_threads()} threads, float32, {rounds} rounds, {load}; {libraries}."


def write_tables(page: Path, tables: Sequence[Table]) -> None:
    """Put each table between `<!-- table: NAME -->` and `<!-- end -->` of a page.

    Raises:
        ValueError: The page has no such place.
    """
    text = page.read_text()
    for table in tables:
        place = re.compile(rf"(<!-- table: {re.escape(table.name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"{page} has no place for the table {table.name}: write <!-- table: {table.name} -->.")
        text = place.sub(lambda found, table=table: f"{found[1]}{table.markdown}\n{found[2]}", text)
    page.write_text(text)
