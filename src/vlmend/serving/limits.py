"""What a server takes from those who ask, and what they are told when it is too much."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlmend.errors import SampleError, UsageError, VlmendError

__all__ = ["Limits", "Refusal", "refusal_of"]


@dataclass(frozen=True)
class Limits:
    """What is taken at most.

    Attributes:
        body_bytes: Of a request.
        turns: Messages of a request.
        pictures: Of a request.
        pixels: Of a picture; its size is read before it is decoded.
        new_tokens: Of a reply; a request for more is refused, not cut.
        default_new_tokens: Of a reply where the request does not say.
        held: Requests waiting and under way; one more gets status 429.
        timeout_s: From the last byte of a request to the last of its reply.
        header_s, body_s: Until the headers, and then the body, of a request are there.
        connections: Open at once.
    """

    body_bytes: int = 12_000_000
    turns: int = 256
    pictures: int = 8
    pixels: int = 16_000_000
    new_tokens: int = 1024
    default_new_tokens: int = 256
    held: int = 64
    timeout_s: float = 300.0
    header_s: float = 10.0
    body_s: float = 30.0
    connections: int = 512


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is an error, in OpenAI's form.

    Attributes:
        status: Of HTTP.
        said: What is wrong, and the way out.
        code: For programs.
        about: The field of the request that it is about.
        headers: More headers of the answer.
    """

    status: int
    said: str
    code: str
    about: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def __reduce__(self) -> tuple[object, ...]:
        return Refusal, (self.status, self.said, self.code, self.about, self.headers)

    @property
    def body(self) -> dict[str, Any]:
        """As clients of OpenAI read it."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.said, "type": kind, "param": self.about, "code": self.code}}


def refusal_of(problem: Exception) -> Refusal:
    """An error as an answer; what a library said of a failure that is ours is not told."""
    match problem:
        case Refusal():
            return problem
        case SampleError() | UsageError():
            about = "messages" if isinstance(problem, SampleError) else None
            return Refusal(400, f"{problem.message} {problem.hint}", problem.code, about)
        case VlmendError():
            return Refusal(500, f"{problem.message} {problem.hint}", problem.code)
        case _:
            return Refusal(500, f"The server failed ({type(problem).__name__}).", "internal")
