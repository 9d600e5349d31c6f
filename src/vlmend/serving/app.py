"""The HTTP face: routes, keys, limits, streaming. What answers is `worker`, what may be asked is `wire`."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from vlmend.core.conversation import Sampling
from vlmend.errors import VlmendError
from vlmend.serving.jobs import Answer, Engine, Job, Piece, Told
from vlmend.serving.limits import Limits, Refusal, refusal_of
from vlmend.serving.logs import Log
from vlmend.serving.metrics import Metrics
from vlmend.serving.pictures import Pictures
from vlmend.serving.proof import Shown
from vlmend.serving.wire import ChatRequest, chunk, completion, conversation_of, parsed, schema_of, usage_of

__all__ = ["Service", "serving_app"]

CLIENT_LEFT = 499
AT_ONCE = 2
"""Requests whose pictures are decoded at a time."""
LATELY = 16
"""Answers over which the time of one is averaged, for Retry-After."""


@dataclass(eq=False)
class Service:
    """A model that is served.

    Attributes:
        served: Views by the name that clients ask for.
        worker: What answers.
        limits: What is taken.
        keys: Any of them opens; none are asked for where there are none.
        hosts: Names under which the server answers; `*` is any.
        pictures: Reads pictures.
        log: Where each request gets its line.
        began: When, in seconds since 1970.
        lately_s: What an answer took lately, on average.
    """

    served: Mapping[str, Shown]
    worker: Engine
    limits: Limits = field(default_factory=Limits)
    keys: Sequence[bytes] = ()
    hosts: Sequence[str] = ("*",)
    pictures: Pictures = field(default_factory=lambda: Pictures(Limits()))
    log: Log = field(default_factory=Log)
    began: int = field(default_factory=lambda: int(time.time()))
    lately_s: float = 1.0

    def __post_init__(self) -> None:
        self.metrics = Metrics(lambda: self.worker.held, lambda: self.worker.running, self.worker.replicas)
        self._decoding = asyncio.Semaphore(AT_ONCE)

    def check_key(self, request: Request) -> None:
        """
        Raises:
            Refusal: The request shows none of the keys. Every key is compared, each in constant time.
        """
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        matching = [hmac.compare_digest(given, key) for key in self.keys]
        if self.keys and not any(matching):
            told = {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, "This server wants a key: Authorization: Bearer KEY.", "invalid_api_key", None, told)

    async def job(self, request: Request, tell: Callable[[Told], None]) -> tuple[Job, ChatRequest]:
        """What is asked, ready for the worker.

        Raises:
            Refusal, BadImage: It cannot be read, or is too much.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "Send application/json.", "content_type")
        asked = parsed(await self._body(request))
        if asked.model not in self.served:
            there = ", ".join(self.served)
            raise Refusal(404, f"There is no model {asked.model[:80]!r} here, but {there}.", "model_not_found", "model")
        new_tokens = asked.new_tokens(self.limits)
        async with self._decoding:
            read = asyncio.to_thread(conversation_of, asked, self.limits, self.pictures.of)
            conversation = await read
        temperature = asked.temperature or 0.0
        seed = asked.seed if asked.seed is not None else uuid.uuid4().int % 2**31 if temperature else 0
        sampling = Sampling(new_tokens, temperature, seed)
        return Job(asked.model, conversation, sampling, bool(asked.stream), tell), asked

    async def _body(self, request: Request) -> bytes:
        """The bytes of a request.

        Raises:
            Refusal: They are too many (413), or come too slowly (408).
        """
        told = request.headers.get("content-length", "")
        most = self.limits.body_bytes
        too_much = Refusal(413, f"A request has {most:,} bytes at most.", "too_large", None, {"Connection": "close"})
        if told.isdecimal() and int(told[:20]) > most:
            raise too_much
        content = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for piece in request.stream():
                    content += piece
                    if len(content) > most:
                        raise too_much
        except TimeoutError as problem:
            raise Refusal(408, "The request did not come in time.", "slow", None, {"Connection": "close"}) from problem
        return bytes(content)

    def refused(self, problem: Exception) -> Refusal:
        """An error as an answer; a failure that is ours is logged."""
        if not isinstance(problem, Refusal | VlmendError):
            self.log.failed(problem)
        return refusal_of(problem)


