"""Prompts and given replies read in one call: the logits behind each token of a reply that the model did not choose.

Edits of states act on the positions that they would act on while the model writes the reply itself, so the numbers
are those of decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.utils import ModelOutput

from vlmend.core.conversation import Conversation
from vlmend.core.metrics.entropy import renyi
from vlmend.errors import BadParameter
from vlmend.models.decoding.alternatives import alternative_logprobs, worth_sharing
from vlmend.models.decoding.engine import lengths_of
from vlmend.models.decoding.loop import Waiting, in_budget
from vlmend.models.decoding.prefill import View
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import Rows, precise

__all__ = ["forced_logits", "reply_entropies", "reply_logprobs", "reply_tokens"]


def reply_tokens(reader: Reader, replies: Sequence[str]) -> list[Int[Tensor, " _"]]:
    """Token ids of replies, without special tokens."""
    made = reader.processor.tokenizer(list(replies), add_special_tokens=False).input_ids if replies else []
    return [torch.tensor(ids, dtype=torch.long) for ids in made]


def reply_logprobs(view: View, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Float[Tensor, " _"]]:
    """Log-probability of each token of each reply, in batches that fit.

    Raises:
        BadParameter: Not as many replies as requests.
    """
    if len(batch) != len(replies):
        raise BadParameter(f"There are {len(batch)} requests and {len(replies)} replies.", "Pass one reply for each.")
    tokens, asked = reply_tokens(view.reader, replies), view.rewritten(batch)
    lengths = lengths_of(view, asked) if batch else []
    shared = worth_sharing(view, asked, lengths, tokens)
    others = sorted(set(range(len(batch))) - set(shared))
    found = _in_one_call(view, batch, lengths, tokens, others)
    found |= alternative_logprobs(view, asked, lengths, tokens, shared)
    return [found[k] for k in range(len(batch))]


def reply_entropies(
    view: View, batch: Sequence[Conversation], replies: Sequence[str], alpha: float
) -> list[Float[Tensor, " _"]]:
    """Rényi entropy of the distribution from which each token of each reply is drawn, in nats, in batches that fit.

    Raises:
        BadParameter: Not as many replies as requests, or alpha is not above 0.
    """
    if len(batch) != len(replies):
        raise BadParameter(f"There are {len(batch)} requests and {len(replies)} replies.", "Pass one reply for each.")
    tokens = reply_tokens(view.reader, replies)
    lengths = lengths_of(view, view.rewritten(batch)) if batch else []
    every = range(len(batch))
    found = _in_one_call(view, batch, lengths, tokens, every, lambda logits, _: renyi(logits, alpha))
    return [found[k] for k in every]


def _in_one_call(
    view: View, batch: Sequence[Conversation], lengths: Sequence[int], tokens: Sequence[Int[Tensor, " _"]],
    chosen: Sequence[int], read: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[int, Float[Tensor, " _"]]:  # fmt: skip
    """Of the chosen replies by place, each read in one call with its prompt: log-probabilities unless told."""
    take = logprobs_of if read is None else read
    waiting = [Waiting(k, lengths[k] + len(tokens[k])) for k in chosen]
    waiting.sort(key=lambda one: one.length)
    found: dict[int, Tensor] = {}
    while waiting:
        room = view.workings.room(view.reader.model.device).tokens
        chunk = waiting[:1] if view.anatomy.alone else in_budget(waiting, 0, room)
        rows = [one.index for one in chunk]
        logits = forced_logits(view, [batch[k] for k in rows], [tokens[k] for k in rows])
        found |= {k: take(each, tokens[k]).float().cpu() for k, each in zip(rows, logits, strict=True)}
        waiting = waiting[len(chunk) :]
    return found


def logprobs_of(logits: Float[Tensor, "token vocabulary"], tokens: Int[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Log-probability of each token under the logits behind it."""
    return logits.log_softmax(-1).gather(-1, tokens.to(logits.device)[:, None])[:, 0]


def forced_logits(
    view: View, batch: Sequence[Conversation], tokens: Sequence[Int[Tensor, " _"]], seen: Tensor | None = None
) -> list[Float[Tensor, "_ vocabulary"]]:
    """Logits behind each token of the replies, in float32 or better, under the view's edits.

    Args:
        view: Of all requests.
        batch: The requests.
        tokens: The reply of each.
        seen: What stands in the place of the processor's `pixel_values`.
    """
    asked, contrast = view.asked(batch)
    replies = [*tokens] * contrast.copies
    inputs = view.reader.inputs(asked)
    if seen is not None:
        inputs["pixel_values"] = seen
    rows = view.reader.rows(asked, inputs)
    whole, rows = _appended(inputs, rows, replies, view.reader)
    most = max(len(ids) for ids in replies)
    positions: dict[str, Any] = {}
    if not (view.anatomy.shifted and "pixel_values" in whole):  # as in the prefill of decoding
        positions["position_ids"] = (whole["attention_mask"].cumsum(1) - 1).clamp_min(0)
    view.reader.forget()
    with view.installed(asked, rows):
        out = view.reader.asked(whole)(**whole, **positions, use_cache=False, logits_to_keep=most + 1)
    view.reader.forget()
    logits = contrast.mixed(precise(out.logits[:, -most - 1 : -1] if most else out.logits[:, :0]))
    return [each[most - len(ids) :] for each, ids in zip(logits, tokens, strict=True)]


def _appended(
    inputs: Mapping[str, Any], rows: Rows, replies: Sequence[Tensor], reader: Reader
) -> tuple[dict[str, Any], Rows]:
    """The inputs with a reply behind each prompt, padded on the left anew, and where the prompts are now."""
    shape = inputs["input_ids"].shape
    sizes = [int(real.sum()) + len(reply) for real, reply in zip(rows.real, replies, strict=True)]
    longest = max(sizes)

    def laid(value: Tensor, key: str) -> Tensor:
        parts = [
            torch.cat([value[k, -int(rows.real[k].sum()) :], _more(value[k], reply, key, reader.model)])
            for k, reply in enumerate(replies)
        ]
        fill = reader.pad if key == "input_ids" else 0
        made = value.new_full((len(parts), longest, *value.shape[2:]), fill)
        for k, part in enumerate(parts):
            made[k, longest - len(part) :] = part
        return made

    whole = {
        key: laid(value, key) if isinstance(value, Tensor) and value.shape[:2] == shape else value
        for key, value in inputs.items()
    }
    after = torch.tensor([len(reply) for reply in replies])
    real = whole["attention_mask"].cpu().bool() & (torch.arange(longest)[None] < longest - after[:, None])
    image = torch.zeros_like(real)
    for k, reply in enumerate(replies):
        size = int(rows.real[k].sum())
        image[k, longest - len(reply) - size : longest - len(reply)] = rows.image[k, -size:]
    return whole, Rows(real, image, rows.has_image, after=after)


def _more(value: Tensor, reply: Tensor, key: str, model: Any) -> Tensor:
    """What an input with one entry a token says of the reply: what the model itself says of a token that it writes."""
    if key == "input_ids":
        return reply.to(value)
    told = model._update_model_kwargs_for_generation(ModelOutput(), {key: value[None]}, False).get(key)
    last = value[-1:] if told is None else told[0, -1:]
    return last.expand(len(reply), *value.shape[1:])
