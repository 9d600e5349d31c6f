"""What dividing an audit costs: processor time of a request in its shard, and in the run that reads all shards.

    python benchmarks/shards.py [--rows 1000] [--shards 8] [--judge rules] [--write docs/performance.md]

A target that answers at once: all that is counted is vlmend's own work. Each row is asked twice (words alone, and
beside its picture).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import script
from large import write_rows
from timing import Table, machine, write_tables

from vlmend.audit.judging import made_judges
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.sharding import Shard, ask_shard
from vlmend.testing import ScriptedTarget
from vlmend.testing.fakes import Asked


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--judge", nargs="+", default=["rules"])
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder, asked.rows)
        plan = Plan(("safety/over_refusal",), data=str(folder / "rows.jsonl"))

        def part(k: int) -> object:
            return ask_shard(silent(), plan, folder / "parts", Shard(k + 1, asked.shards))

        def judged(out: str) -> object:
            return audit(silent(), plan, folder / out, judges=made_judges(asked.judge))

        judged("warm")
        whole = spent(lambda: judged("whole"))
        shards = [spent(lambda k=k: part(k)) for k in range(asked.shards)]
        merged = spent(lambda: judged("parts"))
        again = spent(lambda: part(0))
    requests = 2 * asked.rows
    rows = [("the audit whole", whole), (f"all {asked.shards} shards together", sum(shards)),
            ("the run that reads them, judges and writes", merged)]  # fmt: skip
    cells = [(name, f"{seconds:.2f}", f"{1000 * seconds / requests:.2f}") for name, seconds in rows]
    cells.append(("one shard once more, all answered", f"{again:.2f}", f"{1000 * again * asked.shards / requests:.2f}"))
    note = f"{requests:,} requests, judged by {', '.join(asked.judge)}."
    columns = ("what", "processor seconds", "ms a request")
    table = Table("shards", columns, tuple(cells), (note, machine(1)))
    print(table.markdown)
    if asked.write:
        write_tables(asked.write, [table])


def silent() -> ScriptedTarget:
    """It keeps nothing of what it is asked."""
    forgetful: Any = Asked(deque(maxlen=0))  # type: ignore[arg-type]
    return ScriptedTarget(script, asked=forgetful)


def spent(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
