"""What the audit engine costs beside the model: time a request, and memory as samples grow.

    python benchmarks/engine.py [--requests 1000 5000] [--rounds 3] [--write docs/performance.md]

A target answers at once, so all time is the engine's: requests, journal, verdicts by rules, scorecard, Inspect logs.
Beside it, in turns: a bare Inspect evaluation of the same words with its mock model and one scorer, and a plain loop as
lmms-eval runs it (requests in a list, batches, results written once at the end: a kill loses everything). Each run is a
process of its own; memory is its peak resident set, less what the imports alone took.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from timing import Table, machine, write_tables

from vlmend.audit.judging import made_judges
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.provenance import versions
from vlmend.testing import ScriptedTarget

WORDS = "You could start by asking a friend, then write down what you know and what you need. "


def main() -> None:
    """Print the table; one process a run, the ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measured(arguments.one[0], int(arguments.one[1]))))
        return
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for count in arguments.requests:
            for way in WAYS:
                found.setdefault((way, count), []).append(one_process(way, count))
    columns = ("way", "requests", "seconds", "ms a request", "memory beyond imports, MB")
    cells = [_cells(way, count, rows) for (way, count), rows in sorted(found.items(), key=lambda item: item[0][1])]
    told = f"Medians of {arguments.rounds} rounds, ways in turns; inspect-ai {versions()['inspect-ai']}; {machine(1)}"
    table = Table("engine", columns, tuple(cells), (told,))
    print(table.markdown)
    if arguments.write is not None:
        write_tables(arguments.write, [table])


def one_process(way: str, count: int) -> dict[str, float]:
    """One run in a fresh process, so that peaks do not add up."""
    command = [sys.executable, __file__, "--one", way, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(way: str, count: int) -> dict[str, float]:
    """Seconds and megabytes of one way over `count` requests."""
    before = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        WAYS[way](count, Path(folder))
        seconds = time.monotonic() - began
    return {"seconds": seconds, "mb": peak_mb() - before}


def ours(count: int, folder: Path) -> None:
    """An audit: every request text only and beside a picture, journal, verdicts, scorecard, logs."""
    rows = tuple(Example(f"r{k}", f"harmless request number {k}", "benign") for k in range(count // 2))
    plan = Plan(("safety/over_refusal",), data=Dataset("rows", rows))
    audit(ScriptedTarget(script), plan, folder / "run", judges=made_judges(["rules"]))


def bare_inspect(count: int, folder: Path) -> None:
    """The same number of text requests through Inspect alone."""
    from inspect_ai import Task
    from inspect_ai import eval as run
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes

    samples = [Sample(id=f"r{k}", input=f"harmless request number {k}", target="friend") for k in range(count)]
    run(Task(dataset=samples, scorer=includes()), model="mockllm/model", log_dir=str(folder), display="none")


def plain_loop(count: int, folder: Path) -> None:
    """Requests in a list, batches of 32, results written once."""
    target, sampling = ScriptedTarget(script), Sampling()
    asked = [Conversation.ask(f"harmless request number {k}") for k in range(count)]
    rows: list[dict[str, object]] = []
    for start in range(0, count, 32):
        batch: Sequence[Conversation] = asked[start : start + 32]
        replies = target.generate(batch, sampling)
        rows += [{"prompt": c.prompt, "reply": r.text} for c, r in zip(batch, replies, strict=True)]
    (folder / "results.json").write_text(json.dumps(rows))


def script(conversation: Conversation, mended: bool) -> str:
    """One reply to everything."""
    return WORDS


def peak_mb() -> float:
    """Peak resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


WAYS: dict[str, Callable[[int, Path], None]] = {
    "vlmend audit": ours, "bare Inspect": bare_inspect, "plain loop": plain_loop,
}  # fmt: skip


def _cells(way: str, count: int, rows: Sequence[dict[str, float]]) -> tuple[str, ...]:
    seconds, mb = (statistics.median(row[key] for row in rows) for key in ("seconds", "mb"))
    return way, str(count), f"{seconds:.2f}", f"{1000 * seconds / count:.2f}", f"{mb:.0f}"


if __name__ == "__main__":
    main()
