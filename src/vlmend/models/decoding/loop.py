"""The decode loop: rows come in batches, leave when they are finished, and others take their place.

What a batch may hold is a budget of tokens, not of rows. A device that runs out of memory halves the
budget and what was under way begins again. A reply depends on its request alone: greedy decoding, and
draws from a generator of the request's own. The prefill of some rows is the caller's (`prefill`); here
is what follows it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.core.conversation import Sampling
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.decoding.cache import growing, joined, kept, plain_layers
from vlmend.models.editing.steps import Steps
from vlmend.models.reading.states import check_finite, precise

__all__ = [
    "DEAD", "Budget", "Chooser", "Decoded", "Prefilled", "Row", "Running", "Waiting", "decode", "decoded", "halve",
    "in_budget", "new_rows", "out_of_memory", "seeds_of",
]  # fmt: skip

COLDEST = 1e-20
"""A temperature below this would make logits infinite; it draws the likeliest token as surely."""

TOKENS = {"cpu": 4096, "cuda": 32_768}
"""What a batch holds at first, in tokens of prompts and replies to come."""
DEAD = 8
"""A batch is cut when one row in so many is finished."""
REFILL = 4
"""Others come in when there is room for one in so many of the rows that the budget allows."""


@dataclass
class Budget:
    """Tokens that a batch may hold; it shrinks when the device runs out of memory, for good."""

    tokens: int

    @classmethod
    def of(cls, device: torch.device) -> Budget:
        """The budget to begin with on a device."""
        return cls(TOKENS.get(device.type, TOKENS["cpu"]))


@dataclass(frozen=True)
class Waiting:
    """A request that has not been read yet.

    Attributes:
        index: Its place among the requests.
        length: Tokens of its prompt, roughly.
        group: Requests of one group share a prefill; "" shares with any other "".
        seed: Of its draws.
    """

    index: int
    length: int
    group: str = ""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Prefilled:
    """What the prefill of some rows leaves.

    Attributes:
        logits: For the first token of each reply, "row vocabulary".
        cache: What the model keeps of the tokens it has read.
        mask: 1 at what each row may look back at, "row token".
        offsets: How far each row's next position is from the number of its tokens (M-RoPE), "row".
        prompts: True length of each prompt, in tokens.
        steps: What edits do to the tokens that follow.
        fired: How often each row's states were edited so far, "row" by site.
    """

    logits: Float[Tensor, "row vocabulary"]
    cache: Any  # transformers' Cache
    mask: Int[Tensor, "row token"]
    offsets: Int[Tensor, " row"]
    prompts: Sequence[int]
    steps: Steps
    fired: dict[Site, Tensor]


@dataclass(frozen=True)
class Decoded:
    """One finished reply: its tokens, the length of its prompt, and how often its states were edited, by site."""

    tokens: list[int]
    prompt: int
    fired: dict[str, int]


@dataclass
class Row:
    """A reply under way.

    Attributes:
        waiting: The request.
        sampling: How its tokens are chosen, and when it stops.
        prompt: True length of its prompt, in tokens.
        fired: How often its states were edited at the prefill, by site.
        since: What the sites had counted by then.
        tokens: Of the reply so far.
        done: It has ended.
        told: It was handed over.
    """

    waiting: Waiting
    sampling: Sampling
    prompt: int
    fired: Counter[Site]
    since: Counter[Site]
    tokens: list[int] = field(default_factory=list[int])
    done: bool = False
    told: bool = False


class Running:
    """Rows under way in one model.

    Args:
        model: The transformers model.
        begun: As a prefill leaves them.
        joins: Whether others may come in; that takes a cache of plain layers. Else the model's own cache stays.
    """

    def __init__(self, model: Any, begun: Prefilled, joins: bool) -> None:
        self._model, self._joins = model, joins
        self.mask, self.offsets, self.steps = begun.mask, begun.offsets, begun.steps
        self._cache: Any = growing(plain_layers(begun.cache)) if joins else begun.cache

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocabulary"]:
        """Read one token a row; gives the logits for the next."""
        positions = self.mask.sum(1, keepdim=True) + self.offsets[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        out = self._model(
            input_ids=tokens[:, None], attention_mask=self.mask, position_ids=positions,
            past_key_values=self._cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return precise(out.logits[:, -1])

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these rows only; in a plain cache, columns that no row looks at any more are dropped."""
        self.mask, self.offsets, self.steps = self.mask[rows], self.offsets[rows], self.steps.kept(rows.cpu())
        if not self._joins:
            self._cache.reorder_cache(rows)  # named after beam search; it takes fewer rows as well
            return
        first = int(self.mask.any(0).int().argmax())
        self.mask = self.mask[:, first:]
        self._cache = growing(kept(plain_layers(self._cache), rows, first))

    def join(self, begun: Prefilled) -> None:
        """Take in rows that were read elsewhere, after our own."""
        longest = max(self.mask.shape[1], begun.mask.shape[1])
        both = [torch.nn.functional.pad(mask, (longest - mask.shape[1], 0)) for mask in (self.mask, begun.mask)]
        self.mask, self.steps = torch.cat(both), self.steps.joined(begun.steps)
        self.offsets = torch.cat([self.offsets, begun.offsets])
        self._cache = growing(joined(plain_layers(self._cache), plain_layers(begun.cache)))


