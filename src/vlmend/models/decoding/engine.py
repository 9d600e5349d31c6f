"""From requests to replies: our own decode loop where a model's cache allows it, transformers' where not.

Our loop (`decoding`) lets rows come and go, shares prefixes and image features, and takes rows under
different mends into one batch. It is used for a model once it has given the same numbers as transformers'
own loop on a small trial (`loop_of`); with caches that cannot be joined (windows, recurrent states) rows leave
only. Models that do not pass and mends that mix logits go through transformers' loop, a batch that fits the
budget at a time, or one request at a time where rows cannot share a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import ActivationEdit, ContrastLogits, Edit, LoadAdapter
from vlmend.core.images import blank_image
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.decoding.cache import plain_layers
from vlmend.models.decoding.loop import (
    Budget,
    Decoded,
    Running,
    Waiting,
    decode,
    halve,
    in_budget,
    out_of_memory,
    seeds_of,
)
from vlmend.models.decoding.prefill import UNTOUCHED, Loop, View, groups_of, prefilled
from vlmend.models.editing.states import Rows, precise
from vlmend.models.reading.reader import Reader

__all__ = ["Contrast", "Speaker", "decode_rows", "decode_whole", "loop_of"]

TRIAL_STEPS = 3
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest difference of logits that is rounding, as a share of their spread; else `HALF_CLOSE`."""
HALF_CLOSE = 0.1

_Logits = dict[tuple[int, int], Tensor]
"""Logits behind token n of request k, by (k, n)."""


@runtime_checkable
class Speaker(View, Protocol):
    """What decoding needs of a view of a model."""

    @property
    def edits(self) -> tuple[Edit, ...]: ...

    @property
    def image_side(self) -> int: ...

    @property
    def bare(self) -> Speaker: ...

    def rewritten(self, batch: Sequence[Conversation]) -> list[Conversation]: ...

    def asked(self, batch: Sequence[Conversation]) -> tuple[list[Conversation], list[ContrastLogits]]: ...

    def adapted(self) -> AbstractContextManager[None]: ...

    def installed(self, batch: Sequence[Conversation], rows: Rows) -> AbstractContextManager[None]: ...


