"""Mends at work on the flat rows of an engine's step, where tokens of many requests stand one behind the other.

Nothing here knows vLLM: a step is told which tokens are whose, and each decoder block hands over what it puts out. A
step in which a mended request passed a block by ends with an error, and so gives no token.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .mends import BASE, Mend, MendError
from .rules import change, is_open

__all__ = ["Request", "Steering"]


@dataclass(frozen=True)
class Request:
    """What a step reads of one request.

    Attributes:
        id: Unique among those under way.
        mend: Name of its mend, or `base`.
        start: Where the first token of this step stands in the request, from 0.
        count: Tokens of this step.
        prompt: Tokens of its prompt.
        images: Places of image tokens in the request, as (first, behind the last).
    """

    id: str
    mend: str
    start: int
    count: int
    prompt: int
    images: Sequence[tuple[int, int]] = ()

    @property
    def last(self) -> int:
        """Where the last prompt token stands."""
        return self.prompt - 1

    def covered(self, tokens: str) -> Iterable[tuple[int, int]]:
        """The places of the request that a scope of an edit covers, as (first, behind the last)."""
        end = self.start + self.count
        match tokens:
            case "all":
                return [(0, end)]
            case "prompt":
                return [(0, self.prompt)]
            case "last_prompt":
                return [(self.last, self.prompt)]
            case "last":
                return [(self.last, end)]
            case "reply":
                return [(self.prompt, end)]
            case "image":
                return self.images
            case _:
                raise MendError(f"there is no scope {tokens!r}")


@dataclass
class _Step:
    """The requests of a step that have a mend, by mend, with the row at which each begins."""

    total: int
    rows: Mapping[str, Sequence[tuple[Request, int]]]
    calls: Counter[int] = field(default_factory=Counter[int])
    places: dict[tuple[str, str, str], tuple[Tensor, Tensor]] = field(default_factory=dict)


class Steering:
    """The mends of one engine.

    Args:
        mends: By name; the first is what a request gets that asks for none.
        device: Of the states.
    """

    def __init__(self, mends: Mapping[str, Mend], device: torch.device | str = "cpu") -> None:
        self.mends = mends
        self.device = torch.device(device)
        self.fired: Counter[tuple[str, int]] = Counter()
        """Positions that were edited so far, by mend and layer."""
        self.proved = 0
        """Steps that ended with every edit at its place; the sampler takes one for each of its own."""
        self._orders = {name: _order(mend, self.device) for name, mend in mends.items()}
        self._open: dict[tuple[str, int], bool] = {}
        self._asked: Callable[[], Sequence[Request]] | None = None
        self._total = 0
        self._step: _Step | None = None

    @property
    def layers(self) -> frozenset[int]:
        """Blocks whose output is wanted."""
        return frozenset[int]().union(*(mend.layers for mend in self.mends.values()))

    @contextmanager
    def step(self, requests: Callable[[], Sequence[Request]], total: int) -> Generator[None]:
        """One step of the engine.

        Args:
            requests: Tells them in the order of their rows; called once, when the first block has run.
            total: Tokens of the step.

        Raises:
            MendError: A block of a mend did not run once, or an edit had no place.
        """
        self._asked, self._total, self._step, self.proved = requests, total, None, 0
        try:
            yield
            if total:
                self._settle()
        finally:
            self._asked, self._step = None, None

    def after(self, layer: int, hidden: Tensor, residual: Tensor | None) -> None:
        """Edit, in place, what a block puts out: the state is hidden + residual, "row width" each.

        Raises:
            MendError: The rows are not those of the step.
        """
        if self._asked is None or not self._total:
            return  # the engine tries its memory, with tokens of nobody
        step = self._current()
        step.calls[layer] += 1
        if len(hidden) < step.total or (residual is not None and residual.shape != hidden.shape):
            raise MendError(f"block {layer} put out {tuple(hidden.shape)} in a step of {step.total} tokens")
        for name, rows in step.rows.items():
            for gates, edit in self._orders[name].get(layer, ()):
                if gates:
                    self._read(edit, rows, hidden, residual)
                else:
                    self._edit(name, edit, step, hidden, residual)

    def forget(self, finished: Iterable[str]) -> None:
        """Let go of what was kept of these requests."""
        gone = set(finished)
        self._open = {key: value for key, value in self._open.items() if key[0] not in gone} if gone else self._open

    def take_proof(self) -> None:
        """
        Raises:
            MendError: Tokens are about to be chosen from logits of a step that was not proved.
        """
        if not self.proved:
            raise MendError("tokens were about to be chosen in a step in which no mend was seen to act")
        self.proved = 0

    def _current(self) -> _Step:
        if self._step is None:
            assert self._asked is not None
            rows: dict[str, list[tuple[Request, int]]] = defaultdict(list)
            first = 0
            for request in self._asked():
                if request.mend != BASE:
                    if request.mend not in self.mends:
                        raise MendError(f"there is no mend {request.mend!r}")
                    rows[request.mend].append((request, first))
                first += request.count
            if first != self._total:
                raise MendError(f"the requests of a step have {first} tokens, and the step {self._total}")
            self._step = _Step(self._total, dict(rows))
        return self._step

    def _settle(self) -> None:
        step = self._current()
        wanted = {layer for name in step.rows for layer in self.mends[name].layers}
        silent = sorted(layer for layer in wanted if step.calls[layer] != 1)
        if silent:
            raise MendError(
                f"decoder block {silent[0]} handed over its output {step.calls[silent[0]]} times in one step, so the "
                f"mend {next(iter(step.rows))} did not act as it should. Start with --enforce-eager; if you did, this "
                "model's class passes hooks by: export hf, or vlmend serve."
            )
        self.proved = 1

    def _read(self, edit: _Edit, rows: Sequence[tuple[Request, int]], hidden: Tensor, residual: Tensor | None) -> None:
        """Open or close the edit for each request whose last prompt token is in this step."""
        for request, first in rows:
            if edit.meant(request) and request.start <= request.last < request.start + request.count:
                place = torch.tensor([first + request.last - request.start], device=hidden.device)
                opened = is_open(edit.act["gate"], _states(hidden, residual, place)[0])
                self._open[request.id, id(edit)] = opened

    def _edit(self, name: str, edit: _Edit, step: _Step, hidden: Tensor, residual: Tensor | None) -> None:
        places, owners = self._places(name, edit, step)
        if edit.act["gate"] is not None and len(places):
            opened = self._verdicts(edit, step.rows[name], owners)
            places, owners = places[opened], owners[opened]
        if not len(places):
            return
        self.fired[name, edit.act["layer"]] += len(places)
        if edit.act["kind"] == "AddVector":
            hidden[places] += edit.act["vector"].to(hidden)
            return
        states = _states(hidden, residual, places)
        last = states
        if edit.act.get("source") == "last_prompt":
            last = _states(hidden, residual, _lasts(step.rows[name], owners))
        moves = change(edit.act, states, last)
        hidden[places] = (hidden[places].to(moves) + moves).to(hidden.dtype)

    def _places(self, name: str, edit: _Edit, step: _Step) -> tuple[Tensor, Tensor]:
        """Rows of the step that the edit covers, gates aside, and whose they are, by place in the step's list."""
        key = name, edit.act["tokens"], edit.act["when"]
        if key not in step.places:
            rows, owners = list[int](), list[int]()
            for owner, (request, first) in enumerate(step.rows[name]):
                if edit.meant(request):
                    end = request.start + request.count
                    for low, high in request.covered(edit.act["tokens"]):
                        own = range(max(low, request.start), min(high, end))
                        rows += [first + place - request.start for place in own]
                        owners += [owner] * len(own)
            step.places[key] = (
                torch.tensor(rows, dtype=torch.long, device=self.device),
                torch.tensor(owners, dtype=torch.long, device=self.device),
            )
        return step.places[key]

    def _verdicts(self, edit: _Edit, rows: Sequence[tuple[Request, int]], owners: Tensor) -> Tensor:
        """Whether the gate is open, for each place."""
        opened = torch.zeros(len(rows), dtype=torch.bool)
        for owner in owners.unique().tolist():
            verdict = self._open.get((rows[owner][0].id, id(edit)))
            if verdict is None:
                raise MendError(
                    "a token waits for a gate that has not been read: prompts must be read in one go "
                    "(--no-enable-chunked-prefill)"
                )
            opened[owner] = verdict
        return opened.to(self.device)[owners]


