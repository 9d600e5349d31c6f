"""Scores among three parties, none of which sees both embedding and head (Shamir's secret sharing, by mpyc).

Shamir 1979; fixed-point numbers in a prime field. Any two of the three together could read everything; one alone reads
nothing. The towers run in the clear at the party that asks.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from vlmend.core.files import write_file
from vlmend.export.private.exporting import AbstractHeadExporter
from vlmend.export.private.head import SERVER, Head, Way
from vlmend.export.private.scoring import over_parties

__all__ = ["EXPORTER", "Shared"]


@dataclass(frozen=True)
class Shared(AbstractHeadExporter):
    """The exporter; `vlmend score` asks and takes part."""

    name: ClassVar[Way] = "mpc"
    about: ClassVar[str] = "a head that three parties score with, none of which sees it and the picture"
    not_private: ClassVar[tuple[str, ...]] = (
        "the image tower runs where the picture is, in the clear; only its embedding is shared out",
        "two parties that put their shares together read everything; all three must follow the protocol",
        "traffic between the parties is not encrypted: run them inside a private network",
        "the scores tell who asks about the head: as many answers as an embedding is wide give it away",
        "three processes on one machine show that it works and what it costs, and hide nothing from that machine",
    )

    def trial(self, head: Head, embeddings: Float[Tensor, "image width"]) -> Float[Tensor, "image class"]:
        with tempfile.TemporaryDirectory() as folder:
            write_file(Path(folder) / SERVER, save({"weight": head.weight, "bias": head.bias}))
            return over_parties(embeddings, len(head.bias), Path(folder)).scores


EXPORTER = Shared()
