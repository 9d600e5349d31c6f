"""The shift of a request itself, from two extra reads of the bare model, as edits of its row (sample-level CMRM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.shifts import capped, steps_of
from vlmend.core.sites import Site
from vlmend.core.state_edits import ContrastShift
from vlmend.models.decoding.prefixes import Prefixes, forward_after, rest_of
from vlmend.models.editing.states import RowShift, chasing
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import capturing

__all__ = ["row_shifts", "spread_over"]


def row_shifts(
    reader: Reader, prefixes: Prefixes, edit: ContrastShift, batch: Sequence[Conversation], told: Sequence[Conversation]
) -> list[RowShift]:
    """Read the shift of every request with an image, and turn it into per-row edits.

    Args:
        batch: The requests as they came.
        told: The requests that the shift is measured from: without images, or told by a caption.

    Shape: each edit's vectors "row width"; zero for rows without image.
    """
    seen_rows = [k for k, conversation in enumerate(batch) if conversation.has_image]
    if not seen_rows:
        return []
    sites = [Site("language", layer) for layer in edit.layers]
    seen = [batch[k] if edit.seen == "original" else batch[k].with_images(edit.image) for k in seen_rows]
    unseen = _states(reader, prefixes, [told[k] for k in seen_rows], sites)
    shared = prefixes if edit.seen == "corrupt" else None
    if edit.mode == "sequential":
        if shared is not None:
            shared.of(reader, seen[0])  # read before the hooks that would act on it
        with chasing(reader.anatomy, edit.layers, unseen, edit.strength, edit.cap) as taken:
            _run(reader, shared, seen)
    else:
        states = _states(reader, shared, seen, sites)
        taken = _taken(edit, states, unseen)
    edits: list[RowShift] = []
    for layer, vectors in taken.items():
        spread = torch.zeros((len(batch), vectors.shape[1]), dtype=vectors.dtype, device=vectors.device)
        spread[seen_rows] = -vectors
        edits.append(RowShift(Site("language", layer), spread, edit.tokens, edit.when))
    return edits


def spread_over(shift: RowShift, mine: Sequence[int], size: int) -> RowShift:
    """A shift of some rows as one of the whole batch, zero for the others."""
    vectors = shift.vectors.new_zeros((size, shift.vectors.shape[1]))
    vectors[list(mine)] = shift.vectors
    return replace(shift, vectors=vectors)


def _taken(
    edit: ContrastShift, seen: dict[Site, Tensor], unseen: dict[Site, Tensor]
) -> dict[int, Float[Tensor, "row width"]]:
    """What each layer takes out of each row: the shift, or its part along `onto`, by mode and cap."""
    sites = sorted(seen)
    shift = torch.stack([seen[site] - unseen[site] for site in sites])
    if edit.onto is not None:
        onto = torch.stack([edit.onto[site.layer] for site in sites]).to(shift)
        shift = torch.einsum("lrw,lw->lr", shift, onto)[..., None] * onto[:, None]
    steps = steps_of(shift, range(len(sites)), edit.mode)
    return {
        sites[k].layer: capped(edit.strength * step, seen[sites[k]].norm(dim=-1), edit.cap) for k, step in steps.items()
    }


def _states(
    reader: Reader, prefixes: Prefixes | None, batch: Sequence[Conversation], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "row width"]]:
    with capturing(reader.anatomy, sites) as states:
        _run(reader, prefixes, batch)
    return states


def _run(reader: Reader, prefixes: Prefixes | None, batch: Sequence[Conversation]) -> None:
    """One forward call over the batch: from the shared prefix where all rows have it, else in full."""
    if prefixes is not None and len({conversation.with_words("").digest for conversation in batch}) == 1:
        prefix = prefixes.of(reader, batch[0])
        rest = rest_of(reader, prefix, batch)
        if rest is not None:
            forward_after(reader, prefix, rest)
            return
    reader.forward(reader.inputs(batch))
