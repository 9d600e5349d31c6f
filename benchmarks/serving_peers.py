"""Our server beside `transformers serve`: the same model, requests and number at a time, in turns in one run.

    python benchmarks/serving_peers.py [--model phantom] [--at-once 1 8] [--rounds 2] [--write docs/performance.md]

Both load the model in float32 on the CPU and answer greedily, in streams. The other server runs in an environment of
its own that adds what transformers asks for (`openai`). Its continuous batching is for models of text alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from peers import peer_python
from timing import Table, machine, shown_ratio, write_tables

from serving import TOKENS, Answered, asked_together
from vlmend import registry

OURS, THEIRS = "vlmend serve", "transformers serve"
PACKAGES = ("openai==3.57.0", "jiter==0.19.0")
READY_S = 300


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="phantom")
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    folder = str(registry.model_folder(asked.model))
    ours = [sys.executable, "-m", "vlmend", "serve", folder, "--device", "cpu", "--dtype", "float32", "--queue", "256"]
    theirs = [str(peer_python(PACKAGES, "bench-serve")), "-m", "transformers.cli.transformers", "serve", folder,
              "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    with running(ours) as here, running(theirs) as there:
        servers = {OURS: (here, "base"), THEIRS: (there, folder)}
        table = asyncio.run(measured(asked.model, servers, asked.at_once, asked.rounds))
    print(table.markdown)
    if asked.write:
        write_tables(asked.write, [table])


@contextmanager
def running(command: Sequence[str]) -> Generator[str]:
    """A server on a free port, by its address, once it is healthy."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            os.set_blocking(server.stderr.fileno(), False)  # type: ignore[union-attr]
            until = time.monotonic() + READY_S
            while not healthy(address):
                if server.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command}: {(server.stderr.read() or b'').decode()[-2000:]}")  # type: ignore[union-attr]
                time.sleep(0.2)
            yield f"{address}/v1"
        finally:
            server.terminate()


def healthy(address: str) -> bool:
    """Whether a server says that it can be asked."""
    try:
        return httpx.get(f"{address}/health", trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


async def measured(model: str, servers: dict[str, tuple[str, str]], at_once: Sequence[int], rounds: int) -> Table:
    """Of a model, a row for each server and number of requests at a time."""
    rows: list[tuple[str, ...]] = []
    async with httpx.AsyncClient(timeout=1200, trust_env=False, limits=httpx.Limits(max_connections=None)) as client:
        for number in at_once:
            speeds: dict[str, list[float]] = {name: [] for name in servers}
            answers: dict[str, list[Answered]] = {name: [] for name in servers}
            for turn in range(rounds + 1):
                for name in random.Random(turn).sample([*servers], len(servers)):
                    address, known = servers[name]
                    began = time.perf_counter()
                    found = await asked_together(client, address, [known], number, turn, usage=name == OURS)
                    took = time.perf_counter() - began
                    if turn:
                        speeds[name].append(sum(one.tokens for one in found) / took)
                        answers[name] += found
                    print(number, turn, name, f"{took:.1f} s", file=sys.stderr, flush=True)
            pairs = list(zip(answers[OURS], answers[THEIRS], strict=True))
            alike = sum(a.text.strip() == b.text.strip() for a, b in pairs)
            rows += [row(number, name, speeds, answers[name], f"{alike} of {len(pairs)}") for name in servers]
    columns = ("at a time", "server", "tokens/s", f"ratio to {THEIRS}", "first token p50, s", "reply p50, s", "p95",
               "same replies")  # fmt: skip
    how = f"each request with a picture of its own, at most {TOKENS} new tokens, {rounds} rounds in turns"
    note = f"{model}; {how}. Target: 1.5."
    return Table(f"serving_peers {model}", columns, tuple(rows), (note, machine(rounds)))


def row(
    number: int, name: str, speeds: dict[str, list[float]], answers: Sequence[Answered], alike: str
) -> tuple[str, ...]:
    """What one server came to."""
    ratio = [mine / base for mine, base in zip(speeds[name], speeds[THEIRS], strict=True)]
    wholes = [one.seconds for one in answers]
    waits = [median(one.first_s for one in answers), *np.percentile(wholes, (50, 95))]
    return str(number), name, f"{median(speeds[name]):.1f}", shown_ratio(ratio), *(f"{s:.2f}" for s in waits), alike


if __name__ == "__main__":
    main()
