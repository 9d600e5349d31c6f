"""States of the decoder blocks: where they are, and reading them at the last prompt position.

A capture is the last hook at its site, so a captured state is always the state that the next block reads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vlmend.core.sites import Site
from vlmend.core.state_edits import When
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.anatomy.find import Anatomy

__all__ = ["Rows", "block", "capturing", "check_finite", "precise", "state_of"]

NOT_FINITE = "The model gives logits that are NaN or infinite, so no reply of it means anything."
NARROW = (
    "float16 is too narrow for it: load it with --dtype bfloat16 or float32. If that is so, its weights are broken."
)


@dataclass(frozen=True, eq=False)
class Rows:
    """What edits must know of a left-padded batch.

    Attributes:
        real: True at real tokens of the prompt, "row token".
        image: True at image placeholders, "row token".
        has_image: True for rows whose request has an image, "row".
        fired: How often each row's states were edited at a site, "row" by site: the proof of fire.
        after: Tokens of a given reply that follow each prompt, "row"; None where the model writes the reply itself.
    """

    real: Bool[Tensor, "row token"]
    image: Bool[Tensor, "row token"]
    has_image: Bool[Tensor, " row"]
    fired: dict[Site, Int[Tensor, " row"]] = field(default_factory=dict[Site, Tensor])
    after: Int[Tensor, " row"] | None = None

    def last(self, length: int) -> Int[Tensor, " row"]:
        """Where each row's last prompt token stands in a call of so many tokens."""
        ends = torch.full((len(self.has_image),), length - 1)
        return ends if self.after is None else ends - self.after

    def fire(self, site: Site, rows: Bool[Tensor, " row"]) -> None:
        """Note that these rows were edited there."""
        self.fired[site] = self.fired.get(site, torch.zeros(len(rows), dtype=torch.long)) + rows.cpu()

    def meant(self, when: When) -> Bool[Tensor, " row"]:
        """Rows that an edit of this kind is for."""
        return torch.ones_like(self.has_image) if when == "always" else self.has_image.clone()


@contextmanager
def capturing(anatomy: Anatomy, sites: Sequence[Site]) -> Generator[dict[Site, Float[Tensor, "row width"]]]:
    """Read the last position at each site, in float32 or better; left padding makes it the last prompt token."""
    states: dict[Site, Tensor] = {}
    with ExitStack() as stack:
        for site in sites:
            for source in _sources(anatomy, site):
                stack.callback(block(anatomy, source).register_forward_hook(_reader(site, states)).remove)
        yield states


def block(anatomy: Anatomy, site: Site) -> nn.Module:
    """The decoder block of a site.

    Raises:
        BadParameter: This model has no such site.
    """
    if site.stack == "language" and site.point == "resid_post" and site.layer < len(anatomy.blocks):
        return anatomy.blocks[site.layer]
    raise BadParameter(
        f"Site {site} is not in this model.",
        f"It has language.0.resid_post to language.{len(anatomy.blocks) - 1}.resid_post.",
    )


def precise(states: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """In float32, or in float64 where the model runs in that."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def check_finite(logits: Float[Tensor, "row vocabulary"]) -> None:
    """
    Raises:
        ModelProblem: The largest logit of a row is NaN or infinite.
    """
    if not torch.isfinite(logits.amax(-1)).all():
        raise ModelProblem(NOT_FINITE, NARROW)


def state_of(output: Any) -> Float[Tensor, "row token width"]:
    """What a block returns: blocks return a bare tensor in transformers 5 and a tuple in some families."""
    return output if isinstance(output, Tensor) else output[0]


def _reader(site: Site, states: dict[Site, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: Any) -> None:
        states[site] = precise(state_of(output)[:, -1]).clone()

    return hook


def _sources(anatomy: Anatomy, site: Site) -> list[Site]:
    """The site itself; before a layer that text-only requests skip, the one whose state then passes through it."""
    before = site.layer
    while before in anatomy.crossing:
        before -= 1
    return [site] if before in (site.layer, -1) else [replace(site, layer=before), site]