@dataclass(eq=False)
class _Exchange:
    """One request from its arrival to its last byte."""

    service: Service
    request: Request

    def __post_init__(self) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._until = time.monotonic() + self.service.limits.timeout_s
        self._job: Job | None = None
        self._ended = False

    async def answered(self) -> Response:
        """The answer, whole or streamed."""
        service = self.service
        try:
            self._job, asked = await service.job(self.request, self._hear)
            self._until = time.monotonic() + service.limits.timeout_s
            service.worker.submit(self._job)
        except Exception as problem:
            return self._refusal(problem)
        head = {"id": self.id, "created": int(time.time()), "model": asked.model,
                "system_fingerprint": service.served[asked.model].id}  # fmt: skip
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return _Stream(self._events(self._job, head, usage), self._leave, {"X-Request-Id": self.id})
        return await self._whole(self._job, head)

    async def _whole(self, job: Job, head: Mapping[str, Any]) -> Response:
        left = asyncio.create_task(_disconnected(self.request))
        hear = asyncio.create_task(self._next())
        try:
            await asyncio.wait({left, hear}, return_when=asyncio.FIRST_COMPLETED)
            if not hear.done():
                self._leave()
                return Response(status_code=CLIENT_LEFT)
            told = hear.result()
            if not isinstance(told, Answer):
                return self._refusal(told if isinstance(told, Exception) else TypeError("a piece"))
            self._wrote(job, told)
            return JSONResponse(completion(head, told.reply, told.proof), headers={"X-Request-Id": self.id})
        finally:
            left.cancel()
            hear.cancel()

    async def _events(self, job: Job, head: Mapping[str, Any], usage: bool) -> AsyncIterator[bytes]:
        """Server-sent events; an error ends them without [DONE], as OpenAI's clients expect it."""
        said = ""
        yield _event(chunk(head, {"role": "assistant", "content": ""}))
        while True:
            told = await self._next()
            text = told.text if isinstance(told, Piece) else told.reply.text if isinstance(told, Answer) else said
            if isinstance(told, Answer) and not text.startswith(said):
                told = RuntimeError("what was streamed is not how the reply begins")
            if isinstance(told, Exception):
                yield _event(self._ended_badly(told).body)
                return
            new = text[len(said) :] if isinstance(told, Answer) else _safe(text, said)
            if new:
                said += new
                yield _event(chunk(head, {"content": new}))
            if isinstance(told, Answer):
                self._wrote(job, told)
                yield _event(chunk(head, {}, told.reply.stop) | {"vlmend": dict(told.proof)})
                if usage:
                    yield _event(chunk(head, {}) | {"choices": [], "usage": usage_of(told.reply)})
                yield b"data: [DONE]\n\n"
                return

    async def _next(self) -> Told:
        """What the worker says next, or that it took too long."""
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                return await self._told.get()
        except TimeoutError:
            if self._job is not None:
                self._job.leave()
            return Refusal(504, f"No whole reply within {self.service.limits.timeout_s:g} s.", "timeout")

    def _hear(self, told: Told) -> None:
        """Called from the worker's thread."""
        self._loop.call_soon_threadsafe(self._told.put_nowait, told)

    def _leave(self) -> None:
        """The client is gone, or has its answer."""
        if self._job is not None:
            self._job.leave()
        self._end(CLIENT_LEFT)

    def _wrote(self, job: Job, answer: Answer) -> None:
        reply, seconds = answer.reply, time.monotonic() - job.arrived
        fired, first_s = sum(reply.fired.values()), job.first_s or seconds
        told = (reply.prompt_tokens, reply.new_tokens, fired, seconds, first_s)
        self.service.metrics.wrote(job.name, *told, job.replica)
        self.service.lately_s += (seconds - self.service.lately_s) / LATELY
        self._end(200, answer)

    def _refusal(self, problem: Exception) -> Response:
        refusal = self._ended_badly(problem)
        return JSONResponse(refusal.body, refusal.status, {"X-Request-Id": self.id, **refusal.headers})

    def _ended_badly(self, problem: Exception) -> Refusal:
        refusal = self.service.refused(problem)
        if refusal.status == 429:
            refusal.headers["Retry-After"] = str(min(60, max(1, round(self.service.lately_s))))
        self._end(refusal.status, code=refusal.code)
        return refusal

    def _end(self, status: int, answer: Answer | None = None, code: str = "") -> None:
        """One line in the log and one count, whatever the end."""
        if self._ended:
            return
        self._ended = True
        name, again = (self._job.name, self._job.again) if self._job else ("", 0)
        self.service.metrics.answered(name, status, again)
        self.service.log.answered(self.id, name, status, code, self._job, answer)


