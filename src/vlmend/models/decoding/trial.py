"""Can a model's rows be decoded by our own loop? Three requests tell: every logit is held to transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import blank_image
from vlmend.errors import ModelProblem, SampleError
from vlmend.models.decoding.cache import plain_layers
from vlmend.models.decoding.generation import bare_settings, generation
from vlmend.models.decoding.loop import Running
from vlmend.models.decoding.prefill import Loop, View, prefilled
from vlmend.models.reading.states import precise

__all__ = ["loop_of"]

TRIAL_STEPS = 3
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Largest difference of logits that is rounding, as a share of their spread; else `HALF_CLOSE`."""
HALF_CLOSE = 0.1

_Logits = dict[tuple[int, int], Tensor]
"""Logits behind token n of request k, by (k, n)."""


@torch.inference_mode()
def loop_of(view: View) -> Loop:
    """How this model's replies are decoded, found by a trial without any mend; tried once."""
    workings = view.workings
    if workings.loop is None:
        workings.loop = _trial(view.bare)
    return workings.loop


def _trial(view: View) -> Loop:
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


def _off(view: View, asked: Sequence[Conversation], drive: Callable[..., _Logits]) -> str:
    """Why a way to drive the requests cannot be used; "" where it gives transformers' own logits."""
    try:
        tokens, wanted = zip(*(_reference(view, one) for one in asked), strict=True)
        found = drive(view, asked, tokens)
        offs = [float((logits - wanted[k][n]).abs().max() / wanted[k][n].std()) for (k, n), logits in found.items()]
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        KeyError,
        ModelProblem,
        SampleError,
    ) as problem:
        return f"it cannot be driven token by token ({str(problem).strip().splitlines()[0][:120]})"
    close = CLOSE.get(view.reader.model.dtype, HALF_CLOSE)
    if all(off <= close for off in offs):  # NaN is never close
        return ""
    return f"a trial batch of ours was {max(offs):.1g} off transformers' own logits"


def _come_and_go(view: View, asked: Sequence[Conversation], tokens: Sequence[Tensor]) -> _Logits:
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


def _only_go(view: View, asked: Sequence[Conversation], tokens: Sequence[Tensor]) -> _Logits:
    """The first of three requests leaves the others."""
    begun = prefilled([view] * 3, asked, "", False)
    running = Running(view.reader.asked({}), begun, joins=False)
    found = {(k, 0): logits for k, logits in enumerate(begun.logits)}
    found |= {(k, 1): logits for k, logits in enumerate(running.step(torch.stack([ids[0] for ids in tokens])))}
    running.keep(torch.tensor([1, 2], device=tokens[0].device))
    found[1, 2], found[2, 2] = running.step(torch.stack([tokens[1][1], tokens[2][1]]))
    return found


def _reference(view: View, conversation: Conversation) -> tuple[Tensor, list[Tensor]]:
    """The first greedy tokens of one request and the logits behind each, by transformers' loop."""
    inputs = view.reader.inputs([conversation])
    plan = generation(view.reader, Sampling(TRIAL_STEPS, least=TRIAL_STEPS))
    plan.output_logits = plan.return_dict_in_generate = True
    with bare_settings(view.reader.model):
        out = view.reader.asked(inputs).generate(**inputs, generation_config=plan)
    view.reader.forget()
    return out.sequences[0, -TRIAL_STEPS:], [precise(logits[0]) for logits in out.logits]
