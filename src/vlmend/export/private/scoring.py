"""The client: embeddings in, scores out, and what it took. Without addresses all runs here, in processes of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.errors import BadParameter, MissingExtra, RunProblem
from vlmend.export.private.ckks import Keys
from vlmend.export.private.head import Head
from vlmend.export.private.parties import PLAIN
from vlmend.export.private.serving import GOOD
from vlmend.export.private.wire import Line, unpacked

__all__ = ["PARTIES", "Scored", "address_of", "over_parties", "over_socket", "plain_beside", "take_part"]

PARTIES = 3

PATIENCE = 120
"""Seconds that an answer may take, or a party to come."""

TOGETHER = "Start all three with the same addresses and the same number of pictures."

Tick = Callable[[int], object]
Scores = Float[Tensor, "image class"]


@dataclass(frozen=True, eq=False)
class Scored:
    """Private scores, and what they took.

    Attributes:
        scores: Of each embedding and class, float32.
        seconds: Of each embedding, from asking to having its scores.
        sent, received: Bytes of all questions and answers; of parties, what those here sent to
            others, and 0 received where one alone is here and cannot tell.
        once: Bytes that were sent before the first question: keys, or shares of the head.
    """

    scores: Scores
    seconds: tuple[float, ...]
    sent: int
    received: int
    once: int


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT.

    Raises:
        BadParameter: It is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadParameter(f"{text!r} is no HOST:PORT.", "Write it as 127.0.0.1:8123.")
    return host, int(port)


def over_socket(
    embeddings: Float[Tensor, "image width"], keys: Keys, server: str | None, folder: Path, tick: Tick
) -> Scored:
    """Encrypted scores from a server.

    Args:
        embeddings: Of length 1.
        keys: The client's.
        server: HOST:PORT; None starts one here, with the server's half of the folder.
        folder: The exported one.
        tick: Told how many are scored.

    Raises:
        RunProblem: The server cannot be reached, or says that something is wrong.
        EnvironmentProblem: What it says makes no sense.
    """
    with _server(folder, server) as place, _connected(place) as line:
        line.send(keys.public)
        _good(line)
        once, line.sent, line.received = line.sent, 0, 0
        rows: list[Tensor] = []
        seconds: list[float] = []
        for embedding in embeddings:
            begun = time.perf_counter()
            line.send(keys.encrypt(embedding))
            rows.append(keys.decrypt(unpacked(_good(line))))
            seconds.append(time.perf_counter() - begun)
            tick(len(rows))
        return Scored(torch.stack(rows), tuple(seconds), line.sent, line.received, once)


def over_parties(embeddings: Float[Tensor, "image width"], classes: int, folder: Path) -> Scored:
    """Scores of three parties, all of them processes here.

    Raises:
        RunProblem: A party failed.
        MissingExtra: mpyc is not installed.
    """
    places = [f"127.0.0.1:{port}" for port in _free_ports(PARTIES)]
    work = _work(len(embeddings), classes, embeddings.shape[1])
    told = [work | {"embeddings": embeddings.tolist()}, work | {"head": str(folder)}, work]
    parties = [_party(places, number, asked) for number, asked in enumerate(told)]
    found = _all(parties)
    sent = sum(one["sent"] for one in found)
    return Scored(
        torch.tensor(found[0]["scores"]), tuple(found[0]["seconds"]), sent, sent, sum(one["once"] for one in found)
    )


def take_part(
    number: int, places: Sequence[str], count: int, classes: int, width: int, *, folder: Path | None = None,
    embeddings: Float[Tensor, "image width"] | None = None,
) -> Scored:  # fmt: skip
    """One party of three on machines of their own; only party 0 gets scores, the others none.

    Args:
        number: 0 asks, 1 holds the head, 2 helps.
        places: HOST:PORT of all three, in their order, the same for each.
        count, classes, width: Of embeddings, names and numbers, which all must know.
        folder: With the server's half, of party 1.
        embeddings: Of party 0.

    Raises:
        RunProblem: Another party did not come, or failed.
        MissingExtra: mpyc is not installed.
    """
    told = _work(count, classes, width)
    if embeddings is not None:
        told["embeddings"] = embeddings.tolist()
    if folder is not None:
        told["head"] = str(folder)
    (found,) = _all([_party(places, number, told)])
    return Scored(torch.tensor(found["scores"]), tuple(found["seconds"]), found["sent"], 0, found["once"])


def plain_beside(found: Scored, head: Head, embeddings: Float[Tensor, "image width"]) -> tuple[list[bool], float]:
    """Whether private and plain scores of each embedding have the same largest one; how far apart they are at most."""
    plain = head.scores(embeddings)
    return (plain.argmax(1) == found.scores.argmax(1)).tolist(), float((plain - found.scores).abs().max())


def _work(count: int, classes: int, width: int) -> dict[str, Any]:
    return {"count": count, "classes": classes, "width": width}


@contextmanager
def _server(folder: Path, server: str | None) -> Generator[str]:
    if server is not None:
        yield server
        return
    asked = [sys.executable, "-m", "vlmend.export.private.serving", str(folder), "127.0.0.1", "0"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        place = process.stdout.readline().strip()
        try:
            if not place:
                raise RunProblem(f"The server did not start: {_last(process.stderr.read())}", "See vlmend doctor.")
            yield place
        finally:
            process.kill()


@contextmanager
def _connected(place: str) -> Generator[Line]:
    try:
        with socket.create_connection(address_of(place), timeout=PATIENCE) as connection:
            yield Line(connection)
    except OSError as problem:
        raise RunProblem(
            f"{place} does not answer ({problem}).", "Start it there: vlmend score FOLDER --serve HOST:PORT"
        ) from problem


def _good(line: Line) -> bytes:
    content = line.receive()
    if content[:1] != GOOD:
        why = content[1:].decode(errors="replace") if content else "it closed the connection."
        raise RunProblem(f"The server refused: {why}", "See what it says there.")
    return content[1:]


def _party(places: Sequence[str], number: int, told: dict[str, Any]) -> tuple[subprocess.Popen[str], str]:
    where = [word for place in places for word in ("-P", place)]
    asked = [sys.executable, "-m", "vlmend.export.private.parties", *where, "-I", str(number), PLAIN]
    pipe = subprocess.PIPE
    return subprocess.Popen(asked, text=True, stdin=pipe, stdout=pipe, stderr=pipe), json.dumps(told)


def _all(parties: Sequence[tuple[subprocess.Popen[str], str]]) -> list[dict[str, Any]]:
    """What each party found; all are ended where one fails.

    Raises:
        RunProblem: One failed, or did not end.
        MissingExtra: mpyc is not installed.
    """
    with ThreadPoolExecutor(len(parties)) as pool:
        waiting = [pool.submit(_found, process, told) for process, told in parties]
        try:
            for one in as_completed(waiting):
                one.result()
        finally:
            for process, _ in parties:
                process.kill()
    return [one.result() for one in waiting]


def _found(process: subprocess.Popen[str], told: str) -> dict[str, Any]:
    try:
        said, why = process.communicate(told, timeout=PATIENCE)
    except subprocess.TimeoutExpired as problem:
        raise RunProblem(f"A party did not end within {PATIENCE} s.", TOGETHER) from problem
    if process.returncode and "No module named 'mpyc'" in why:
        raise MissingExtra("Scores among parties need mpyc, which is not installed.", "pip install 'vlmend[privacy]'")
    if process.returncode:
        raise RunProblem(f"A party failed: {_last(why)}", TOGETHER)
    return json.loads(said.splitlines()[-1])


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing."])[-1]


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
