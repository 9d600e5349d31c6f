"""Requests that come at any time: each under its own view and with its own sampling, in one batch that never ends.

The same prefill, steps and choice of tokens as in `loop`, driven from outside, a token at a time: for a server, which
can let go of what is kept of requests (`forget_requests`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.models.decoding.engine import check_lengths, lengths_of, reply_of, text_of
from vlmend.models.decoding.generation import ends_of
from vlmend.models.decoding.image_features import Seen
from vlmend.models.decoding.loop import DEAD, Chooser, Decoded, Row, Running, Waiting, decoded, new_rows, seeds_of
from vlmend.models.decoding.prefill import View, prefilled
from vlmend.models.decoding.recall import Recall
from vlmend.models.decoding.sharing import mixes_rows
from vlmend.models.decoding.trial import loop_of
from vlmend.models.reading.states import precise

__all__ = ["Live", "LiveRequest", "forget_requests", "takes_company"]


def takes_company(view: View) -> bool:
    """Whether requests to a view may come into a batch that is under way, beside those to other such views."""
    return mixes_rows(view.edits) and loop_of(view).way == "refilled"


def forget_requests(view: View) -> None:
    """Let go of the prompts and the image features that are kept of requests to any view of this model."""
    view.workings.seen, view.workings.recall = Seen(), Recall()


@dataclass(frozen=True, eq=False)
class LiveRequest:
    """A request as it will be read.

    Attributes:
        view: Whose it is; it `takes_company`.
        asked: The request in the words and with the images that the view's mends give it.
        sampling: How its tokens are chosen, and when it stops.
        length: Tokens of its prompt, roughly.
        seed: Of its draws.
    """

    view: View
    asked: Conversation
    sampling: Sampling
    length: int
    seed: int

    @classmethod
    @torch.inference_mode()
    def of(cls, view: View, conversation: Conversation, sampling: Sampling) -> LiveRequest:
        """The request, measured.

        Raises:
            SampleError: It is longer than what the model reads, or spells what it must not.
        """
        (asked,) = view.rewritten([conversation])
        lengths = lengths_of(view, [asked])
        check_lengths(view, [asked], lengths)
        return cls(view, asked, sampling, lengths[0], seeds_of([asked.digest], sampling.seed)[0])

    @property
    def room(self) -> int:
        """Tokens of prompt and longest reply."""
        return self.length + self.sampling.max_new_tokens


@dataclass(eq=False)
class Live:
    """Rows under way in one model.

    Use: `admit` requests, `choose` their next tokens, look at `replies`, `drop` who is done or gone, `step`.

    Args:
        view: Any view of the model.
    """

    view: View
    rows: list[Row] = field(default_factory=list[Row])
    _leads: dict[int, str] = field(default_factory=dict[int, str])
    _room: dict[int, int] = field(default_factory=dict[int, int])
    _numbers: count[int] = field(default_factory=count)
    _running: Running | None = None
    _logits: Float[Tensor, "row vocabulary"] | None = None
    _tokens: Tensor | None = None

    def __post_init__(self) -> None:
        self._chooser = Chooser(ends_of(self.view.reader))
        self._model = self.view.reader.asked({})

    def fits(self, request: LiveRequest, beside: Sequence[LiveRequest] = ()) -> bool:
        """Whether there is room for a request beside the rows under way and others that will come; alone, always."""
        rooms = [*(self._room[row.waiting.index] for row in self.rows), *(one.room for one in beside), request.room]
        return len(rooms) == 1 or len(rooms) * max(rooms) <= self.budget

    @property
    def budget(self) -> int:
        """Tokens that the batch may hold."""
        return self.view.workings.room(self.view.reader.model.device).tokens

    @torch.inference_mode()
    def admit(self, batch: Sequence[LiveRequest]) -> list[int]:
        """Read requests together; gives the number of each row. If it raises, the rows under way are as they were.

        Raises:
            VlmendError, and whatever processor and model raise: A request, or a mend, cannot be read.
        """
        numbers = [next(self._numbers) for _ in batch]
        waiting = [Waiting(k, one.length, "", one.seed) for k, one in zip(numbers, batch, strict=True)]
        with self.view.bare.adapted():  # no weights are put in, and a model compiled past its hooks is refused
            begun = prefilled([one.view for one in batch], [one.asked for one in batch], "", keep=False)
        if self._running is None or self._logits is None:
            self._running, self._logits = Running(self._model, begun, joins=True), begun.logits
        else:
            self._running.join(begun)
            self._logits = torch.cat([self._logits, begun.logits])
        self.rows += new_rows(waiting, begun, self._running.steps.calls, [one.sampling for one in batch])
        self._leads |= {k: one.asked.lead for k, one in zip(numbers, batch, strict=True)}
        self._room |= {k: one.room for k, one in zip(numbers, batch, strict=True)}
        return numbers

    def fired(self, number: int) -> dict[str, int]:
        """How often the states of a row have been edited, by site."""
        return self._decoded(number).fired

    @torch.inference_mode()
    def choose(self) -> None:
        """The next token of every row.

        Raises:
            ModelProblem: Logits are not finite.
        """
        assert self._logits is not None
        self._tokens = self._chooser.choose(precise(self._logits), self.rows)

    def reply(self, number: int, seconds: float) -> Reply:
        """What a row has said so far; `seconds` goes into it as it is."""
        return reply_of(self.view.reader, self._decoded(number), seconds, self._leads[number])

    def text(self, number: int) -> str:
        """What a row has said so far."""
        return text_of(self.view.reader, self._row(number)[1].tokens, self._leads[number])

    def done(self, number: int) -> bool:
        """Whether a row has ended."""
        return self._row(number)[1].done

    def drop(self, number: int) -> None:
        """A row is done with, whether it has ended or not."""
        row = self._row(number)[1]
        row.done = row.told = True

    @torch.inference_mode()
    def step(self) -> None:
        """Read the tokens that were chosen; rows that are done with leave first, once there are enough of them."""
        assert self._running is not None
        assert self._tokens is not None
        alive = [k for k, row in enumerate(self.rows) if not row.told]
        if not alive:
            self.clear()
            return
        if len(self.rows) - len(alive) >= max(1, len(self.rows) // DEAD):
            index = torch.tensor(alive, device=self._tokens.device)
            self._running.keep(index)
            self._tokens = self._tokens[index]
            self._forget([row for row in self.rows if row.told])
            self.rows = [self.rows[k] for k in alive]
        with self._running.steps.installed(self.view.anatomy):
            self._logits = self._running.step(self._tokens)

    def clear(self) -> None:
        """No row is under way any more."""
        self._forget(self.rows)
        self.rows, self._running, self._logits, self._tokens = [], None, None, None

    def _forget(self, rows: Sequence[Row]) -> None:
        for row in rows:
            number = row.waiting.index
            for kept in (self._leads, self._room, self._chooser.generators):
                kept.pop(number, None)

    def _row(self, number: int) -> tuple[int, Row]:
        return next((place, row) for place, row in enumerate(self.rows) if row.waiting.index == number)

    def _decoded(self, number: int) -> Decoded:
        place, row = self._row(number)
        assert self._running is not None
        return decoded(row, place, self._running)
