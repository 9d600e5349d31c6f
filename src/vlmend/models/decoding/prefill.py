"""The prefill of a batch whose rows may be seen through different views, with what views share.

Shared by every view of one loaded model (`Workings`): the keys and values of prefixes (system text,
template, image) and of whole prompts, the features of images, the budget of a batch, and whether the
model's rows can be decoded by our own loop at all. What an edit touches is not shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import Edit
from vlmend.core.sites import Site
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.decoding.cache import growing, plain_layers
from vlmend.models.decoding.image_features import Seen, seeing
from vlmend.models.decoding.loop import Budget, Prefilled, out_of_memory
from vlmend.models.decoding.prefixes import Prefixes, forward_after, rest_of
from vlmend.models.decoding.recall import Recall
from vlmend.models.editing.contrast import Contrast
from vlmend.models.editing.states import Aimed, editing
from vlmend.models.editing.steps import steps_of
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import Rows, precise

__all__ = ["Loop", "View", "Workings", "groups_of", "prefilled"]

KNOWN = "known"
"""The group of requests that were read before."""
PASS, READS = 32, 4
"""A forward pass over a few tokens takes as long as so many more tokens in a large one (phantom, two cores:
50 ms, 1.6 ms a token); a new prefix is read, and checked, in so many passes."""


@dataclass(frozen=True)
class Loop:
    """How a model's replies are decoded.

    Attributes:
        way: `refilled`: rows leave a batch when they are finished, and others come in. `thinned`: rows leave only, from
            the model's own cache. `generate`: by transformers' loop, which ends with its longest reply.
        why: Why not the way before it.
    """

    way: Literal["refilled", "thinned", "generate"]
    why: str = ""


@dataclass(eq=False)
class Workings:
    """What all views of one loaded model share.

    Attributes:
        prefixes: Read prefixes.
        seen: Image features.
        recall: Prompts that were read before.
        budget: Of a batch; made at first use.
        loop: How replies are decoded; None while not known.
        image_tokens: Tokens of one image more than its placeholder; None while not known.
        identity: Digest of each part of the model; None while not asked for.
        states: States of the bare model by request and site, for who fits many mends on the same data
            (`studies.remembering`); None where they are not kept.
    """

    prefixes: Prefixes = field(default_factory=Prefixes)
    seen: Seen = field(default_factory=Seen)
    recall: Recall = field(default_factory=Recall)
    budget: Budget | None = None
    loop: Loop | None = None
    image_tokens: int | None = None
    identity: Mapping[str, str] | None = None
    states: dict[str, dict[Site, Tensor]] | None = None

    def room(self, device: torch.device) -> Budget:
        """The budget of a batch on this device."""
        if self.budget is None:
            self.budget = Budget.of(device)
        return self.budget


@runtime_checkable
class View(Protocol):
    """What decoding needs of a view of a model: `models.vlm.VLM`, which is built on what stands here."""

    @property
    def reader(self) -> Reader: ...

    @property
    def anatomy(self) -> Anatomy: ...

    @property
    def workings(self) -> Workings: ...

    @property
    def edits(self) -> tuple[Edit, ...]: ...

    @property
    def sight(self) -> str:
        """Key of what this view makes of an image."""
        ...

    @property
    def image_side(self) -> int: ...

    @property
    def bare(self) -> View: ...

    def rewritten(self, batch: Sequence[Conversation]) -> list[Conversation]:
        """The batch in the words and with the images that the mends give it."""
        ...

    def asked(self, batch: Sequence[Conversation]) -> tuple[list[Conversation], Contrast]:
        """What the model is asked: every request, then its other views."""
        ...

    def logits(self, batch: Sequence[Conversation]) -> Tensor:
        """Next-token logits after each prompt."""
        ...

    def aimed(self, batch: Sequence[Conversation], rows: Rows, mine: Sequence[int]) -> list[Aimed]:
        """This view's edits of states, aimed at its rows of the batch."""
        ...

    def watching(self, aimed: Sequence[Aimed], rows: Rows) -> AbstractContextManager[None]:
        """Check on the way out that images were seen and edits fired."""
        ...

    def adapted(self) -> AbstractContextManager[None]:
        """This view's edits of weights."""
        ...

    def installed(self, batch: Sequence[Conversation], rows: Rows) -> AbstractContextManager[None]:
        """Every edit of this view for one call, and the checks on the way out."""
        ...


def prefilled(views: Sequence[View], batch: Sequence[Conversation], group: str, keep: bool) -> Prefilled:
    """Read a batch, each row under its own view.

    Args:
        views: Of each row; all of one loaded model.
        batch: The requests, as their views put them.
        group: What the rows share (`groups_of`).
        keep: Whether what is read before the last token may be kept: no edit touches it.
    """
    first = views[0]
    read = (_recalled(first, batch) if group == KNOWN else _after_prefix(first, batch) if group else None) or _in_full(
        first, batch
    )
    aimed: list[Aimed] = []
    for view in dict.fromkeys(views):
        aimed += view.aimed(batch, read.rows, [k for k, one in enumerate(views) if one is view])
    with first.watching(aimed, read.rows), editing(first.anatomy, aimed, read.rows):
        out = read.run()
    logits = precise(out.logits[:, -1])
    mask, offsets = read.mask.to(logits.device), read.offsets().to(logits.device)
    if keep and group != KNOWN:
        layers = plain_layers(out.past_key_values)
        first.workings.recall.keep([c.digest for c in batch], read.last, layers, mask, offsets)
    steps = steps_of(aimed, len(batch), first.anatomy.width, out.logits)
    return Prefilled(logits, out.past_key_values, mask, offsets, mask.sum(1).tolist(), steps, read.rows.fired)