def decode(
    model: Any, anatomy: Anatomy, waiting: Sequence[Waiting], prefill: Callable[[Sequence[int]], Prefilled],
    sampling: Sampling, ends: frozenset[int], budget: Budget, *, joins: bool,
) -> dict[int, Decoded]:  # fmt: skip
    """Answer every waiting request; gives the replies by index.

    Args:
        model: The transformers model.
        anatomy: Its blocks.
        waiting: The requests; those of one group side by side, short ones first, share batches best.
        prefill: Reads the requests of these indices, all of one group.
        sampling: How to choose tokens, and when to stop.
        ends: Tokens that end a reply.
        budget: What a batch may hold; halved when memory runs out.
        joins: Whether rows may come into a batch that is under way.

    Raises:
        ModelProblem: One request alone does not fit into memory.
    """
    finished: dict[int, Decoded] = {}
    while len(finished) < len(waiting):
        left = [one for one in waiting if one.index not in finished]
        try:
            for index, found in _rounds(model, anatomy, left, prefill, sampling, ends, budget, joins):
                finished[index] = found
        except RuntimeError as problem:
            if not out_of_memory(problem):
                raise
            halve(budget, left, sampling, problem)
    return finished


def in_budget(waiting: Sequence[Waiting], new_tokens: int, tokens: int) -> Sequence[Waiting]:
    """The first requests, of one group, that fit into so many tokens together; at least one."""
    taken = longest = 0
    for one in waiting:
        longest = max(longest, one.length + new_tokens)
        if taken and (one.group != waiting[0].group or (taken + 1) * longest > tokens):
            break
        taken += 1
    return waiting[:taken]


