"""Names of places in a model where activations are read and edited."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from vlmend.errors import BadParameter

__all__ = ["Point", "Site", "Stack"]

Stack = Literal["vision", "projector", "language", "text"]
Point = Literal["resid_post", "attn_out", "mlp_out", "embedding"]


@dataclass(frozen=True, order=True)
class Site:
    """One place: `language.12.resid_post` is the residual stream after decoder block 12.

    Layers count from 0; `resid_post` is the block's own output, before any final norm. `vision.0.embedding` and
    `text.0.embedding` are the embeddings of a dual encoder.
    """

    stack: Stack
    layer: int
    point: Point = "resid_post"

    def __str__(self) -> str:
        return f"{self.stack}.{self.layer}.{self.point}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read what `str` prints.

        Raises:
            BadParameter: The text is no site.
        """
        match = re.fullmatch(r"(\w+)\.(\d+)\.(\w+)", text)
        if match and match[1] in get_args(Stack) and match[3] in get_args(Point):
            return cls(cast("Stack", match[1]), int(match[2]), cast("Point", match[3]))
        raise BadParameter(
            f"{text!r} is no site.",
            f"Write stack.layer.point with stack in {get_args(Stack)} and point in {get_args(Point)}.",
        )
