"""Several replies to one request, each with its likelihood: the prompt is read once, and gone on from for each.

It goes the way of decoding (`loop`, proven by its trial), only that tokens are given and not chosen. So edits act on
the positions and in the order in which they act while the model writes. Nothing that was read before is gone on from:
numbers that hang on what was asked earlier, in their last digits, could not be had again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlmend.core.conversation import Conversation
from vlmend.models.decoding.loop import DEAD, Prefilled, Running, Waiting, in_budget
from vlmend.models.decoding.prefill import PASS, View, prefilled
from vlmend.models.decoding.sharing import only_whole
from vlmend.models.decoding.trial import loop_of
from vlmend.models.reading.states import precise

__all__ = ["alternative_logprobs", "worth_sharing"]


def worth_sharing(
    view: View, asked: Sequence[Conversation], lengths: Sequence[int], tokens: Sequence[Int[Tensor, " _"]]
) -> list[int]:
    """Which replies are those to a request that stands there several times, where to read it once is known to be right
    and saves more than a pass for each token costs.

    Args:
        view: Of all requests.
        asked: The requests as the view puts them.
        lengths: Tokens of each.
        tokens: The reply of each.
    """
    digests = [conversation.digest for conversation in asked]
    counts = Counter(digests)
    shared = [k for k, digest in enumerate(digests) if counts[digest] > 1]
    saved = sum(lengths[k] for k in shared) - sum({digests[k]: lengths[k] for k in shared}.values())
    longest = max((len(tokens[k]) for k in shared), default=0)
    if saved <= PASS * longest or only_whole(view.edits) or loop_of(view).way != "refilled":
        return []
    return shared


def alternative_logprobs(
    view: View, asked: Sequence[Conversation], lengths: Sequence[int], tokens: Sequence[Int[Tensor, " _"]],
    chosen: Sequence[int],
) -> dict[int, Float[Tensor, " _"]]:  # fmt: skip
    """Log-probability of each token of the chosen replies, by place, float32 on the CPU, in batches that fit.

    Args:
        view: Of all requests.
        asked: The requests as the view puts them.
        lengths: Tokens of each.
        tokens: The reply of each.
        chosen: Places of replies that are `worth_sharing`.
    """
    waiting = _waiting(asked, lengths, tokens, chosen)
    found: dict[int, Tensor] = {}
    with view.adapted():
        while waiting:
            chunk = in_budget(waiting, 0, view.workings.room(view.reader.model.device).tokens)
            rows = [one.index for one in chunk]
            firsts = {asked[k].digest: k for k in rows}
            begun = prefilled([view] * len(firsts), [asked[k] for k in firsts.values()], group="", keep=False)
            of = [[*firsts].index(asked[k].digest) for k in rows]
            found |= dict(zip(rows, _read(view, begun, of, [tokens[k] for k in rows]), strict=True))
            waiting = waiting[len(chunk) :]
    return found


def _waiting(
    asked: Sequence[Conversation], lengths: Sequence[int], tokens: Sequence[Tensor], chosen: Sequence[int]
) -> Sequence[Waiting]:
    """The replies, those to one request side by side, short requests first."""
    firsts: dict[str, int] = {}
    for k in chosen:
        firsts.setdefault(asked[k].digest, k)
    held = sorted((lengths[k], firsts[asked[k].digest], k) for k in chosen)
    return [Waiting(k, length + len(tokens[k])) for length, _, k in held]


def _read(view: View, begun: Prefilled, of: Sequence[int], tokens: Sequence[Int[Tensor, " _"]]) -> list[Tensor]:
    """The log-probabilities of replies, the n-th to the request `of[n]` of those that were begun."""
    device = begun.logits.device
    spread = torch.tensor(of, device=device)
    running, logits = Running(view.reader.asked({}), begun, joins=True), begun.logits[spread]
    running.keep(spread)
    sizes, said = torch.tensor([len(ids) for ids in tokens]), pad_sequence([*tokens], batch_first=True)
    found, rows = torch.zeros(said.shape), torch.arange(len(said))
    for place in range(said.shape[1]):
        here = said[rows, place]
        found[rows, place] = _chance(logits, here.to(device))
        more = sizes[rows] > place + 1
        if not more.any():
            break
        if int((~more).sum()) >= max(1, len(rows) // DEAD):
            running.keep(more.nonzero()[:, 0].to(device))
            rows, here = rows[more], here[more]
        with running.steps.installed(view.anatomy):
            logits = running.step(here.to(device))
    return [row[:size] for row, size in zip(found, sizes.tolist(), strict=True)]


def _chance(logits: Float[Tensor, "row vocabulary"], tokens: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    return precise(logits).log_softmax(-1).gather(-1, tokens[:, None])[:, 0].float().cpu()
