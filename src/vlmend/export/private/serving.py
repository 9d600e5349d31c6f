"""The server of encrypted scores: `python -m vlmend.export.private.serving FOLDER HOST PORT`, or `serve`.

A client sends the public half of its keys once, then ciphertexts; each is answered with encrypted scores. What is wrong
with a message is answered as such, and the server goes on.
"""

from __future__ import annotations

import socketserver
import sys
from collections.abc import Callable
from pathlib import Path

from vlmend.errors import RunProblem, VlmendError
from vlmend.export.private.ckks import Scorer
from vlmend.export.private.head import Head, read_head
from vlmend.export.private.wire import Line, packed

__all__ = ["GOOD", "answer", "serve"]

GOOD, BAD = b"+", b"-"
"""How an answer begins: with what was asked for, or with why not."""


def serve(folder: Path, host: str, port: int, say: Callable[[str], object]) -> None:
    """Answer clients until the process is stopped.

    Args:
        folder: An exported one; its server half is read.
        host: Where to listen; 127.0.0.1 for this machine alone.
        port: 0 takes a free one.
        say: Told where it listens, as HOST:PORT, once it does.

    Raises:
        BadData: There is no head.
        RunProblem: The port cannot be had.
    """
    head = read_head(folder)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            answer(Line(self.request), head)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    try:
        server = Server((host, port), Handler)
    except OSError as problem:
        raise RunProblem(f"{host}:{port} cannot be listened on ({problem}).", "Choose another port, or 0.") from problem
    with server:
        say(f"{host}:{server.server_address[1]}")
        server.serve_forever()


def answer(line: Line, head: Head) -> None:
    """One client, to the end of its connection."""
    try:
        scorer: Scorer | None = None
        while asked := line.receive():
            try:
                if scorer is None:
                    scorer = Scorer(head, asked)
                    line.send(GOOD)
                else:
                    line.send(GOOD + packed(scorer.scores(asked)))
            except VlmendError as problem:
                line.send(BAD + f"{problem.message} {problem.hint}".encode())
    except (OSError, VlmendError):  # the client is gone, or speaks another language
        return


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), lambda place: print(place, flush=True))
