"""A model behind an OpenAI-compatible chat endpoint: replies, and nothing else of it.

Here it is decided what becomes of a batch when requests have no answer: one is given up, or the
endpoint is. Questions and answers on the wire are in `wire`, what mends do with replies in `editing/replies`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, final

import httpx

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import Edit, FilterImage, ReviewReply, RewritePrompt, ShowExamples, ShowReasoned, idle
from vlmend.core.mend import Mend
from vlmend.core.targets import Kind
from vlmend.core.waiting import waiting
from vlmend.errors import (
    BadParameter,
    BatchProblem,
    ModelProblem,
    NeedsAccess,
    SampleError,
    Stopped,
    UsageError,
    VlmendError,
)
from vlmend.models.api.wire import Dialect, Endpoint, NoAnswer, Wire
from vlmend.models.editing.inputs import rewritten
from vlmend.models.editing.replies import answer

__all__ = ["PREFIX", "ApiTarget"]

PREFIX = "api:"
"""How the name of a model begins that is asked over HTTP."""

BASE_VARIABLE = "OPENAI_BASE_URL"
ABOUT_REQUEST = {400, 413, 415, 422}
"""Statuses that speak of one request, once another with the same settings was answered."""

HARMLESS = Conversation.ask("Say: ok.")
STILL_WORKS = (
    "An API gives replies only: audits work, and mends of words (methods that need replies, vlmend list methods). "
    "For the others take a model that vlmend loads itself."
)


@final
@dataclass(frozen=True, eq=False)
class ApiTarget:
    """A view of one API model under zero or more mends of words and images: prompts rewritten, images filtered,
    replies reviewed.

    Attributes:
        endpoint: Where it is.
        mends: What this view applies, in order.
        dialect: What was learnt about the endpoint, shared by all views.
    """

    endpoint: Endpoint
    mends: tuple[Mend, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)

    @classmethod
    def of(cls, name: str, base_url: str | None = None, *, send_outside: bool = False) -> ApiTarget:
        """`api:MODEL` at an address, or at that in OPENAI_BASE_URL; `send_outside` as in `LoadOptions`.

        Raises:
            UsageError: No address is given; none is taken for granted, since requests may be harmful.
        """
        base = base_url or os.environ.get(BASE_VARIABLE, "")
        if not base:
            raise UsageError(
                f"{name} is to be asked over HTTP, and there is no address.",
                f"Pass --api-base URL or set {BASE_VARIABLE}, such as https://api.openai.com/v1.",
            )
        return cls(Endpoint(name.removeprefix(PREFIX), base, send_outside=send_outside))

    kind: ClassVar[Kind] = "chat"

    @property
    def id(self) -> str:
        """`api:MODEL@digest` and the mends: one name at two addresses gives two ids."""
        base = f"{self.name}@{self.model_digest[:8]}"
        return "+".join([base, *(f"{m.card.method}@{m.digest[:8]}" for m in self.mends)])

    @property
    def name(self) -> str:
        return PREFIX + self.endpoint.model

    @property
    def model_digest(self) -> str:
        """Of name and address: what is behind them can change unseen."""
        return hashlib.sha256(f"{self.endpoint.model}\n{self.endpoint.base_url}".encode()).hexdigest()

    @property
    def identity(self) -> Mapping[str, str]:
        """All that can be known of it: its name and its address."""
        return {"weights": self.model_digest}

    @property
    def image_side(self) -> int:
        """Of made images: what LLaVA reads, since an API does not say what it reads without loss."""
        return 336

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """Every edit that does something, in the order of the mends."""
        return tuple(e for mend in self.mends for e in mend.edits if isinstance(e, Edit) and not idle(e))

    @property
    def bare(self) -> ApiTarget:
        """The same model without its mends."""
        return replace(self, mends=())

    def with_mend(self, mend: Mend) -> ApiTarget:
        """A view with one more mend.

        Raises:
            MendMismatch: The mend was made for another model or address.
            NeedsAccess: It acts inside the model.
        """
        mend.check_base(self.name, self.model_digest)
        outside = RewritePrompt | ShowExamples | FilterImage | ShowReasoned | ReviewReply
        kinds = {type(e).__name__ for e in mend.edits if not idle(e) and not isinstance(e, outside)}
        if kinds:
            raise NeedsAccess(
                f"The mend {mend.card.method} acts inside the model ({', '.join(sorted(kinds))}), where {self.name} "
                "cannot be reached.",
                STILL_WORKS,
            )
        return replace(self, mends=(*self.mends, mend))

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """Ask for each reply by itself, some at a time; `seconds` is each one's share of the wall-clock time.

        Raises:
            BatchProblem: Some requests have no reply; it carries those of the others.
            SampleError: The only request has none.
            ModelProblem: The endpoint answers nobody, or not with these settings; what was left is not asked.
            UsageError: The key or the sampling cannot be sent.
            Stopped: By Ctrl-C; it carries the replies that had come.
        """
        if sampling.least:
            raise BadParameter("An API cannot hold back the end token.", "Leave `least` at 0.")
        if not batch:
            return []
        began = time.monotonic()
        limits = httpx.Timeout(self.endpoint.timeout_s, pool=None)
        with httpx.Client(headers=self.endpoint.headers, timeout=limits) as client:
            asker = _Asker(self.name, self.edits, Wire(self.endpoint, self.dialect, client))
            found = asker.outcomes(batch, sampling)
        seconds = (time.monotonic() - began) / len(batch)
        outcomes = [replace(one, seconds=seconds) if isinstance(one, Reply) else one for one in found]
        replies = [one for one in outcomes if isinstance(one, Reply)]
        problems = [one for one in outcomes if isinstance(one, VlmendError)]
        if not problems:
            return replies
        if not replies and all(problem is problems[0] for problem in problems):
            raise problems[0]
        raise BatchProblem(
            f"{len(problems)} of {len(batch)} requests have no reply. The first: {problems[0].message}",
            problems[0].hint,
            outcomes,
        )


@dataclass(frozen=True, eq=False)
class _Asker:
    """One call of `generate`: what `answer` needs of a model, and the fate of the endpoint.

    Attributes:
        works: Set once the endpoint has answered with these settings.
        down: Why the endpoint is given up, where it is.
        trial: Held while that is found out.
    """

    name: str
    edits: tuple[Edit, ...]
    wire: Wire
    works: threading.Event = field(default_factory=threading.Event)
    down: list[ModelProblem] = field(default_factory=list)
    trial: threading.Lock = field(default_factory=threading.Lock)

    def outcomes(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply | VlmendError]:
        """A reply or an error for each request, in order; after Ctrl-C nothing more is asked or waited for.

        The threads are daemons: one that still waits for a slow endpoint keeps nobody from leaving.

        Raises:
            Stopped: By Ctrl-C; it carries what was answered.
        """
        futures: list[Future[Reply | VlmendError]] = [Future() for _ in batch]
        left = iter(zip(futures, batch, strict=True))
        turn = threading.Lock()

        def work() -> None:
            while not self.wire.stopped.is_set() or self.down:
                with turn:
                    future, conversation = next(left, (None, None))
                if future is None or conversation is None:
                    return
                try:
                    future.set_result(self._outcome(conversation, sampling))
                except BaseException as problem:
                    future.set_exception(problem)

        for k in range(min(self.wire.endpoint.at_once, len(batch))):
            threading.Thread(target=work, daemon=True, name=f"vlmend-api-{k}").start()
        try:
            with waiting():
                return [future.result() for future in futures]
        except KeyboardInterrupt:
            self.wire.stopped.set()
            raise Stopped([future.result() if _answered(future) else None for future in futures]) from None
        except BaseException:
            self.wire.stopped.set()
            raise

    def decode(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """One question to the endpoint for each, in the words that the mends put it."""
        return [self._asked(rewritten(self.edits, conversation), sampling) for conversation in batch]

    def _outcome(self, conversation: Conversation, sampling: Sampling) -> Reply | VlmendError:
        if self.down:
            return self.down[0]
        try:
            return answer(self, self.edits, [conversation], sampling)[0]
        except VlmendError as problem:
            return problem
        except NoAnswer as trouble:
            return self._blamed(trouble, sampling)

    def _asked(self, conversation: Conversation, sampling: Sampling) -> Reply:
        if conversation.lead:
            raise BadParameter(
                "A chat API cannot be made to begin its reply with given words.",
                "Ask without a lead, or take a model that vlmend loads itself.",
            )
        reply = self.wire.ask(conversation, sampling)
        self.works.set()
        return reply

    def _blamed(self, trouble: NoAnswer, sampling: Sampling) -> VlmendError:
        """Whose fault it is that a request has no answer: a harmless one with the same settings tells."""
        with self.trial:
            told = trouble.status in ABOUT_REQUEST and self.works.is_set()
            if not self.down and not told and not self.wire.stopped.is_set():
                try:
                    self.wire.ask(HARMLESS, sampling)
                    self.works.set()
                except NoAnswer as worse:
                    self.down.append(_given_up(self.wire.endpoint, self.name, worse))
                    self.wire.stopped.set()
        if self.down:
            return self.down[0]
        return SampleError(
            f"{self.name} does not answer this request: {trouble.said}.", "It answers others; this one is left out."
        )


def _answered(future: Future[Reply | VlmendError]) -> bool:
    return future.done() and future.exception() is None


def _given_up(endpoint: Endpoint, name: str, trouble: NoAnswer) -> ModelProblem:
    hints = {
        401: f"Set {endpoint.key_variable} to a key that this endpoint knows.",
        402: "Look at the account's credit.",
        403: f"Set {endpoint.key_variable} to a key that may use this model.",
        404: "Check the model's name and the address; most addresses end in /v1.",
    }
    other = "Wait until it works again." if trouble.again else "Change what it complains about."
    return ModelProblem(
        f"{name} at {endpoint.base_url} does not answer even a harmless request: {trouble.said}.",
        f"{hints.get(trouble.status, other)} Then run the same command again: finished replies are kept.",
    )
