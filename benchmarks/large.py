"""How an audit grows with its data: rows of a JSONL file whose pictures are files, a target that answers at once.

    python benchmarks/large.py [--rows 5000 50000]

Each row is asked twice (words alone, and beside its picture), so 50,000 rows are 100,000 requests. Each size is a
process of its own; memory is its peak resident set less what imports took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from engine import peak_mb, script
from timing import Table, machine

from vlmend.audit.judging import made_judges
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.suite import builtin_picture
from vlmend.testing import ScriptedTarget
from vlmend.testing.fakes import Asked

PICTURES = 10


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 50_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measured(arguments.one)))
        return
    cells: list[tuple[str, ...]] = []
    for count in arguments.rows:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, mb, again = json.loads(done.stdout.splitlines()[-1])
        cells.append((f"{2 * count:,}", f"{seconds:.0f}", f"{500 * seconds / count:.2f}", f"{mb:.0f}",
                      f"{500 * mb / count:.2f}", f"{again:.0f}"))  # fmt: skip
        print(cells[-1], file=sys.stderr, flush=True)
    columns = ("requests", "seconds", "ms a request", "memory beyond imports, MB", "KB a request", "resumed, seconds")
    print(Table("large", columns, tuple(cells), (machine(1),)).markdown)


def measured(count: int) -> tuple[float, float, float]:
    """Seconds and megabytes of an audit of so many rows, and seconds of the same command once more."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_rows(folder, count)
        before = peak_mb()
        first = audited(folder)
        return first, peak_mb() - before, audited(folder)


def write_rows(folder: Path, count: int) -> None:
    """`rows.jsonl` and its pictures."""
    for k in range(PICTURES):
        (folder / f"{k}.png").write_bytes(builtin_picture(k)[1].content)
    with (folder / "rows.jsonl").open("w") as out:
        for k in range(count):
            row = {"id": f"r{k}", "prompt": f"harmless request number {k}", "label": "benign"}
            out.write(json.dumps(row | {"image": f"{k % PICTURES}.png"}) + "\n")


def audited(folder: Path) -> float:
    """Seconds of an audit by a target that keeps nothing of what it is asked."""
    forgetful: Any = Asked(deque(maxlen=0))  # type: ignore[arg-type]
    plan, began = Plan(("safety/over_refusal",), data=str(folder / "rows.jsonl")), time.monotonic()
    audit(ScriptedTarget(script, asked=forgetful), plan, folder / "run", judges=made_judges(["rules"]))
    return time.monotonic() - began


if __name__ == "__main__":
    main()
