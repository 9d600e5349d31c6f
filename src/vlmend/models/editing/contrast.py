"""The interpreter of contrasts of logits: the request beside other views of itself, in one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import LogitsProcessor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ContrastLogits, Edit

__all__ = ["Contrast", "contrasted"]


@dataclass(frozen=True)
class Contrast(LogitsProcessor):
    """Mixes the logits of plain rows with those of their other views, which follow them in the batch.

    All rows of a request get the same logits, so that greedy decoding keeps them in step.

    Attributes:
        edits: The contrasts at work.
        meant: The rows that each is for, "row".
    """

    edits: Sequence[ContrastLogits]
    meant: Sequence[Bool[Tensor, " row"]]

    @property
    def copies(self) -> int:
        """How often each request stands in the batch."""
        return 1 + sum(len(edit.views) for edit in self.edits)

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, " *copies"]) -> Float[Tensor, " *copies"]:
        """Mixed logits; the last dimension is the vocabulary."""
        if not self.edits:
            return scores
        return self.mixed(scores).repeat(self.copies, *[1] * (scores.ndim - 1))

    def mixed(self, scores: Float[Tensor, " *copies"]) -> Float[Tensor, " *rows"]:
        """Of each request once."""
        plain, *others = scores.chunk(self.copies)
        moved = torch.zeros_like(plain)
        for edit, meant in zip(self.edits, self.meant, strict=True):
            views, others = others[: len(edit.views)], others[len(edit.views) :]
            here = meant.to(plain.device).reshape(-1, *[1] * (plain.ndim - 1))
            moved = moved + torch.where(here, _move(edit, plain, views), 0)
        return plain + moved


def contrasted(edits: Sequence[Edit], plain: Sequence[Conversation]) -> tuple[list[Conversation], Contrast]:
    """Every request, then once more for each other view of each contrast; a row that is not meant stands as is."""
    seen = any(conversation.has_image for conversation in plain)
    pairs = [e for e in edits if isinstance(e, ContrastLogits) and (seen or e.when == "always")]
    meant = [[edit.when == "always" or c.has_image for c in plain] for edit in pairs]
    asked = list(plain)
    for edit, rows in zip(pairs, meant, strict=True):
        for view in edit.views:
            asked += [view.of(c) if here else c for c, here in zip(plain, rows, strict=True)]
    return asked, Contrast(pairs, [torch.tensor(rows) for rows in meant])


def _move(edit: ContrastLogits, plain: Tensor, views: Sequence[Tensor]) -> Tensor:
    """What is added to the plain logits (`ContrastLogits` has the rules)."""
    match edit.rule:
        case "towards":
            return edit.strength * sum((view - plain for view in views[1:]), views[0] - plain)
        case "damp":
            chance = plain.softmax(-1)
            worst = torch.stack([view.softmax(-1) - chance for view in views]).amax(0).clamp_min(0)
            return (-edit.strength * worst).clamp_min(math.log(edit.floor))
        case "effect":
            told = plain.log_softmax(-1)
            direct = sum((_direct(edit, view) for view in views[1:]), _direct(edit, views[0]))
            move = edit.strength * (logsigmoid(told) - told - direct)
            likeliest = told.argmax(-1, keepdim=True)
            unlikely = told < told.gather(-1, likeliest) + math.log(edit.floor)
            return torch.where(unlikely, torch.minimum(move, move.gather(-1, likeliest)), move)
        case _:
            assert_never(edit.rule)


def _direct(edit: ContrastLogits, view: Tensor) -> Tensor:
    """What the direct path alone says for each token."""
    return logsigmoid(view.log_softmax(-1) + edit.constant)
