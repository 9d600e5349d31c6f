"""The prefill of a batch whose rows may be seen through different views, with what views share.

Shared by every view of one loaded model (`Workings`): the keys and values of prefixes (system text,
template, image), the features of images, the budget of a batch, and whether the model's rows can be decoded
step by step by our own loop at all. A prefix is shared where it saves enough and no edit touches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.models.anatomy import Anatomy
from vlmend.models.contrast import Prefixes, forward_after, rest_of
from vlmend.models.decoding import Budget, Prefilled, out_of_memory
from vlmend.models.growing import plain_layers
from vlmend.models.hooks import Aimed, Rows, editing, precise
from vlmend.models.reader import Reader
from vlmend.models.seeing import Seen, seeing
from vlmend.models.stepping import steps_of

__all__ = ["View", "Workings", "groups_of", "prefilled"]

WORTH = 0.15
"""A prefix is shared where that saves this share of a group's tokens."""
UNTOUCHED = ("last_prompt", "last", "reply")
"""Scopes that leave all but the last prompt token as it is."""


@dataclass(eq=False)
class Workings:
    """What all views of one loaded model share.

    Attributes:
        prefixes: Read prefixes.
        seen: Image features.
        budget: Of a batch; made at first use.
        whole: Why replies are decoded by transformers' own loop, or "" where ours does; None while not known.
        image_tokens: Tokens of one image more than its placeholder; None while not known.
    """

    prefixes: Prefixes = field(default_factory=Prefixes)
    seen: Seen = field(default_factory=Seen)
    budget: Budget | None = None
    whole: str | None = None
    image_tokens: int | None = None

    def room(self, device: torch.device) -> Budget:
        """The budget of a batch on this device."""
        if self.budget is None:
            self.budget = Budget.of(device)
        return self.budget


@runtime_checkable
class View(Protocol):
    """What a prefill needs of a view of a model."""

    @property
    def reader(self) -> Reader: ...

    @property
    def anatomy(self) -> Anatomy: ...

    @property
    def workings(self) -> Workings: ...

    def aimed(self, batch: Sequence[Conversation], rows: Rows, mine: Sequence[int]) -> list[Aimed]:
        """This view's edits of states, aimed at its rows of the batch."""
        ...

    def watching(self, aimed: Sequence[Aimed], rows: Rows) -> AbstractContextManager[None]:
        """Check on the way out that images were seen and edits fired."""
        ...


def prefilled(views: Sequence[View], batch: Sequence[Conversation], share: bool) -> Prefilled:
    """Read a batch, each row under its own view.

    Args:
        views: Of each row; all of one loaded model.
        batch: The requests, as their views put them.
        share: Whether the rows share a prefix that is worth it (`groups_of`).
    """
    first = views[0]
    prefix = first.workings.prefixes.of(first.reader, batch[0]) if share else None
    rest = rest_of(first.reader, prefix, batch) if prefix is not None else None
    inputs = {} if rest is not None else first.reader.inputs(batch)
    if prefix is not None and rest is not None:
        mask = rest.mask(prefix)
        rows = Rows(mask.bool(), torch.zeros_like(mask, dtype=torch.bool), _with_image(batch))
    else:
        mask, rows = inputs["attention_mask"], first.reader.rows(batch, inputs)
    aimed: list[Aimed] = []
    for view in dict.fromkeys(views):
        aimed += view.aimed(batch, rows, [k for k, one in enumerate(views) if one is view])

    with first.watching(aimed, rows), editing(first.anatomy, aimed, rows):
        if prefix is not None and rest is not None:
            first.workings.seen.reused += int(rows.has_image.sum())
            out = forward_after(first.reader, prefix, rest)
        else:
            out = _read(first, batch, inputs)
    logits = precise(out.logits[:, -1])
    steps = steps_of(aimed, len(batch), first.anatomy.width, out.logits)
    device = logits.device
    return Prefilled(
        logits, plain_layers(out.past_key_values), mask.to(device), mask.sum(1).tolist(), steps, rows.fired
    )


def groups_of(view: View, batch: Sequence[Conversation], lengths: Sequence[int]) -> list[str]:
    """A name for the rows that should share a prefix, "" for the others."""
    found = [""] * len(batch)
    if not batch:
        return found
    known = view.workings.prefixes
    keys = [c.with_words("").digest for c in batch]
    for key in dict.fromkeys(keys):
        rows = [k for k, one in enumerate(keys) if one == key]
        new = int(key not in known.known)
        if len(rows) <= new:
            continue
        try:
            prefix = known.of(view.reader, batch[rows[0]])
        except RuntimeError as problem:
            if not out_of_memory(problem):
                raise
            continue  # whether the requests themselves fit, decoding finds out
        saved = prefix.length * (len(rows) - new)
        if prefix.layers and saved >= WORTH * sum(lengths[k] for k in rows):
            for k in rows:
                found[k] = key
    return found


def _read(view: View, batch: Sequence[Conversation], inputs: dict[str, Any]) -> Any:
    """The forward call over whole prompts, positions counted from each row's first token."""
    mask: Tensor = inputs["attention_mask"]
    keys = [f"{image.digest}:{len(c.images)}" for c in batch for image in c.images]  # a lone image may be tiled
    with seeing(view.reader.model, keys, view.workings.seen):
        return view.reader.asked(inputs)(
            **inputs, position_ids=(mask.cumsum(1) - 1).clamp_min(0), use_cache=True, logits_to_keep=1
        )


def _with_image(batch: Sequence[Conversation]) -> Tensor:
    return torch.tensor([conversation.has_image for conversation in batch])
