"""How long the command line takes before a model is loaded: help, lists, and an audit that was asked for wrongly.

    python benchmarks/startup.py [ROUNDS]

Each line is a fresh process, all lines in turn. CPU seconds are of the process alone, so other work on the machine
changes them little; wall seconds are what a user waits on this one.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

CALLS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "audit --help": ["audit", "--help"],
    "list methods": ["list", "methods"],
    "audit with three mistakes": ["audit", "phantm", "--suite", "saftey", "--data", "nope.jsonl"],
    "audit --plan": ["audit", "phantom", "--suite", "safety", "--limit", "4", "--plan"],
}
WRONG = 2
"""Exit code of a call that was asked for wrongly."""


def timed(arguments: list[str], folder: Path) -> tuple[float, float, int]:
    """Wall and CPU seconds of one call, and its exit code."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "vlmend", *arguments], cwd=folder, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(getattr(after, part) - getattr(before, part) for part in ("ru_utime", "ru_stime"))
    return wall, cpu, done.returncode


def main(rounds: int) -> None:
    """Print the table."""
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in CALLS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for name, arguments in CALLS.items():
                found[name].append(timed(arguments, Path(folder)))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {rounds} rounds after a warm-up\n")
    print("| vlmend ... | wall s | CPU s |\n|---|---:|---:|")
    for name, times in found.items():
        codes = {code for *_, code in times}
        if codes != {WRONG if "mistakes" in name else 0}:
            raise SystemExit(f"vlmend {name} left with {codes}")
        print(f"| {name} | {median(t[0] for t in times[1:]):.2f} | {median(t[1] for t in times[1:]):.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
