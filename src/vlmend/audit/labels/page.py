"""The local page that people label on: a server for one labeller on this machine.

It listens on 127.0.0.1 alone, answers only to who has the token of its address, and only under its own name, so
that no web page elsewhere can read replies or send labels. What it sends is the words, the image if asked, and
how far the labeller is: never the condition, the run, its mends or a verdict. What is asked is `labelling` and `pairs`,
files are `session`.
"""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from vlmend.audit.labels.session import Session
from vlmend.errors import RunProblem

__all__ = ["About", "label_app", "serve"]

About = Literal["replies", "people", "models"]
"""What is asked about: single replies, a reply to each of two people, or two models' replies to both."""

HOST = "127.0.0.1"

MOST_BYTES = 10_000
"""A longer body holds no label."""


class _Given(BaseModel):
    """What the page sends: the place in the queue, what was said, and how long it took."""

    index: int = Field(ge=0)
    label: str
    seconds: float = Field(ge=0, le=86_400, allow_inf_nan=False)


def serve(
    session: Session, images: Path, *, about: About = "replies", port: int = 0, open_browser: bool = True,
    ready: Callable[[str], None] = lambda address: None,
) -> None:  # fmt: skip
    """Serve the page until Ctrl-C.

    Args:
        session: What to ask and where the labels go.
        images: Folder of the run's images.
        about: What the session asks about.
        port: 0 takes any free one.
        open_browser: Open the page at once.
        ready: Called with the address, token included, once it can be opened.

    Raises:
        RunProblem: The port cannot be used.
    """
    import uvicorn

    token = secrets.token_urlsafe(24)
    with socket.socket() as held:
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((HOST, port))
            held.listen()
        except (OSError, OverflowError) as problem:
            raise RunProblem(
                f"Port {port} cannot be used ({problem}).", "Choose another --port; 0 finds one."
            ) from problem
        address = f"http://{HOST}:{held.getsockname()[1]}/?token={token}"
        config = uvicorn.Config(
            label_app(session, images, token, about), log_level="error", access_log=False, lifespan="off",
            server_header=False,
        )  # fmt: skip
        ready(address)
        if open_browser:  # in a thread, since a browser in the terminal would keep the server from starting
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            uvicorn.Server(config).run(sockets=[held])
        except KeyboardInterrupt:
            return


def label_app(session: Session, images: Path, token: str, about: About = "replies") -> Starlette:
    """The page as an application: `/`, `/next`, `/label`, `/undo`; each wants the token."""
    pages = _Pages(session, images, token, about)
    return Starlette(
        routes=[
            Route("/", pages.page),
            Route("/next", pages.next),
            Route("/label", pages.label, methods=["POST"]),
            Route("/undo", pages.undo, methods=["POST"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False),
            Middleware(BaseHTTPMiddleware, dispatch=pages.check),
        ],
        exception_handlers={RunProblem: _told},
    )


@dataclass(frozen=True)
class _Pages:
    """What is answered to each address."""

    session: Session
    images: Path
    token: str
    about: About

    async def check(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        if not secrets.compare_digest(request.query_params.get("token", "").encode(), self.token.encode()):
            return PlainTextResponse("Open the address that vlmend label printed, token included.", 403)
        response = await call_next(request)
        response.headers.update(
            {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
        )
        return response

    async def page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        text = resources.files("vlmend.audit.labels").joinpath("label.html").read_text("utf-8")
        text = text.replace("ABOUT", self.about)
        return HTMLResponse(text.replace("NONCE", nonce), headers={"Content-Security-Policy": policy})

    async def next(self, request: Request) -> Response:
        return JSONResponse(_shown(self.session, self.images))

    async def label(self, request: Request) -> Response:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MOST_BYTES:
                return JSONResponse({"error": "This is no label (it is too long)."}, 413)
        try:
            given = _Given.model_validate_json(content)
        except ValidationError as problem:
            return JSONResponse({"error": f"This is no label ({problem.errors()[0]['msg']})."}, 422)
        if given.index >= len(self.session.queue):
            return JSONResponse({"error": f"There is no item {given.index}."}, 422)
        if given.label == "skip":
            self.session.skip(given.index)
            return JSONResponse(_shown(self.session, self.images))
        try:
            self.session.label(given.index, given.label, given.seconds)
        except ValidationError as problem:
            return JSONResponse({"error": f"This is no label ({problem.errors()[0]['msg']})."}, 422)
        return JSONResponse(_shown(self.session, self.images))

    async def undo(self, request: Request) -> Response:
        self.session.undo()
        return JSONResponse(_shown(self.session, self.images))


def _shown(session: Session, images: Path) -> dict[str, Any]:
    """All that the page ever gets."""
    index = session.current()
    counts = {"done": session.done, "total": len(session.queue), "skipped": session.skipped}
    if index is None:
        return counts | {"item": None}
    shown = session.queue[index].shown(partial(_data_uri, images))
    return counts | {"item": {"index": index} | shown}


def _data_uri(images: Path, name: str | None) -> str | None:
    """An image of the run, or None where its file is gone; a name with a path in it is none of ours."""
    if not name:
        return None
    file = images / name
    if Path(name).name != name or not file.is_file():
        return None
    return f"data:image/{file.suffix.removeprefix('.')};base64,{b64encode(file.read_bytes()).decode()}"


async def _told(request: Request, problem: Exception) -> Response:
    return JSONResponse({"error": str(problem)}, 500)
