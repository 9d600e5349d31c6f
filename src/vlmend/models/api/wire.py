"""An OpenAI-compatible chat endpoint on the wire: how a question looks, what an answer says, when to ask again.

Whose fault it is that there is no answer, and what becomes of the batch, is decided in `api`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    stop_when_event_set,
    wait_exponential,
)

from vlmend.core.conversation import Conversation, Reply, Sampling, StopReason, Turn
from vlmend.errors import UsageError

__all__ = ["FILTERED", "Dialect", "Endpoint", "NoAnswer", "Wire"]

PATH = "/chat/completions"

FILTERED = "I'm sorry, but I can't help with that. [The provider's content filter stopped this.]"
"""The reply where a filter of the provider left none: whoever asks is refused, and no judge has to read it."""

FILTER_CODES = {"content_filter", "content_policy_violation"}
BUSY = {408, 425, 429}
"""Statuses below 500 after which the same request may be answered a little later."""

LONGEST_PAUSE_S = 60.0
MOST_BYTES = 16_000_000
"""An answer longer than this is no chat answer."""

SHOWN = 300


@dataclass(frozen=True)
class Endpoint:
    """Where a model is, and how patiently it is asked.

    Attributes:
        model: Its name at the endpoint.
        base_url: The address, without `/chat/completions`.
        key_variable: Environment variable with the key; it is read at each call and kept nowhere.
        at_once: Requests under way at a time.
        timeout_s: Longest wait for one whole answer.
        tries: How often a request is sent at most.
        pause_s: First pause between tries; each next one is twice as long, up to a minute, and never
            shorter than the server's Retry-After.
        patience_s: No further try begins this long after the first.
        send_outside: Send pictures that lie outside of their data's folder.
    """

    model: str
    base_url: str
    key_variable: str = "OPENAI_API_KEY"
    at_once: int = 8
    timeout_s: float = 120.0
    tries: int = 7
    pause_s: float = 1.0
    patience_s: float = 300.0
    send_outside: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: There is no name, the address is none that can be asked, or a number is out of range.
        """
        object.__setattr__(self, "base_url", self.base_url.rstrip("/").removesuffix(PATH))
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL:
            url = httpx.URL()
        wrong = [] if self.model else ["the model has no name"]
        wrong += [] if url.scheme in ("http", "https") and url.host else ["the address is no http(s) address"]
        wrong += ["the address holds a user, a password or a query"] if url.userinfo or url.query else []
        wrong += ["at_once and tries are below 1"] if min(self.at_once, self.tries) < 1 else []
        wrong += ["timeout_s is not above 0"] if self.timeout_s <= 0 else []
        if wrong:
            raise UsageError(
                f"This API model cannot be asked: {'; '.join(wrong)}.",
                f"Write api:NAME and an address such as http://localhost:8000/v1; a key goes into {self.key_variable}.",
            )

    @property
    def key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()

    @property
    def headers(self) -> dict[str, str]:
        """With the key, where there is one.

        Raises:
            UsageError: The key cannot be sent as it is.
        """
        key = self.key
        if any(not "!" <= letter <= "~" for letter in key):
            raise UsageError(
                f"The key in {self.key_variable} holds a blank or a character that cannot be sent.",
                "Set it to the key alone; it is not shown here.",
            )
        return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass
class Dialect:
    """How an endpoint wants to be told the longest reply; newer OpenAI models refuse the old name."""

    limit: str = "max_tokens"


class NoAnswer(Exception):
    """A request without an answer.

    Args:
        said: What came instead.
        again: Whether asking again may help.
        status: Of HTTP, 0 where there is none.
        after_s: How long the server wants to be left alone.
    """

    def __init__(self, said: str, again: bool, status: int = 0, after_s: float = 0.0) -> None:
        super().__init__(said)
        self.said, self.again, self.status, self.after_s = said, again, status, after_s


