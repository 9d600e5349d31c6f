"""One JSON line a request on stderr; prompts, replies and keys are not in it unless asked for."""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmend.serving.jobs import Answer, Job

__all__ = ["Log", "logger"]

logger = logging.getLogger("vlmend.serving")


@dataclass(frozen=True)
class Log:
    """Writes lines to the logger `vlmend.serving`.

    Attributes:
        words: Whether requests and replies are written down, too.
    """

    words: bool = False

    def answered(self, name: str, model: str, status: int, code: str, job: Job | None, answer: Answer | None) -> None:
        """How a request ended."""
        row: dict[str, Any] = {"request": name, "model": model, "status": status}
        row |= {"code": code} if code else {}
        if job is not None:
            row |= {"pictures": len(job.conversation.images), "first_s": _rounded(job.first_s)}
            row |= {"replica": job.replica} if job.replica else {}
            row |= {"again": job.again} if job.again else {}
        if answer is not None:
            reply = answer.reply
            row |= {"prompt_tokens": reply.prompt_tokens, "new_tokens": reply.new_tokens}
            row |= {"seconds": _rounded(reply.seconds), "fired": sum(reply.fired.values())}
        if self.words and job is not None:
            row["turns"] = [[turn.role, turn.text] for turn in job.conversation.turns]
            row["reply"] = answer.reply.text if answer else None
        self._write("answered", row)

    def failed(self, problem: Exception) -> None:
        """A failure that is none of the client's: where in the code, and not with which words."""
        frames = traceback.extract_tb(problem.__traceback__)[-6:]
        places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
        self._write("failed", {"error": type(problem).__name__, "at": places})

    def _write(self, event: str, row: dict[str, Any]) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        logger.info(json.dumps({"at": when, "event": event} | row))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
