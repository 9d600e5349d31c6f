"""The closed set of edits that mends are made of, as plain data.

A kind of edit is added here and in every interpreter at once; the type checker's exhaustiveness
test names the places. Until another method needs one, there is one kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vlmend.core.sites import Site

__all__ = ["AddVector", "Edit", "Tokens", "When"]

Tokens = Literal["last_prompt", "last", "all", "image", "prompt", "reply"]
"""Which positions an edit touches. `last_prompt`: the last prompt token, at prefill only.
`last`: that one and every generated token. `all`: every real token. `image`: image tokens.
`prompt`: every prompt token. `reply`: generated tokens."""

When = Literal["always", "with_image"]
"""Which rows an edit touches: all, or those whose request has an image."""


@dataclass(frozen=True, eq=False)
class AddVector:
    """h <- h + vector at one site.

    Shape: vector "width", float32.
    """

    site: Site
    vector: Float[Tensor, " width"]
    tokens: Tokens = "last"
    when: When = "always"

    def scaled(self, factor: float) -> AddVector:
        return replace(self, vector=self.vector * factor)


Edit = AddVector
