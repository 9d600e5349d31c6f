"""Ten thousand requests, bare and mended in one stream: is every reply that of its request alone, and is memory flat?

    python benchmarks/soak.py                                        # 10,000 requests to a tiny random model
    python benchmarks/soak.py --requests 500                         # does the script run?
    python benchmarks/soak.py --write docs/performance.md

Distinct requests, with and without a picture, are each answered alone first, by `generate`, under every model name of
the server. Then the server, a process of its own, is asked them in random order, many at a time, so that requests under
different mends share batches. A reply that differs from that of its request alone is a leak. A leak can be seen only
where mends change replies: the table says how often they do.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from timing import Table, machine, write_tables

from vlmend.audit.suite import builtin_picture
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.data.requests import builtin_requests
from vlmend.data.sources import builtin_dataset
from vlmend.methods.safety.cmrm import CMRM
from vlmend.models.vlm import VLM
from vlmend.serving.limits import Limits
from vlmend.serving.run import serve
from vlmend.serving.settings import Settings
from vlmend.testing import tiny_vlm

TOKENS, AT_ONCE, DISTINCT, LOOKS = 8, 16, 60, 10
STRENGTHS = {"cmrm": 2.0, "more": 6.0}
MEGABYTE = 1e6


@dataclass(frozen=True)
class Ask:
    """A request, the model name that it asks for, and what that model says to it alone."""

    prompt: str
    picture: Image | None
    model: str
    alone: str

    @property
    def body(self) -> Mapping[str, Any]:
        """As the server takes it."""
        parts: list[Mapping[str, Any]] = [{"type": "text", "text": self.prompt}]
        if self.picture is not None:
            parts.insert(0, {"type": "image_url", "image_url": {"url": self.picture.to_data_uri()}})
        said = [{"role": "user", "content": parts}]
        return {"model": self.model, "messages": said, "max_tokens": TOKENS, "temperature": 0.0}


def mends_of(vlm: VLM) -> dict[str, Mend]:
    """CMRM at two strengths that change what a random model says."""
    data = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
    few = Dataset(data.name, data.examples[:8], data.licence)
    return {name: CMRM(alpha=alpha).fit(vlm, few, seed=0) for name, alpha in STRENGTHS.items()}


def asks() -> list[Ask]:
    """Every distinct request under every name, with its reply alone."""
    vlm = tiny_vlm()
    views = {"base": vlm} | {f"base+{name}": vlm.with_mend(mend) for name, mend in mends_of(vlm).items()}
    prompts = [request.prompt for request in builtin_requests("ordinary", "held_out")][:DISTINCT]
    pictures = [builtin_picture(k)[1] if k % 3 else None for k in range(len(prompts))]
    return [
        Ask(prompt, picture, name, view.generate([Conversation.ask(prompt, picture)], Sampling(TOKENS))[0].text)
        for prompt, picture in zip(prompts, pictures, strict=True)
        for name, view in views.items()
    ]


async def soaked(address: str, server: psutil.Process, known: Sequence[Ask], requests: int) -> Table:
    """All requests, and what came of them, in as many parts."""
    rng, free, each = random.Random(0), asyncio.Semaphore(AT_ONCE), requests // LOOKS
    rows: list[tuple[str, ...]] = []
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:

        async def differs(ask: Ask) -> bool:
            async with free:
                answer = await client.post(f"{address}/chat/completions", json=ask.body)
            answer.raise_for_status()
            return answer.json()["choices"][0]["message"]["content"] != ask.alone

        for look in range(LOOKS):
            began = time.perf_counter()
            found = await asyncio.gather(*(differs(ask) for ask in rng.choices(known, k=each)))
            took, held = time.perf_counter() - began, server.memory_info().rss / MEGABYTE
            rows.append((f"{(look + 1) * each:,}", str(sum(found)), f"{held:.0f}", f"{each / took:.0f}"))
    names = {ask.model for ask in known}
    base = {(ask.prompt, ask.picture): ask.alone for ask in known if ask.model == "base"}
    changed = [ask.alone != base[ask.prompt, ask.picture] for ask in known if ask.model != "base"]
    note = (
        f"A tiny random model under {len(names)} names, {AT_ONCE} requests at a time, {TOKENS} new tokens, 2 in 3 "
        f"with a picture. The mends change {sum(changed)} of {len(changed)} replies."
    )
    columns = ("requests", "replies unlike those alone", "memory of the server, MB", "requests/s")
    return Table("soak", columns, tuple(rows), (note, machine(1)))


def main() -> None:
    """Ask, print and, where asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        vlm = tiny_vlm()
        settings = Settings(port=0, limits=Limits(held=256))
        serve(vlm, mends_of(vlm), settings, lambda address, _: print(address, flush=True))
        return
    known = asks()
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            table = asyncio.run(soaked(address, psutil.Process(server.pid), known, asked.requests))
        finally:
            server.terminate()
    print(table.markdown)
    if asked.write:
        write_tables(asked.write, [table])


if __name__ == "__main__":
    main()
