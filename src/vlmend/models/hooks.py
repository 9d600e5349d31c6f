"""The one torch interpreter of edits, and activation capture.

Hooks live for one call inside one `ExitStack`, never on the model: nothing leaks between requests,
and mended and plain rows are one call apart. At one site the edits come first, in their order, and
capture comes last, so a captured state is always the state that the next block reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlmend.core.edits import AddVector, Edit, Tokens
from vlmend.core.sites import Site
from vlmend.errors import BadParameter
from vlmend.models.anatomy import Anatomy

__all__ = ["Rows", "capturing", "editing"]


@dataclass(frozen=True, eq=False)
class Rows:
    """What edits must know of a left-padded batch.

    Attributes:
        real: True at real tokens of the prompt, "row token".
        image: True at image placeholders, "row token".
        has_image: True for rows whose request has an image, "row".
        fired: Rows touched per site, counted while the call runs: the proof of fire.
    """

    real: Bool[Tensor, "row token"]
    image: Bool[Tensor, "row token"]
    has_image: Bool[Tensor, " row"]
    fired: Counter[Site] = field(default_factory=Counter)


@contextmanager
def editing(anatomy: Anatomy, edits: Sequence[Edit], rows: Rows) -> Generator[None]:
    """Apply edits to every forward call inside the block; the first call is the prefill."""
    with ExitStack() as stack:
        for edit in edits:
            module = _module(anatomy, edit.site)
            match edit:
                case AddVector():
                    handle = module.register_forward_hook(_adder(edit, rows))
            stack.callback(handle.remove)
        yield


@contextmanager
def capturing(anatomy: Anatomy, sites: Sequence[Site]) -> Generator[dict[Site, Float[Tensor, "row width"]]]:
    """Read the last position at each site, in float32; left padding makes it the last prompt token."""
    states: dict[Site, Tensor] = {}
    with ExitStack() as stack:
        for site in sites:
            handle = _module(anatomy, site).register_forward_hook(_reader(site, states))
            stack.callback(handle.remove)
        yield states


def _module(anatomy: Anatomy, site: Site) -> nn.Module:
    if site.stack == "language" and site.point == "resid_post" and site.layer < len(anatomy.blocks):
        return anatomy.blocks[site.layer]
    raise BadParameter(
        f"Site {site} is not in this model.",
        f"It has language.0.resid_post to language.{len(anatomy.blocks) - 1}.resid_post.",
    )


def _adder(edit: AddVector, rows: Rows) -> Callable[..., Any]:
    gate = torch.ones_like(rows.has_image) if edit.when == "always" else rows.has_image
    prefilled = False

    def hook(module: nn.Module, args: object, output: Any) -> Any:
        nonlocal prefilled
        hidden = _hidden(output)
        mask = _reply_mask(edit.tokens, rows) if prefilled else _prompt_mask(edit.tokens, rows)
        prefilled = True
        mask = mask & gate[:, None]
        if not mask.any():
            return output
        rows.fired[edit.site] += int(mask.any(1).sum())
        vector = edit.vector.to(hidden.device, hidden.dtype)
        return _replaced(output, hidden + mask.to(hidden.device)[..., None] * vector)

    return hook


def _reader(site: Site, states: dict[Site, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: Any) -> None:
        states[site] = _hidden(output)[:, -1].float()

    return hook


def _prompt_mask(tokens: Tokens, rows: Rows) -> Bool[Tensor, "row token"]:
    """Which prompt positions a scope covers, during the prefill."""
    match tokens:
        case "last" | "last_prompt":
            mask = torch.zeros_like(rows.real)
            mask[:, -1] = True
            return mask
        case "all" | "prompt":
            return rows.real
        case "image":
            return rows.image
        case "reply":
            return torch.zeros_like(rows.real)


def _reply_mask(tokens: Tokens, rows: Rows) -> Bool[Tensor, "row 1"]:
    """Whether a scope covers a generated token."""
    covered = tokens in ("last", "all", "reply")
    return torch.full((len(rows.real), 1), covered)


def _hidden(output: Any) -> Tensor:
    """Blocks return a bare tensor in transformers 5 and a tuple in some families."""
    return output if isinstance(output, Tensor) else output[0]


def _replaced(output: Any, hidden: Tensor) -> Any:
    return hidden if isinstance(output, Tensor) else (hidden, *output[1:])
