"""The head that is exported: its scores are one matrix, kept in two halves for two places."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from vlmend.errors import BadData, MendMismatch

if TYPE_CHECKING:  # servers and parties read heads, and are up sooner without the libraries of models
    from vlmend.models.dual.encoder import DualEncoder

__all__ = ["CLIENT", "KEY", "SERVER", "Asker", "Head", "Way", "read_asker", "read_head"]

Way = Literal["he", "mpc"]
"""How scores are kept private."""

SERVER, CLIENT = Path("server", "head.safetensors"), Path("client", "client.json")
"""In an exported folder: what the party with the head needs, and what the party with the pictures needs."""

KEY = Path("client", "secret.key")
"""Where the client's keys are, unless it says otherwise."""


@dataclass(frozen=True, eq=False)
class Head:
    """scores = weight e + bias, for an embedding e of length 1.

    Shape: weight "class width", bias "class", float32.
    """

    weight: Float[Tensor, "class width"]
    bias: Float[Tensor, " class"]

    def scores(self, embeddings: Float[Tensor, "image width"]) -> Float[Tensor, "image class"]:
        """In the clear."""
        return embeddings @ self.weight.T + self.bias


@dataclass(frozen=True)
class Asker:
    """What the party with the pictures knows: whose embeddings the head reads, and what its scores are called.

    Attributes:
        way: How the scores are kept private.
        names: Of the classes, in the order of the scores.
        width: Of an embedding.
        model, digest: Name and fingerprint of the base model.
        mends: Digests of the mends that the embeddings go through, in their order.
        not_private: What this way does not hide.
    """

    way: Way
    names: tuple[str, ...]
    width: int
    model: str
    digest: str
    mends: tuple[str, ...]
    not_private: tuple[str, ...]

    def check(self, view: DualEncoder) -> None:
        """Refuse embeddings of another model, or of other mends.

        Raises:
            MendMismatch: They are others.
        """
        if view.model_digest != self.digest:
            raise MendMismatch(
                f"The head was exported for {self.model} with other weights than {view.name} has.",
                "Score with the very model, or export the head again.",
            )
        if tuple(mend.digest for mend in view.mends) != self.mends:
            raise MendMismatch(
                f"The head was exported with {len(self.mends)} mends, and other ones are given.",
                "Give the same mends in the same order with --mend.",
            )


def read_head(folder: Path) -> Head:
    """The server's half of an exported folder.

    Raises:
        BadData: It is not there, or is no head.
    """
    file = folder / SERVER
    try:
        held = load_tensors(file.read_bytes())
        return Head(held["weight"], held["bias"])
    except (OSError, SafetensorError, KeyError) as problem:
        raise BadData(
            f"{file} cannot be read as a head ({problem}).", "Name a folder that `vlmend export he` or `mpc` wrote."
        ) from problem


def read_asker(folder: Path) -> Asker:
    """The client's half of an exported folder.

    Raises:
        BadData: It is not there, or is something else.
    """
    file = folder / CLIENT
    try:
        held = json.loads(file.read_text("utf-8"))
        asker = Asker(
            held["way"],
            tuple(held["names"]),
            int(held["width"]),
            held["model"],
            held["digest"],
            tuple(held["mends"]),
            tuple(held["not_private"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadData(
            f"{file} cannot be read ({problem!r}).", "Name a folder that `vlmend export he` or `mpc` wrote."
        ) from problem
    if asker.way not in get_args(Way):
        raise BadData(f"{file} asks for {asker.way!r}, which there is not.", "Export it anew.")
    return asker
