"""The arithmetic of shifts: what each layer takes out, layer lists, caps. Pure functions.

Used where a mend is fitted (dataset level) and where it is interpreted (sample level), so that both
levels are one formula.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.errors import BadParameter

__all__ = ["Mode", "capped", "layers_of", "steps_of"]

Mode = Literal["increment", "full", "last_only", "sequential"]
"""What each selected layer takes out of the shift v. `increment`: what v gained since the last
selected layer, so that the sum through any selected layer is its v. `full`: all of its v, the
paper's literal reading. `last_only`: the last selected layer its v. `sequential`: the shift that is
left at this layer once the mend of the layers before it is on."""


def steps_of(
    shift: Float[Tensor, "layer *row width"], layers: Sequence[int], mode: Mode
) -> dict[int, Float[Tensor, "*row width"]]:
    """What each selected layer takes out at strength 1, over layers l1 < l2 < ...

    increment: v_l1, then v_lk - v_l(k-1). full: v_lk. last_only: v of the last one. A sequential
    shift is measured under the mend so far, and each layer takes out all of it.
    """
    if mode == "last_only":
        layers = layers[-1:]
    before = torch.zeros_like(shift[0])
    steps: dict[int, Tensor] = {}
    for layer in layers:
        steps[layer] = shift[layer] - before
        if mode == "increment":
            before = shift[layer]
    return steps


def capped(
    edit: Float[Tensor, "*row width"], size: Float[Tensor, " *row"], cap: float | None
) -> Float[Tensor, "*row width"]:
    """Shorten edits to at most `cap` times the size of the states they act on; None leaves them."""
    if cap is None:
        return edit
    length = edit.norm(dim=-1).clamp_min(torch.finfo(edit.dtype).tiny)
    return edit * (cap * size / length).clamp_max(1.0)[..., None]


def layers_of(text: str, depth: int) -> tuple[int, ...]:
    """Read `all`, `0-9` or `4,8,20-29` as sorted layer numbers below `depth`.

    Raises:
        BadParameter: It reads otherwise, or names a layer that is not there.
    """
    if text == "all":
        return tuple(range(depth))
    found: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if span is None:
            raise BadParameter(f"layers={text!r} cannot be read.", "Write all, 0-9 or 4,8,20-29.")
        found.update(range(int(span[1]), int(span[2] or span[1]) + 1))
    if not found or max(found) >= depth:
        raise BadParameter(
            f"layers={text!r} does not fit a model of {depth} layers.", f"They count from 0 to {depth - 1}."
        )
    return tuple(sorted(found))
