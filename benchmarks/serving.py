"""What a mend costs a server: tokens a second and waiting times, mended, bare and mixed, in turns on one server.

    python benchmarks/serving.py                                  # phantom, 1, 8 and 32 requests at a time
    python benchmarks/serving.py --rounds 5 --write docs/performance.md
    python benchmarks/serving.py --tiny --rounds 1                # does the script run? its numbers mean nothing

The mend is CMRM at a millionth of its strength: it costs what CMRM costs, and the replies are the base's, so that all
ways read and write the same tokens. `mixed` asks both in turns: their requests share batches. The server is a process
of its own; this one sends requests over HTTP and reads the streams. One round of each way is a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from timing import Table, machine, shown_ratio, write_tables

from vlmend import registry
from vlmend.audit.suite import builtin_picture
from vlmend.core.examples import Dataset
from vlmend.data.requests import builtin_requests
from vlmend.data.sources import builtin_dataset
from vlmend.methods.safety.cmrm import CMRM
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.serving.limits import Limits
from vlmend.serving.run import serve
from vlmend.serving.settings import Settings
from vlmend.testing import tiny_vlm

TOKENS = 24
STRENGTH = 1e-6
WAYS = {"base": ("base",), "base+cmrm": ("base+cmrm",), "mixed": ("base", "base+cmrm")}


@dataclass(frozen=True)
class Answered:
    """One request: seconds to its first token and to its last, and the tokens of its reply."""

    first_s: float
    seconds: float
    tokens: int
    text: str


def main() -> None:
    """Measure, print and, where asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        served(tiny=asked.tiny)
        return
    command = [sys.executable, __file__, "--serve", *(["--tiny"] if asked.tiny else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            table = asyncio.run(measured(address, asked.at_once, asked.rounds))
        finally:
            server.terminate()
    print(table.markdown)
    if asked.write:
        write_tables(asked.write, [table])


def served(*, tiny: bool) -> None:
    """The server, base and mended; prints its address."""
    vlm = tiny_vlm() if tiny else load(registry.model_folder("phantom"), name="phantom", options=LoadOptions("cpu"))
    mend = CMRM(alpha=1.0).fit(vlm, anchors(vlm), seed=0).scaled(STRENGTH)
    settings = Settings(port=0, limits=Limits(held=256))
    serve(vlm, {"cmrm": mend}, settings, lambda address, _: print(address, flush=True))


def anchors(vlm: VLM) -> Dataset:
    """A few rows to fit on; what the vectors are does not matter here."""
    data = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
    return Dataset(data.name, data.examples[:8], data.licence)


async def measured(address: str, at_once: Sequence[int], rounds: int) -> Table:
    """A row for each way and number of requests at a time."""
    rows: list[tuple[str, ...]] = []
    async with httpx.AsyncClient(timeout=600, trust_env=False, limits=httpx.Limits(max_connections=None)) as client:
        for number in at_once:
            speeds: dict[str, list[float]] = {way: [] for way in WAYS}
            answers: dict[str, list[Answered]] = {way: [] for way in WAYS}
            for turn in range(rounds + 1):
                said: dict[str, list[str]] = {}
                for way in random.Random(turn).sample([*WAYS], len(WAYS)):
                    began = time.perf_counter()
                    found = await asked_together(client, address, WAYS[way], number, turn)
                    took = time.perf_counter() - began
                    said[way] = [one.text for one in found]
                    if turn:
                        speeds[way].append(sum(one.tokens for one in found) / took)
                        answers[way] += found
                assert len({tuple(texts) for texts in said.values()}) == 1, "the ways wrote different replies"
            rows += [row(number, way, speeds, answers[way]) for way in WAYS]
    columns = ("at a time", "model", "tokens/s", "ratio to base", "first token p50, s", "p95", "p99", "reply p50, s",
               "p95", "p99")  # fmt: skip
    note = (
        f"Each request with a picture of its own, at most {TOKENS} new tokens, {rounds} rounds in turns. Target: 0.97."
    )
    return Table("serving", columns, tuple(rows), (note, machine(rounds)))


def row(number: int, way: str, speeds: dict[str, list[float]], answers: Sequence[Answered]) -> tuple[str, ...]:
    """What one way came to."""
    ratio = [mine / base for mine, base in zip(speeds[way], speeds["base"], strict=True)]
    firsts, wholes = ([getattr(one, name) for one in answers] for name in ("first_s", "seconds"))
    waits = [f"{np.percentile(found, p):.2f}" for found in (firsts, wholes) for p in (50, 95, 99)]
    return str(number), way, f"{median(speeds[way]):.1f}", shown_ratio(ratio), *waits


async def asked_together(
    client: httpx.AsyncClient, address: str, names: Sequence[str], number: int, turn: int, *, usage: bool = True
) -> list[Answered]:
    """So many requests at a time, at least four in all, the same in every way; `usage` asks for counts of tokens."""
    held = [request.prompt for request in builtin_requests("ordinary", "held_out")]
    count, free = max(4, number), asyncio.Semaphore(number)

    async def one(k: int) -> Answered:
        picture = builtin_picture(turn * count + k)[1].to_data_uri()
        async with free:
            prompt = f"{held[k % len(held)]} ({turn})"
            return await streamed(client, address, names[k % len(names)], prompt, picture, usage)

    return [*await asyncio.gather(*(one(k) for k in range(count)))]


async def streamed(
    client: httpx.AsyncClient, address: str, model: str, prompt: str, picture: str, usage: bool
) -> Answered:
    """One request and its stream."""
    parts = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": prompt}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS, "stream": True,
            "temperature": 0.0}  # fmt: skip
    body |= {"stream_options": {"include_usage": True}} if usage else {}
    began, first, text, tokens = time.perf_counter(), 0.0, "", 0
    async with client.stream("POST", f"{address}/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            found = json.loads(line.removeprefix("data: "))
            said = "".join(choice["delta"].get("content") or "" for choice in found["choices"])
            first = first or (time.perf_counter() - began if said else 0.0)
            text, tokens = text + said, tokens or (found.get("usage") or {}).get("completion_tokens", 0)
    return Answered(first or time.perf_counter() - began, time.perf_counter() - began, tokens, text)


if __name__ == "__main__":
    main()
