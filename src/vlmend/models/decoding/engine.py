"""From requests to replies: our own decode loop where a model's cache allows it, transformers' where not.

Our loop (`decoding`) lets rows come and go, shares prefixes and image features, and takes rows under
different mends into one batch. It is used for a model once it has given the same numbers as transformers'
own loop on a small trial (`loop_of`); with caches that cannot be joined (windows, recurrent states) rows leave
only. Models that do not pass and mends that mix logits go through transformers' loop, a batch that fits the
budget at a time, or one request at a time where rows cannot share a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import ContrastLogits
from vlmend.errors import BadParameter
from vlmend.models.decoding.generation import Finite, bare_settings, ends_of, generation
from vlmend.models.decoding.loop import Budget, Decoded, Waiting, decode, halve, in_budget, out_of_memory, seeds_of
from vlmend.models.decoding.prefill import View, groups_of, prefilled
from vlmend.models.decoding.sharing import keeps_prompt
from vlmend.models.decoding.trial import loop_of
from vlmend.models.reading.reader import Reader

__all__ = ["check_lengths", "decode_rows", "decode_whole", "lengths_of", "reply_of", "text_of"]


def decode_rows(views: Sequence[View], batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
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
    share = joins and all(keeps_prompt(view.edits) for view in dict.fromkeys(views))
    waiting = _waiting(first, asked, sampling.seed, share)
    groups = {one.index: one.group for one in waiting}

    def prefill(rows: Sequence[int]) -> Any:
        return prefilled([views[k] for k in rows], [asked[k] for k in rows], groups[rows[0]], share)

    ends = ends_of(first.reader)
    with first.adapted():
        model, room = first.reader.asked({}), _room(first)
        found = decode(model, first.anatomy, waiting, prefill, sampling, ends, room, joins=joins)
    seconds = (time.monotonic() - began) / len(batch)
    return [reply_of(first.reader, found[k], seconds, conversation.lead) for k, conversation in enumerate(batch)]


def decode_whole(view: View, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
    """Replies by transformers' loop: a batch ends with its longest reply.

    Raises:
        BadParameter: Draws under a mend that contrasts logits.
        ModelProblem: One request alone does not fit into memory.
    """
    if sampling.temperature > 0 and any(isinstance(edit, ContrastLogits) for edit in view.edits):
        raise BadParameter("A mend that contrasts logits decodes greedily only.", "Set temperature to 0.")
    waiting = _waiting(view, view.rewritten(batch), sampling.seed, share=False)
    copies = 1 + sum(len(edit.views) for edit in view.edits if isinstance(edit, ContrastLogits))
    alone = bool(view.anatomy.alone) or sampling.temperature > 0  # draws must not depend on who shares a batch
    budget = _room(view)
    replies: dict[int, Reply] = {}
    while waiting:
        chunk = waiting[:1] if alone else in_budget(waiting, sampling.max_new_tokens, budget.tokens // copies)
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


def _waiting(view: View, asked: Sequence[Conversation], seed: int, share: bool) -> list[Waiting]:
    """The requests, those that share something side by side, short ones first."""
    lengths = lengths_of(view, asked)
    check_lengths(view, asked, lengths)
    groups = groups_of(view, asked, lengths) if share else [""] * len(asked)
    seeds = seeds_of([conversation.digest for conversation in asked], seed)
    rows = [Waiting(k, lengths[k], groups[k], seeds[k]) for k in range(len(asked))]
    return sorted(rows, key=lambda one: (one.group, one.length, one.index))


def lengths_of(view: View, batch: Sequence[Conversation]) -> list[int]:
    """Tokens of each prompt; an image counts as many as the first one took."""
    written = [len(ids) for ids in view.reader.written(batch)]
    workings = view.workings
    first = next((k for k, conversation in enumerate(batch) if conversation.has_image), None)
    if workings.image_tokens is None and first is not None:
        read = int(view.reader.inputs([batch[first]])["attention_mask"].sum())
        workings.image_tokens = max(0, read - written[first]) // len(batch[first].images)
    each = workings.image_tokens or 0
    return [length + each * len(c.images) for length, c in zip(written, batch, strict=True)]


def check_lengths(view: View, batch: Sequence[Conversation], lengths: Sequence[int]) -> None:
    """
    Raises:
        SampleError: A prompt is longer than what the model was made to read.
    """
    limit = view.reader.context
    for conversation, length in zip(batch, lengths, strict=True):
        if limit is not None and length > limit:  # roughly; the processor tells it exactly
            view.reader.check_context(view.reader.inputs([conversation]))


def _room(view: View) -> Budget:
    return view.workings.room(view.reader.model.device)


def _generated(view: View, batch: Sequence[Conversation], sampling: Sampling, seed: int) -> list[Reply]:
    """One pass of transformers' loop."""
    began = time.monotonic()
    asked, contrast = view.asked(batch)
    model = view.reader.model
    inputs = view.reader.inputs(asked)
    view.reader.check_context(inputs)
    rows = view.reader.rows(asked, inputs)
    cards = [model.device] if model.device.type == "cuda" else []
    with view.installed(asked, rows), torch.random.fork_rng(cards, enabled=sampling.temperature > 0):
        if sampling.temperature > 0:  # transformers draws from the global generator
            torch.manual_seed(seed)
        plan = generation(view.reader, sampling)
        with bare_settings(model):
            out = view.reader.asked(inputs).generate(
                **inputs, generation_config=plan, logits_processor=[contrast, Finite()]
            )
    view.reader.forget()
    new = out[: len(batch), inputs["input_ids"].shape[1] :].cpu()
    seconds = (time.monotonic() - began) / len(batch)
    ends = ends_of(view.reader)
    found: list[Reply] = []
    for k, conversation in enumerate(batch):
        ids: list[int] = new[k].tolist()
        length = next((n + 1 for n, token in enumerate(ids) if token in ends), len(ids))
        fired = {str(site): int(calls[k]) for site, calls in sorted(rows.fired.items()) if calls[k]}
        done = Decoded(ids[:length], int(rows.real[k].sum()), fired)
        found.append(reply_of(view.reader, done, seconds, conversation.lead))
    return found


def reply_of(reader: Reader, done: Decoded, seconds: float, lead: str) -> Reply:
    """The reply that a row's tokens are."""
    ended = bool(done.tokens) and done.tokens[-1] in ends_of(reader)
    stop = "stop" if ended else "length"
    return Reply(text_of(reader, done.tokens, lead), stop, done.prompt, len(done.tokens), seconds, done.fired)


def text_of(reader: Reader, tokens: Sequence[int], lead: str) -> str:
    """What so many tokens of a reply say, behind its lead."""
    text: str = reader.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return (lead + text).strip()
