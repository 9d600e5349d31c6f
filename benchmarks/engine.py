"""What the audit engine costs beside the model: time a request, and memory as samples grow.

    python benchmarks/engine.py [--requests 1000 5000] [--write docs/performance.md]

A scripted target answers at once, so all time is the engine's: tasks, queue, journal, logs, verdicts by
rules, scorecard. Each size runs in a process of its own; memory is its peak resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Table, machine, write_tables

from vlmend.audit.judging import made_judges
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation
from vlmend.core.provenance import versions
from vlmend.testing import ScriptedTarget

WORDS = "You could start by asking a friend, then write down what you know and what you need. "


def main() -> None:
    """Print the table; one process a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measured(arguments.one)))
        return
    rows = [one_process(count) for count in arguments.requests]
    columns = ("requests", "seconds", "ms a request", "peak memory, MB")
    cells = [
        (str(r["requests"]), f"{r['seconds']:.1f}", f"{1000 * r['seconds'] / r['requests']:.2f}", f"{r['peak_mb']:.0f}")
        for r in rows
    ]
    table = Table("engine", columns, tuple(cells), (f"inspect-ai {versions()['inspect-ai']}; {machine(1)}",))
    print(table.markdown)
    if arguments.write is not None:
        write_tables(arguments.write, [table])


def one_process(count: int) -> dict[str, float]:
    """Measure one size in a fresh process, so that peaks do not add up."""
    command = [sys.executable, __file__, "--one", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(count: int) -> dict[str, float]:
    """Audit `count` text requests on a target that costs nothing."""

    def script(conversation: Conversation, mended: bool) -> str:
        return WORDS

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        rows = ({"id": f"r{k}", "prompt": f"harmless request number {k}", "label": "benign"} for k in range(count // 2))
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        plan = Plan(("safety/over_refusal",), data=str(data))
        began = time.monotonic()
        audit(ScriptedTarget(script), plan, Path(folder) / "run", judges=made_judges(["rules"]))
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"requests": count, "seconds": seconds, "peak_mb": peak}


if __name__ == "__main__":
    main()
