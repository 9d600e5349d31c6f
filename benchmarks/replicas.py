"""What Ray costs a server, and what a second replica gains: tokens a second and waiting times, in turns in one run.

    python benchmarks/replicas.py [--model phantom-mini] [--at-once 1 8] [--rounds 3] [--write docs/performance.md]

Three servers of one model: `vlmend serve`, and the same with `--ray local` at one replica and at two. All are up
together, and one is asked at a time, by streams over HTTP. Each model has one thread. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from serving_peers import running
from timing import Table, machine, shown_ratio, write_tables

from serving import TOKENS, Answered, asked_together
from vlmend import registry

ALONE = "vlmend serve"
RAY = {"--ray, 1 replica": 1, "--ray, 2 replicas": 2}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="phantom-mini")
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = str(registry.model_folder(asked.model))
    command = [
        sys.executable,
        "-m",
        "vlmend",
        "serve",
        folder,
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--queue",
        "256",
    ]
    one, two = ([*command, "--ray", "local", "--replicas", str(count)] for count in RAY.values())
    with running(command) as alone, running(one) as ray, running(two) as rays:
        servers = dict(zip((ALONE, *RAY), (alone, ray, rays), strict=True))
        table = asyncio.run(measured(asked.model, servers, asked.at_once, asked.rounds))
    print(table.markdown)
    if asked.write:
        write_tables(asked.write, [table])


async def measured(model: str, servers: dict[str, str], at_once: Sequence[int], rounds: int) -> Table:
    """A row for each server and number of requests at a time."""
    rows: list[tuple[str, ...]] = []
    async with httpx.AsyncClient(timeout=1200, trust_env=False, limits=httpx.Limits(max_connections=None)) as client:
        for number in at_once:
            speeds: dict[str, list[float]] = {name: [] for name in servers}
            answers: dict[str, list[Answered]] = {name: [] for name in servers}
            for turn in range(rounds + 1):
                for name in random.Random(turn).sample([*servers], len(servers)):
                    began = time.perf_counter()
                    found = await asked_together(client, servers[name], ["base"], number, turn)
                    took = time.perf_counter() - began
                    if turn:
                        speeds[name].append(sum(one.tokens for one in found) / took)
                        answers[name] += found
                    print(number, turn, name, f"{took:.1f} s", file=sys.stderr, flush=True)
            said = {name: [one.text for one in found] for name, found in answers.items()}
            assert all(texts == said[ALONE] for texts in said.values()), "the servers wrote different replies"
            rows += [row(number, name, speeds, answers[name]) for name in servers]
    columns = ("at a time", "server", "tokens/s", f"ratio to {ALONE}", "first token p50, s", "p95", "reply p50, s",
               "p95")  # fmt: skip
    how = f"each request with a picture of its own, at most {TOKENS} new tokens, {rounds} rounds in turns"
    return Table(f"replicas {model}", columns, tuple(rows), (f"{model}; {how}; the same replies.", machine(rounds)))


def row(number: int, name: str, speeds: dict[str, list[float]], answers: Sequence[Answered]) -> tuple[str, ...]:
    """What one server came to."""
    ratio = [mine / base for mine, base in zip(speeds[name], speeds[ALONE], strict=True)]
    firsts, wholes = ([getattr(one, field) for one in answers] for field in ("first_s", "seconds"))
    waits = [f"{np.percentile(found, p):.2f}" for found in (firsts, wholes) for p in (50, 95)]
    return str(number), name, f"{median(speeds[name]):.1f}", shown_ratio(ratio), *waits


if __name__ == "__main__":
    main()
