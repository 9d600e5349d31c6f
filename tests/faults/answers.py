"""An endpoint whose answers are damaged in every part: each request gets what was said, or one error of its own."""

from __future__ import annotations

import json
import random
import socketserver
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults.mutating import changed, damaged
from tests.faults.table import Tally

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.errors import BatchProblem, VlmendError
from vlmend.models.api.target import ApiTarget
from vlmend.models.api.wire import Endpoint

PATH = "/v1/chat/completions"
AT_ONCE = 16
INTACT = 0.25
"""Share of requests whose answers are whole."""
STATUSES = (100, 199, 201, 204, 301, 302, 307, 400, 401, 404, 408, 413, 418, 422, 429, 500, 502, 503, 529, 600, 999)
HEADERS = (
    "Content-Length: 5", "Content-Length: 99999", "Content-Length: x", "Content-Encoding: gzip", "Retry-After: soon",
    "Content-Encoding: br", "Transfer-Encoding: chunked", "Retry-After: -1", "Retry-After: nan", "Retry-After: 1e400",
    "Content-Type: image/png", "Location: /elsewhere", "Connection: upgrade", "X: " + "y" * 70_000, "no colon at all",
)  # fmt: skip


def faulty_answers(count: int, seed: int, folder: Path) -> Tally:
    """Ask in batches; `wrong` counts whole answers that did not come as they were, and redirects that were followed."""
    tally = Tally("damaged answers of an API")
    with _served(seed) as server:
        at = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
        target = ApiTarget(Endpoint("m", at, at_once=AT_ONCE, timeout_s=0.5, tries=2, pause_s=0.01, patience_s=2.0))
        for start in range(0, count, AT_ONCE):
            words = [str(k) for k in range(start, min(start + AT_ONCE, count))]
            found = tally.tried(partial(_ends, target, words), f"batch of {start}") or [None] * len(words)
            tally.attempts += len(words) - 1
            for word, end in zip(words, found, strict=True):
                if _whole(seed, word) and not (isinstance(end, Reply) and end.text == f"said {word}"):
                    tally.wrong += 1
                    tally.note(f"{word}: {end}")
                if not isinstance(end, Reply | VlmendError):
                    tally.lost += 1
        tally.wrong += len(server.elsewhere)
    return tally


def _ends(target: ApiTarget, words: list[str]) -> list[object]:
    try:
        return [*target.generate([Conversation.ask(word) for word in words], Sampling(5))]
    except BatchProblem as problem:
        return [*problem.outcomes]


def _rng(seed: int, word: str) -> random.Random:
    return random.Random(f"answer:{seed}:{word}")


def _whole(seed: int, word: str) -> bool:
    return not word.isdigit() or _rng(seed, word).random() < INTACT


@dataclass
class _Answer:
    """Bytes to send, in pieces with pauses between them."""

    pieces: list[bytes]
    pause_s: float = 0.0


def _answer(seed: int, word: str) -> _Answer:
    body = {
        "choices": [{"message": {"content": f"said {word}"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    rng = _rng(seed, word)
    if rng.random() < INTACT or not word.isdigit():
        return _Answer([_http(200, json.dumps(body).encode())])
    match rng.randrange(9):
        case 0:
            return _Answer([_http(rng.choice(STATUSES), json.dumps(body).encode())])
        case 1:
            error = {"error": changed({"message": "no", "code": "x", "metadata": {"reasons": []}}, rng)}
            return _Answer([_http(rng.choice(STATUSES), json.dumps(error).encode())])
        case 2 | 3:
            return _Answer([_http(200, json.dumps(changed(body, rng)).encode())])
        case 4:
            return _Answer([_http(200, json.dumps(body).encode(), rng.choice(HEADERS))])
        case 5:
            return _Answer([_http(200, damaged(json.dumps(body).encode(), rng))])
        case 6:
            return _Answer([damaged(_http(200, json.dumps(body).encode()), rng)])
        case 7:
            stream = b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for _ in range(3)) + b"data: [DONE]\n\n"
            return _Answer([_http(200, stream, "Content-Type: text/event-stream")])
        case _:
            whole = _http(200, json.dumps(body).encode())
            return _Answer([whole[k : k + 1] for k in range(20)], 0.1)  # it would take longer than anyone waits


def _http(status: int, body: bytes, header: str = "X: y") -> bytes:
    length = "" if header.startswith(("Content-Length", "Transfer")) else f"Content-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} Said\r\n{header}\r\n{length}Connection: close\r\n\r\n".encode() + body


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seed = seed
        self.elsewhere: list[str] = []


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        place = self.rfile.readline().split()[1:2]
        size = 0
        while (line := self.rfile.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        if place != [PATH.encode()]:
            self.server.elsewhere.append(str(place))
            return
        word = json.loads(self.rfile.read(size))["messages"][-1]["content"]
        answer = _answer(self.server.seed, word)
        try:
            for piece in answer.pieces:
                self.wfile.write(piece)
                time.sleep(answer.pause_s)
        except OSError:  # who asked has hung up
            return


@contextmanager
def _served(seed: int) -> Generator[_Server]:
    with _Server(seed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
