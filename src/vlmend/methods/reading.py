"""What methods read of a model on the data that they are fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.sites import Site
from vlmend.core.targets import ChatStates
from vlmend.errors import BadData

__all__ = [
    "BATCH",
    "Anchors",
    "anchors_of",
    "as_text",
    "batches",
    "read_states",
    "sites_of",
    "with_image",
]

Anchors = Literal["harmful", "benign", "all"]

BATCH = 16

Asking = Callable[[Example], Conversation]


def anchors_of(data: Dataset, which: Anchors) -> tuple[Example, ...]:
    """The requests of one label, or all.

    Raises:
        BadData: There is none.
    """
    anchors = data.examples if which == "all" else data.labelled(which)
    if not anchors:
        raise BadData(
            f"{data.name} holds no {which} request to fit on.",
            "Pass other data with --data; rows need a label, harmful or benign.",
        )
    return anchors


def as_text(anchor: Example) -> Conversation:
    """The request alone."""
    return Conversation.ask(anchor.prompt)


def with_image(image: Image) -> Asking:
    """The request beside this image."""
    return lambda anchor: Conversation.ask(anchor.prompt, image)


def sites_of(target: ChatStates) -> list[Site]:
    """The residual stream after every decoder block."""
    return [Site("language", layer) for layer in range(target.layers)]


def batches(anchors: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Anchors of similar length together, `BATCH` at a time."""
    ordered = sorted(anchors, key=lambda anchor: len(anchor.prompt))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def read_states(target: ChatStates, anchors: Sequence[Example], asking: Asking) -> Float[Tensor, "anchor layer width"]:
    """Last-token states of every layer for labelled work that needs them all at once, in anchor order."""
    sites = sites_of(target)
    place = {anchor.id: k for k, anchor in enumerate(anchors)}
    found: dict[int, Tensor] = {}
    for batch in batches(anchors):
        states = target.hidden([asking(anchor) for anchor in batch], sites)
        rows = torch.stack([states[site] for site in sites], dim=1)
        found |= {place[anchor.id]: row for anchor, row in zip(batch, rows, strict=True)}
    return torch.stack([found[k] for k in range(len(anchors))])