@dataclass(frozen=True, eq=False)
class Wire:
    """An endpoint that is being asked.

    Attributes:
        stopped: Once it is set, nobody waits any more and nothing is asked again.
    """

    endpoint: Endpoint
    dialect: Dialect
    client: httpx.Client
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self, conversation: Conversation, sampling: Sampling) -> Reply:
        """Ask, and ask again while that may help.

        Raises:
            NoAnswer: There is none; it tells what came at the last try.
            BadImage: An image cannot be read.
        """
        growing = wait_exponential(multiplier=self.endpoint.pause_s, max=LONGEST_PAUSE_S)

        def pause(state: RetryCallState) -> float:
            trouble = state.outcome.exception() if state.outcome else None
            return max(growing(state), trouble.after_s if isinstance(trouble, NoAnswer) else 0.0)

        patience = stop_after_attempt(self.endpoint.tries) | stop_before_delay(self.endpoint.patience_s)
        tries = Retrying(
            stop=patience | stop_when_event_set(self.stopped),
            sleep=sleep_using_event(self.stopped),
            wait=pause,
            retry=retry_if_exception(lambda trouble: isinstance(trouble, NoAnswer) and trouble.again),
            reraise=True,
        )
        return tries(self.once, conversation, sampling)

    def once(self, conversation: Conversation, sampling: Sampling) -> Reply:
        """Ask one time.

        Raises:
            NoAnswer: There is none.
            BadImage: An image cannot be read, or may not be sent.
        """
        limit = self.dialect.limit
        for image in () if self.endpoint.send_outside else conversation.images:
            image.check_sent()
        try:
            answered, text = self._sent(_body(self.endpoint.model, limit, conversation, sampling))
            if answered.status_code == 400 and limit == "max_tokens" and "max_completion_tokens" in text:
                self.dialect.limit = "max_completion_tokens"
                answered, text = self._sent(_body(self.endpoint.model, self.dialect.limit, conversation, sampling))
            return _read(answered, text)
        except httpx.RequestError as problem:
            raise NoAnswer(self._told(f"{type(problem).__name__} {problem}"), again=True) from problem
        except UnicodeEncodeError as problem:
            raise NoAnswer("its words are no Unicode text", again=False, status=400) from problem
        except NoAnswer as trouble:
            trouble.said = self._told(trouble.said)
            raise

    def _sent(self, body: dict[str, Any]) -> tuple[httpx.Response, str]:
        """The answer and its text; the time limit is for all of it, not for each piece."""
        until = time.monotonic() + self.endpoint.timeout_s
        found = bytearray()
        with self.client.stream("POST", self.endpoint.base_url + PATH, json=body) as answered:
            for piece in answered.iter_bytes():
                found += piece
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer did not end in time")
                if len(found) > MOST_BYTES:
                    raise NoAnswer(f"an answer of more than {MOST_BYTES:,} bytes", again=False)
        return answered, found.decode(errors="replace")

    def _told(self, said: str) -> str:
        """What an endpoint said, in one line, short, and without the key that some repeat."""
        key = self.endpoint.key
        return " ".join((said.replace(key, "[the key]") if key else said).split())[:SHOWN].rstrip(". ")


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Detail(BaseModel):
    message: str = ""
    code: str | int | None = None
    metadata: dict[str, Any] | None = None


class _Refused(BaseModel):
    error: _Detail


def _body(model: str, limit: str, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
    """The request; a seed goes along only where something is drawn."""
    drawn = {"seed": sampling.seed} if sampling.temperature > 0 else {}
    return {
        "model": model,
        "messages": [{"role": turn.role, "content": _content(turn)} for turn in conversation.turns],
        "temperature": sampling.temperature,
        limit: sampling.max_new_tokens,
        **drawn,
    }


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    """Plain words, or the images and then the words."""
    if not turn.images:
        return turn.text
    shown = [{"type": "image_url", "image_url": {"url": image.to_data_uri()}} for image in turn.images]
    return [*shown, {"type": "text", "text": turn.text}]


def _read(answered: httpx.Response, text: str) -> Reply:
    """The reply that an answer holds, or that a filter stands for.

    Raises:
        NoAnswer: It holds none.
    """
    status = answered.status_code
    refused = _refused(text)
    if refused is not None and _filtered(refused):
        return Reply(FILTERED, "filtered", 0, 0, 0.0)
    if status != 200 or refused is not None:
        said = refused.message if refused is not None else text or answered.headers.get("location", "")
        spent = refused is not None and refused.code == "insufficient_quota"
        again = not spent and (status == 200 or status in BUSY or status >= 500)
        raise NoAnswer(f"HTTP {status} {said}", again, status, _after_s(answered.headers))
    try:
        answer = _Answer.model_validate_json(text)
    except ValidationError as problem:
        raise NoAnswer(f"no chat answer came ({problem.errors()[0]['msg']}: {text[:80]!r})", again=True) from problem
    return _reply(answer)


def _refused(text: str) -> _Detail | None:
    """The error that a body tells, also under status 200, or None."""
    try:
        return _Refused.model_validate_json(text).error
    except ValidationError:
        return None


def _filtered(refused: _Detail) -> bool:
    """Whether a filter before the model declined: Azure and OpenAI by the code, OpenRouter by its reasons."""
    return str(refused.code) in FILTER_CODES or bool((refused.metadata or {}).get("reasons"))


def _reply(answer: _Answer) -> Reply:
    """Text, why it ended, and the tokens as told (0 where nothing is told).

    Raises:
        NoAnswer: There is no text where there should be some.
    """
    choice = answer.choices[0]
    content, ended = choice.message.content, choice.finish_reason or "stop"
    text = "".join(part.text for part in content) if isinstance(content, list) else content or ""
    if ended.startswith("content_filter"):
        text = f"{text}\n[The provider's content filter stopped this.]" if text else FILTERED
    elif not text and choice.message.refusal:
        text = choice.message.refusal
    elif not text and ended == "length":
        raise NoAnswer("all tokens were spent before the reply began: it needs a larger --max-new-tokens", again=False)
    elif content is None:
        raise NoAnswer(f"an answer without content (it ended with {ended!r})", again=True)
    usage = answer.usage or _Usage()
    stop: StopReason = "filtered" if text == FILTERED else "length" if ended == "length" else "stop"
    return Reply(text.strip(), stop, usage.prompt_tokens or 0, usage.completion_tokens or 0, 0.0)


def _after_s(headers: Mapping[str, str]) -> float:
    """Retry-After in seconds, whether it is a number or a date; 0 where it is neither."""
    told = headers.get("retry-after", "")
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # a date without a zone cannot be compared
        return 0.0