def decode_rows(views: Sequence[Speaker], batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
    """Replies by our own loop, each request under its own view.

    Args:
        views: Of each request; all of one loaded model, and with the same adapters.
        batch: The requests.
        sampling: The same for all.
    """
    began = time.monotonic()
    first = views[0]
    asked = [view.rewritten([conversation])[0] for view, conversation in zip(views, batch, strict=True)]
    joins = loop_of(first).way == "refilled"
    share = joins and all(_untouched(view.edits) for view in dict.fromkeys(views))
    waiting = _waiting(first, asked, sampling.seed, share)
    groups = {one.index: one.group for one in waiting}

    def prefill(rows: Sequence[int]) -> Any:
        return prefilled([views[k] for k in rows], [asked[k] for k in rows], groups[rows[0]], share)

    ends = _ends(first.reader.model)
    with first.adapted():
        model, room = first.reader.asked({}), _room(first)
        found = decode(model, first.anatomy, waiting, prefill, sampling, ends, room, joins=joins)
    seconds = (time.monotonic() - began) / len(batch)
    return [_reply(first.reader, found[k], seconds, conversation.lead) for k, conversation in enumerate(batch)]


def decode_whole(view: Speaker, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
    """Replies by transformers' loop: a batch ends with its longest reply.

    Raises:
        BadParameter: Draws under a mend that contrasts logits.
        ModelProblem: One request alone does not fit into memory.
    """
    pairs = view.asked(batch[:1])[1]
    if sampling.temperature > 0 and any(isinstance(edit, ContrastLogits) for edit in view.edits):
        raise BadParameter("A mend that contrasts logits decodes greedily only.", "Set temperature to 0.")
    waiting = _waiting(view, view.rewritten(batch), sampling.seed, share=False)
    alone = bool(view.anatomy.alone) or sampling.temperature > 0  # draws must not depend on who shares a batch
    budget = _room(view)
    replies: dict[int, Reply] = {}
    while waiting:
        tokens = budget.tokens // (1 + len(pairs))
        chunk = waiting[:1] if alone else in_budget(waiting, sampling.max_new_tokens, tokens)
        try:
            found = _generated(view, [batch[one.index] for one in chunk], sampling, chunk[0].seed)
        except RuntimeError as problem:
            if not out_of_memory(problem):
                raise
            halve(budget, chunk, sampling, problem)
            continue
        replies |= {one.index: reply for one, reply in zip(chunk, found, strict=True)}
        waiting = waiting[len(chunk) :]
    return [replies[k] for k in range(len(batch))]


@torch.inference_mode()
def loop_of(view: Speaker) -> Loop:
    """How this model's replies are decoded, found by a trial without any mend; tried once."""
    workings = view.workings
    if workings.loop is None:
        workings.loop = _trial(view.bare)
    return workings.loop


@dataclass(frozen=True)
class Contrast(LogitsProcessor):
    """Mixes the logits of plain rows with those of their guided twins, which follow them in the batch.

    Plain and guided rows get the same logits, so that greedy decoding keeps them in step.
    """

    pairs: Sequence[ContrastLogits]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self.pairs:
            return scores
        plain, *guided = scores.chunk(len(self.pairs) + 1)
        mixed = plain + sum(e.strength * (g - plain) for e, g in zip(self.pairs, guided, strict=True))
        return mixed.repeat(len(self.pairs) + 1, 1)


def _waiting(view: Speaker, asked: Sequence[Conversation], seed: int, share: bool) -> list[Waiting]:
    """The requests, those that share something side by side, short ones first."""
    lengths = _lengths(view, asked)
    groups = groups_of(view, asked, lengths) if share else [""] * len(asked)
    seeds = seeds_of([conversation.digest for conversation in asked], seed)
    rows = [Waiting(k, lengths[k], groups[k], seeds[k]) for k in range(len(asked))]
    return sorted(rows, key=lambda one: (one.group, one.length, one.index))


def _untouched(edits: Sequence[Edit]) -> bool:
    """Whether everything before the last prompt token stays as the model alone reads it."""
    return all(
        edit.tokens in UNTOUCHED if isinstance(edit, ActivationEdit) else not isinstance(edit, LoadAdapter)
        for edit in edits
    )


def _lengths(view: Speaker, batch: Sequence[Conversation]) -> list[int]:
    """Tokens of each prompt; an image counts as many as the first one took."""
    written = [len(ids) for ids in view.reader.written(batch)]
    workings = view.workings
    first = next((k for k, conversation in enumerate(batch) if conversation.has_image), None)
    if workings.image_tokens is None and first is not None:
        read = int(view.reader.inputs([batch[first]])["attention_mask"].sum())
        workings.image_tokens = max(0, read - written[first]) // len(batch[first].images)
    each = workings.image_tokens or 0
    return [length + each * len(c.images) for length, c in zip(written, batch, strict=True)]


def _room(view: Speaker) -> Budget:
    return view.workings.room(view.reader.model.device)


def _generated(view: Speaker, batch: Sequence[Conversation], sampling: Sampling, seed: int) -> list[Reply]:
    """One pass of transformers' loop."""
    began = time.monotonic()
    asked, pairs = view.asked(batch)
    model = view.reader.model
    inputs = view.reader.inputs(asked)
    rows = view.reader.rows(asked, inputs)
    torch.manual_seed(seed)
    with view.installed(asked, rows):
        out = view.reader.asked(inputs).generate(
            **inputs, generation_config=_generation(model, sampling), logits_processor=[Contrast(pairs)]
        )
    view.reader.forget()
    new = out[: len(batch), inputs["input_ids"].shape[1] :].cpu()
    seconds = (time.monotonic() - began) / len(batch)
    ends = _ends(model)
    found: list[Reply] = []
    for k, conversation in enumerate(batch):
        ids: list[int] = new[k].tolist()
        length = next((n + 1 for n, token in enumerate(ids) if token in ends), len(ids))
        fired = {str(site): int(calls[k]) for site, calls in sorted(rows.fired.items()) if calls[k]}
        done = Decoded(ids[:length], int(rows.real[k].sum()), fired)
        found.append(_reply(view.reader, done, seconds, conversation.lead))
    return found


def _generation(model: Any, sampling: Sampling) -> GenerationConfig:
    """Decoding as asked; a checkpoint's own sampling settings and penalties do not leak in."""
    own = model.generation_config
    drawn = sampling.temperature > 0
    ends = own.eos_token_id
    first = ends[0] if isinstance(ends, list) and ends else ends
    return GenerationConfig(
        disable_compile=True,  # beside a static cache transformers would compile, and hooks would be passed by
        max_new_tokens=sampling.max_new_tokens,
        min_new_tokens=sampling.least or None,
        do_sample=drawn,
        temperature=sampling.temperature if drawn else None,
        top_k=0 if drawn else None,
        top_p=1.0 if drawn else None,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else first,
    )


def _ends(model: Any) -> frozenset[int]:
    ends = cast("int | list[int] | None", model.generation_config.eos_token_id)
    return frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)


def _reply(reader: Reader, done: Decoded, seconds: float, lead: str) -> Reply:
    ended = bool(done.tokens) and done.tokens[-1] in _ends(reader.model)
    text: str = reader.processor.tokenizer.decode(done.tokens, skip_special_tokens=True)
    stop = "stop" if ended else "length"
    return Reply((lead + text).strip(), stop, done.prompt, len(done.tokens), seconds, done.fired)


def _trial(view: Speaker) -> Loop:
    """Three requests by our loop; every logit is held to transformers' own."""
    if view.anatomy.alone:
        return Loop("generate", view.anatomy.alone)
    asked = [
        Conversation.ask("Hi"),
        Conversation.ask("Name it.", blank_image(view.image_side)),
        Conversation.ask("One more, a little longer"),
    ]
    joining = _off(view, asked, _come_and_go)
    if not joining:
        return Loop("refilled")
    leaving = _off(view, asked, _only_go)
    return Loop("generate", leaving) if leaving else Loop("thinned", joining)


def _off(view: Speaker, asked: Sequence[Conversation], drive: Callable[..., _Logits]) -> str:
    """Why a way to drive the requests cannot be used; "" where it gives transformers' own logits."""
    try:
        tokens, wanted = zip(*(_reference(view, one) for one in asked), strict=True)
        found = drive(view, asked, tokens)
        off = max(float((logits - wanted[k][n]).abs().max() / wanted[k][n].std()) for (k, n), logits in found.items())
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, ModelProblem) as problem:
        return f"it cannot be driven token by token ({str(problem).strip().splitlines()[0][:120]})"
    close = CLOSE.get(view.reader.model.dtype, HALF_CLOSE)
    return "" if off <= close else f"a trial batch of ours was {off:.1g} off transformers' own logits"