def halve(budget: Budget, left: Sequence[Waiting], sampling: Sampling, problem: RuntimeError) -> None:
    """Make the budget smaller, or give up where one request alone is too much.

    Raises:
        ModelProblem: One request alone does not fit into memory.
    """
    longest = max(one.length for one in left) + sampling.max_new_tokens
    if budget.tokens <= longest:
        raise ModelProblem(
            f"One request of {longest} tokens does not fit into memory ({str(problem).splitlines()[0][:160]}).",
            "Ask for fewer new tokens or smaller images, or load the model with a smaller --dtype or --quantize.",
        ) from problem
    budget.tokens = max(longest, budget.tokens // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(problem: RuntimeError) -> bool:
    """Whether the device ran out of memory; the CPU's allocator says so in words only."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)


def seeds_of(digests: Sequence[str], seed: int) -> list[int]:
    """A seed for each request, from the run's seed and the request itself; equal requests get different ones."""
    seen: Counter[str] = Counter()
    seeds: list[int] = []
    for digest in digests:
        text = f"{seed}:{digest}:{seen[digest]}"
        seen[digest] += 1
        seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
    return seeds


def _rounds(
    model: Any, anatomy: Anatomy, waiting: Sequence[Waiting], prefill: Callable[[Sequence[int]], Prefilled],
    sampling: Sampling, ends: frozenset[int], budget: Budget, joins: bool,
) -> Iterator[tuple[int, Decoded]]:  # fmt: skip
    """Replies as they are finished."""
    rows: list[Row] = []
    running: Running | None = None
    chooser = Chooser(ends)
    logits: Tensor | None = None
    while waiting or rows:
        chunk = _next(waiting, rows, sampling, budget) if joins or not rows else ()
        if chunk:
            waiting = waiting[len(chunk) :]
            begun = prefill([one.index for one in chunk])
            logits = begun.logits if logits is None or running is None else torch.cat([logits, begun.logits])
            if running is None:
                running = Running(model, begun, joins)
            else:
                running.join(begun)
            rows += new_rows(chunk, begun, running.steps.calls, [sampling] * len(chunk))
            if joins and _next(waiting, rows, sampling, budget):
                continue  # a group of its own beside the one that was just read
        assert running is not None
        assert logits is not None
        tokens = chooser.choose(precise(logits), rows)
        yield from _told(rows, running)
        alive = [k for k, row in enumerate(rows) if not row.done]
        if not alive:
            rows, running, logits = [], None, None
            continue
        if len(rows) - len(alive) >= max(1, len(rows) // DEAD):
            index = torch.tensor(alive, device=tokens.device)
            running.keep(index)
            rows, tokens = [rows[k] for k in alive], tokens[index]
        with running.steps.installed(anatomy):
            logits = running.step(tokens)


def _next(waiting: Sequence[Waiting], rows: Sequence[Row], sampling: Sampling, budget: Budget) -> Sequence[Waiting]:
    """Who may come in now: as many as there is room for, but no few that would cost a pass of their own."""
    if not waiting:
        return ()
    new = sampling.max_new_tokens
    longest = max((row.prompt + new for row in rows), default=0)
    whole = len(in_budget(waiting, new, budget.tokens))
    chunk = in_budget(waiting, new, budget.tokens - len(rows) * max(longest, waiting[0].length + new))
    enough = not rows or len(chunk) >= min(whole, max(1, (len(rows) + len(chunk)) // REFILL))
    fits = not rows or (len(rows) + len(chunk)) * max(longest, *(c.length + new for c in chunk)) <= budget.tokens
    return chunk if enough and fits else ()


def new_rows(
    chunk: Sequence[Waiting], begun: Prefilled, calls: Counter[Site], samplings: Sequence[Sampling]
) -> list[Row]:
    """Replies that begin with what a prefill left; `calls` is what the sites of the batch have counted so far."""
    fired = [Counter({site: int(n[k]) for site, n in begun.fired.items()}) for k in range(len(chunk))]
    return [
        Row(one, sampling, begun.prompts[k], fired[k], Counter(calls))
        for k, (one, sampling) in enumerate(zip(chunk, samplings, strict=True))
    ]


def _told(rows: Sequence[Row], running: Running) -> Iterator[tuple[int, Decoded]]:
    """The replies that have just been finished, each once."""
    for place, row in enumerate(rows):
        if row.done and not row.told:
            row.told = True
            yield row.waiting.index, decoded(row, place, running)


def decoded(row: Row, place: int, running: Running) -> Decoded:
    """What a row holds so far, `place` being its place among the rows under way."""
    fired = row.fired + running.steps.fired(place, row.since)
    return Decoded(row.tokens, row.prompt, {str(site): count for site, count in sorted(fired.items())})


@dataclass(frozen=True)
class Chooser:
    """Chooses the next token of every row as its own sampling says, and says which rows are done."""

    ends: frozenset[int]
    generators: dict[int, torch.Generator] = field(default_factory=dict[int, torch.Generator])

    def choose(self, logits: Float[Tensor, "row vocabulary"], rows: Sequence[Row]) -> Int[Tensor, " row"]:
        """One token a row; rows that were done already go on with any."""
        held = [k for k, row in enumerate(rows) if len(row.tokens) < row.sampling.least]
        if held and self.ends:
            logits = logits.clone()
            logits[torch.tensor(held)[:, None], torch.tensor(sorted(self.ends))] = -torch.inf
        check_finite(logits)
        tokens = logits.argmax(-1)
        drawn = [k for k, row in enumerate(rows) if row.sampling.temperature > 0 and not row.done]
        if drawn:
            index = torch.tensor(drawn, device=logits.device)
            tokens[index] = self._drawn(logits[index], [rows[k] for k in drawn])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not row.done:
                row.tokens.append(token)
                row.done = token in self.ends or len(row.tokens) >= row.sampling.max_new_tokens
                if row.done:
                    self.generators.pop(row.waiting.index, None)
        return tokens

    def _drawn(self, logits: Float[Tensor, "row vocabulary"], rows: Sequence[Row]) -> Int[Tensor, " row"]:
        heat = torch.tensor(
            [[max(row.sampling.temperature, COLDEST)] for row in rows], dtype=logits.dtype, device=logits.device
        )
        chances = (logits / heat).softmax(-1).cpu()
        drawn = [
            torch.multinomial(chance, 1, generator=self._generator(row.waiting))
            for chance, row in zip(chances, rows, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)

    def _generator(self, one: Waiting) -> torch.Generator:
        if one.index not in self.generators:
            self.generators[one.index] = torch.Generator().manual_seed(one.seed)
        return self.generators[one.index]
