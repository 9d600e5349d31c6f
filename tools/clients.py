"""Stock clients against `vlmend serve`: `python -m tools.clients --write` makes the table of docs/guides/serve.md.

Each client comes from PyPI into an environment of its own (`--venvs`, kept for the next time), without vlmend. A tiny
random model and a mend of it are served by the command line, with a key; what each client gets is held to what
`generate` says here. `--fuzz N` has Schemathesis send so many made requests against the OpenAPI document, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from tools.client_checks import CLIENTS, KEY, TOKENS
from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import AddVector
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.phantom.cache import cache_folder
from vlmend.testing import tiny_vlm

__all__ = ["PAGE", "case_of", "page", "started"]

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "serve.md"
BEGIN, END = "<!-- clients: written by tools.clients -->", "<!-- end -->"
CHECKS = Path(__file__).with_name("client_checks.py")
PACKAGES: Mapping[str, Sequence[str]] = {name: (name.partition(" ")[0],) for name in CLIENTS} | {
    name: ("inspect-ai", "openai") for name in CLIENTS if name.startswith("inspect-ai")
}
FUZZER = "schemathesis"


def main() -> None:
    """Check every client, print the table and, where asked, write it; exit code 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", default=[*PACKAGES])
    parser.add_argument("--venvs", type=Path, default=cache_folder() / "clients")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="requests that Schemathesis makes")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, started(Path(place)) as (vlm, address):
        views = {"base": vlm, "base+test": vlm.with_mend(mend_of(vlm))}
        case = case_of(views) | {"address": address}
        rows = [row_of(name, asked.venvs, case) for name in asked.clients]
        rows += [fuzzed(asked.venvs, address, asked.fuzz)] if asked.fuzz else []
    table = page_table(rows)
    print(table)
    if asked.write:
        PAGE.write_text(page(PAGE.read_text("utf-8"), table), "utf-8")
    sys.exit(any(wrong for *_, wrong in rows))


@contextmanager
def started(place: Path) -> Generator[tuple[VLM, str]]:
    """A tiny random model as loaded from a folder, and the address of `vlmend serve` of it and of a mend."""
    tiny, keys = tiny_vlm(), place / "keys"
    for part in (tiny.model, tiny.processor):
        part.save_pretrained(place / "model")
    vlm = load(place / "model", name="tiny", options=LoadOptions("cpu"))
    mend_of(vlm).save(place / "test")
    keys.touch(0o600)
    keys.write_text(f"{KEY}\n")
    parts = ["serve", place / "model", "--mend", place / "test", "--api-key-file", keys, "--port", 0, "--json"]
    parts += ["--max-new-tokens", TOKENS]
    quick = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "vlmend", *map(str, parts)]
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=quick) as server,
    ):
        try:
            assert server.stdout is not None
            told = "".join(takewhile(lambda line: line != "}\n", server.stdout))
            if not told:
                raise SystemExit((place / "log").read_text())
            yield vlm, json.loads(told + "}")["address"]
        finally:
            server.terminate()


def mend_of(vlm: VLM) -> Mend:
    """A random vector at every token of one block."""
    vector = 2.0 * torch.randn(vlm.anatomy.width, generator=torch.Generator().manual_seed(1))
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return Mend((AddVector(Site("language", 1), vector, "all"),), card)


def case_of(views: Mapping[str, VLM]) -> dict[str, Any]:
    """What is asked, as clients send it, with what `generate` of each model says alone."""
    picture, user = noise_image(16, 3), "What is in this picture?"
    asked: dict[str, tuple[Conversation, Sampling]] = {
        "words": (Conversation.ask(user), Sampling(TOKENS)),
        "picture": (Conversation.ask(user, picture), Sampling(TOKENS)),
        "turns": (
            Conversation((Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Yes?"),
                          Turn("user", user, (picture,)))), Sampling(TOKENS)),
        "drawn": (Conversation.ask(user, picture), Sampling(TOKENS, 1.0, 7)),
    }  # fmt: skip
    for k in range(8):
        asked[f"many {k}"] = Conversation.ask(f"{user} {k}", noise_image(16, k) if k % 2 else None), Sampling(TOKENS)
    return {
        "models": [*views],
        "asked": {
            name: {"messages": _messages(one), "said": _said(views, one, how)} for name, (one, how) in asked.items()
        },
    }


def row_of(name: str, venvs: Path, case: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Client, version, checks passed of checks made, and the checks that failed."""
    package = PACKAGES[name][0]
    python = python_of(venvs / package, PACKAGES[name])
    done = subprocess.run(
        [python, CHECKS, name], input=json.dumps(case), capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    wrong = {check: told for check, told in found.items() if told}
    print(*(f"{name}: {check}: {told}\n" for check, told in wrong.items()), sep="", file=sys.stderr)
    return (
        name,
        version_of(python, package),
        f"{sum(told is None for told in found.values())} of {len(found)}",
        ", ".join(wrong),
    )


def fuzzed(venvs: Path, address: str, examples: int) -> tuple[str, str, str, str]:
    """The same of Schemathesis: requests made from the OpenAPI document whose answers are as the document says.

    `positive_data_acceptance` is left out: what no schema can say (the last message is the user's, a picture can be
    decoded) is refused with the reason.
    """
    python = python_of(venvs / FUZZER, (FUZZER,))
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        parts = [
            "run", f"{address.removesuffix('/v1')}/openapi.json", "--header", f"Authorization: Bearer {KEY}",
            "--max-examples", examples, "--seed", 0, "--no-shrink", "--continue-on-failure",
            "--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance",
            "--report", "json", "--report-json-path", report,
        ]  # fmt: skip
        command = [python.with_name(FUZZER), *map(str, parts)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
        if not report.exists():
            raise SystemExit(f"{FUZZER}: {done.stdout}{done.stderr}")
        told = json.loads(report.read_text())
    made, failed = told["test_cases"]["generated"], told["test_cases"]["with_failures"]
    wrong = "; ".join(f"{one['title']}: {one['count']}" for one in [*told["failures"], *told["errors"]])
    return FUZZER, version_of(python, FUZZER), f"{made - failed} of {made}", wrong


def python_of(folder: Path, packages: Sequence[str]) -> Path:
    """The interpreter of an environment that holds these packages, made on first use."""
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(packages):
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr)
        stamp.write_text("\n".join(packages))
    return python


def version_of(python: Path, package: str) -> str:
    """The version that an environment holds."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def page_table(rows: Sequence[Sequence[str]]) -> str:
    """As Markdown; the last column only where something went wrong."""
    width = 4 if any(row[3] for row in rows) else 3
    lines = [
        ("client", "version", "checks passed", "not passed")[:width],
        ("---",) * width,
        *(row[:width] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(text: str, table: str) -> str:
    """The guide with its table made anew."""
    pattern = re.compile(rf"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{table}{found[2]}", text)


def _messages(one: Conversation) -> list[dict[str, Any]]:
    return [
        {"role": turn.role, "content": [
            *({"type": "image_url", "image_url": {"url": image.to_data_uri()}} for image in turn.images),
            {"type": "text", "text": turn.text},
        ] if turn.images else turn.text}
        for turn in one.turns
    ]  # fmt: skip


def _said(views: Mapping[str, VLM], one: Conversation, how: Sampling) -> dict[str, Any]:
    replies = {name: view.generate([one], how)[0] for name, view in views.items()}
    return {
        name: {"text": reply.text, "tokens": [reply.prompt_tokens, reply.new_tokens], "stop": reply.stop}
        for name, reply in replies.items()
    }


if __name__ == "__main__":
    main()