def _come_and_go(view: Speaker, asked: Sequence[Conversation], tokens: Sequence[Tensor]) -> _Logits:
    """Two requests join the first, which leaves them."""
    first, others = prefilled([view], asked[:1], "", False), prefilled([view] * 2, asked[1:], "", False)
    if not plain_layers(first.cache) or not plain_layers(others.cache):
        raise ValueError("its cache is not one key and value a token in every layer")
    running = Running(view.reader.asked({}), first, joins=True)
    found = {(0, 0): first.logits[0], (1, 0): others.logits[0], (2, 0): others.logits[1]}
    (found[0, 1],) = running.step(torch.stack([tokens[0][0]]))
    running.join(others)
    found[0, 2], found[1, 1], found[2, 1] = running.step(torch.stack([tokens[0][1], tokens[1][0], tokens[2][0]]))
    running.keep(torch.tensor([1, 2], device=tokens[0].device))
    found[1, 2], found[2, 2] = running.step(torch.stack([tokens[1][1], tokens[2][1]]))
    return found


def _only_go(view: Speaker, asked: Sequence[Conversation], tokens: Sequence[Tensor]) -> _Logits:
    """The first of three requests leaves the others."""
    begun = prefilled([view] * 3, asked, "", False)
    running = Running(view.reader.asked({}), begun, joins=False)
    found = {(k, 0): logits for k, logits in enumerate(begun.logits)}
    found |= {(k, 1): logits for k, logits in enumerate(running.step(torch.stack([ids[0] for ids in tokens])))}
    running.keep(torch.tensor([1, 2], device=tokens[0].device))
    found[1, 2], found[2, 2] = running.step(torch.stack([tokens[1][1], tokens[2][1]]))
    return found


def _reference(view: Speaker, conversation: Conversation) -> tuple[Tensor, list[Tensor]]:
    """The first greedy tokens of one request and the logits behind each, by transformers' loop."""
    model = view.reader.model
    inputs = view.reader.inputs([conversation])
    plan = _generation(model, Sampling(TRIAL_STEPS, least=TRIAL_STEPS))
    plan.output_logits = plan.return_dict_in_generate = True
    out = view.reader.asked(inputs).generate(**inputs, generation_config=plan)
    view.reader.forget()
    return out.sequences[0, -TRIAL_STEPS:], [precise(logits[0]) for logits in out.logits]