def groups_of(view: View, batch: Sequence[Conversation], lengths: Sequence[int]) -> list[str]:
    """What each row shares with others: `KNOWN` where it was read before, the key of a prefix, or ""."""
    known, prefixes = view.workings.recall.known, view.workings.prefixes
    found = [KNOWN if conversation.digest in known else "" for conversation in batch]
    keys = [conversation.with_words("").digest for conversation in batch]
    for key in dict.fromkeys(keys):
        rows = [k for k, one in enumerate(keys) if one == key and not found[k]]
        new = int(key not in prefixes.known)
        if len(rows) <= new or not _pays(min(lengths[k] for k in rows), len(rows), new):
            continue
        try:
            prefix = prefixes.of(view.reader, batch[rows[0]])
        except RuntimeError as problem:
            if not out_of_memory(problem):
                raise
            continue  # whether the requests themselves fit, decoding finds out
        if prefix.layers and _pays(prefix.length, len(rows), new):
            for k in rows:
                found[k] = key
    return found


def _pays(length: int, rows: int, new: int) -> bool:
    """Whether a prefix of this length saves twice the tokens that a group of its own, and reading it, cost."""
    return length * (rows - new) >= 2 * (PASS + new * READS * (PASS + length))


@dataclass(frozen=True, eq=False)
class _Read:
    """A forward call to come: its rows, what they may look back at, their last tokens, the call, and then offsets."""

    rows: Rows
    mask: Tensor
    last: Tensor
    run: Callable[[], Any]
    offsets: Callable[[], Tensor]


def _recalled(view: View, batch: Sequence[Conversation]) -> _Read | None:
    """The last token of each request, after what was read of it before."""
    found = view.workings.recall.gone_on([conversation.digest for conversation in batch])
    if found is None:
        return None
    layers, mask, tokens, offsets = found
    positions = mask.sum(1, keepdim=True) - 1 + offsets[:, None]

    def run() -> Any:
        view.workings.seen.reused += sum(len(conversation.images) for conversation in batch)
        return view.reader.asked({})(
            input_ids=tokens, attention_mask=mask, position_ids=positions,
            past_key_values=growing(layers), use_cache=True, logits_to_keep=1,
        )  # fmt: skip

    return _Read(_rows(batch, mask), mask, tokens[:, 0], run, lambda: offsets)


def _after_prefix(view: View, batch: Sequence[Conversation]) -> _Read | None:
    """What follows the prefix that all rows share."""
    prefix = view.workings.prefixes.of(view.reader, batch[0])
    rest = rest_of(view.reader, prefix, batch)
    if rest is None:
        return None
    mask = rest.mask(prefix)

    def run() -> Any:
        view.workings.seen.reused += sum(len(conversation.images) for conversation in batch)
        return forward_after(view.reader, prefix, rest)

    return _Read(_rows(batch, mask), mask, rest.ids[:, -1], run, lambda: torch.zeros_like(mask[:, 0]))


def _in_full(view: View, batch: Sequence[Conversation]) -> _Read:
    """Whole prompts, positions counted from each row's first token."""
    inputs = view.reader.inputs(batch)
    view.reader.check_context(inputs)  # lengths were estimated before: one picture may take more tokens than another
    mask: Tensor = inputs["attention_mask"]
    keys = [
        f"{view.sight}{image.digest}:{len(c.images)}" for c in batch for image in c.images
    ]  # a lone image may be tiled

    told = inputs  # M-RoPE families count the positions of images themselves, and keep how far they got
    if not (view.anatomy.shifted and "pixel_values" in inputs):
        told = inputs | {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)}

    def run() -> Any:
        view.reader.forget()
        with seeing(view.reader.model, keys, view.workings.seen):
            return view.reader.asked(inputs)(**told, use_cache=True, logits_to_keep=1)

    def offsets() -> Tensor:
        kept = [cast("Tensor | None", module.rope_deltas) for module in view.anatomy.shifted]
        found = [one.reshape(-1) for one in kept if one is not None]
        view.reader.forget()
        return found[0] if found else torch.zeros_like(mask[:, 0])

    return _Read(view.reader.rows(batch, inputs), mask, inputs["input_ids"][:, -1], run, offsets)


def _rows(batch: Sequence[Conversation], mask: Tensor) -> Rows:
    """Rows of a call that begins after the images."""
    with_image = torch.tensor([conversation.has_image for conversation in batch])
    return Rows(mask.cpu().bool(), torch.zeros_like(mask.cpu(), dtype=torch.bool), with_image)