class _Stream(StreamingResponse):
    """Events, and what is done when they end, in whatever way."""

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None], headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def serving_app(service: Service) -> FastAPI:
    """The application: `/v1/chat/completions`, `/v1/models`, `/health`, `/metrics`, `/openapi.json`."""
    app = FastAPI(title="vlmend", docs_url=None, redoc_url=None)
    shown = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of([*service.served])}}}
    }

    streamed = {200: {"content": {"text/event-stream": {}}}}
    told = streamed | _refusals(400, 401, 404, 408, 413, 415, 429, 500, 503, 504)

    @app.post("/v1/chat/completions", openapi_extra=shown, response_model=None, responses=told)
    async def chat(request: Request) -> Response:
        service.check_key(request)
        return await _Exchange(service, request).answered()

    @app.get("/v1/models", response_model=None, responses=_refusals(401))
    async def models(request: Request) -> Response:
        service.check_key(request)
        return JSONResponse({"object": "list", "data": [_model(one, service.began) for one in service.served.values()]})

    @app.get("/health", response_model=None, responses={503: {"description": "It is closing, or no replica answers."}})
    async def health() -> Response:
        told = service.worker.health
        return JSONResponse({**told}, 200 if told["status"] == "ok" else 503)

    @app.get("/metrics", response_model=None, response_class=PlainTextResponse, responses=_refusals(401))
    async def metrics(request: Request) -> Response:
        service.check_key(request)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def refused(_: Request, problem: Exception) -> Response:
        if isinstance(problem, HTTPException):
            problem = Refusal(problem.status_code, str(problem.detail), "http", None, dict(problem.headers or {}))
        refusal = service.refused(problem)
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    for kind in (Refusal, HTTPException):
        app.add_exception_handler(kind, refused)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*service.hosts], www_redirect=False)
    return app


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as the OpenAPI document tells them: an error in OpenAI's form."""
    fields = {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")}
    error = {"type": "object", "properties": fields, "required": [*fields]}
    schema = {"type": "object", "properties": {"error": error}, "required": ["error"]}
    return {one: {"description": HTTPStatus(one).phrase, "content": {"application/json": {"schema": schema}}}
            for one in statuses}  # fmt: skip


def _model(one: Shown, began: int) -> dict[str, Any]:
    about = {"of": one.of, "model_digest": one.model_digest, "mends": one.mends}
    return {"id": one.name, "object": "model", "created": began, "owned_by": "vlmend", "vlmend": about}


def _safe(text: str, said: str) -> str:
    """What may be sent of a reply so far: no half a character, and no blank at the end that a whole reply lacks."""
    steady = text.rstrip("\ufffd").rstrip()
    return steady[len(said) :] if steady.startswith(said) else ""


def _event(content: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