@dataclass(frozen=True, eq=False)
class _Edit:
    """An edit with its tensors on the device of the states."""

    act: Mapping[str, Any]

    @cached_property
    def images_only(self) -> bool:
        return self.act["when"] == "with_image"

    def meant(self, request: Request) -> bool:
        """Whether it is for a request."""
        return bool(request.images) or not self.images_only


def _order(mend: Mend, device: torch.device) -> dict[int, list[tuple[bool, _Edit]]]:
    """What is done behind each block, in turn: read the gate of an edit (True), then edit."""
    found: dict[int, list[tuple[bool, _Edit]]] = defaultdict(list)
    edits = [(act, _Edit(_moved(act, device))) for act in mend.edits]
    for act, edit in edits:
        if act["gate"] is not None:
            found[act["gate"]["layer"]].append((True, edit))
    for act, edit in edits:
        found[act["layer"]].append((False, edit))
    return dict(found)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return {key: _moved(one, device) for key, one in value.items()} if isinstance(value, Mapping) else value


def _states(hidden: Tensor, residual: Tensor | None, places: Tensor) -> Tensor:
    """What the next block reads, in float32 or better."""
    precise = torch.promote_types(hidden.dtype, torch.float32)
    state = hidden[places].to(precise)
    return state if residual is None else state + residual[places].to(precise)


def _lasts(rows: Sequence[tuple[Request, int]], owners: Tensor) -> Tensor:
    """For each place, the row of the last prompt token of the request whose it is."""
    found: list[int] = []
    for request, first in (rows[owner] for owner in owners.tolist()):
        if not request.start <= request.last < request.start + request.count:
            raise MendError(
                "an edit is read from the last prompt token, and it is not in this step: prompts must be read in one "
                "go (--no-enable-chunked-prefill)"
            )
        found.append(first + request.last - request.start)
    return torch.tensor(found, dtype=torch.long, device=owners.device)
