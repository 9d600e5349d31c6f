"""Encrypted scores: the server multiplies with an embedding that it cannot read (CKKS, by TenSEAL).

Cheon et al., ASIACRYPT 2017 (the scheme). What leaves the client is a ciphertext; the server has the public half of the
keys; scores come back encrypted. The towers run in the clear at the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.export.private.ckks import Keys, Scorer
from vlmend.export.private.exporting import AbstractHeadExporter
from vlmend.export.private.head import Head, Way

__all__ = ["EXPORTER", "Encrypted"]


@dataclass(frozen=True)
class Encrypted(AbstractHeadExporter):
    """The exporter; `vlmend score` asks and serves."""

    name: ClassVar[Way] = "he"
    about: ClassVar[str] = "a head that scores encrypted embeddings without the key"
    not_private: ClassVar[tuple[str, ...]] = (
        "the image tower runs where the picture is, in the clear; only its embedding is encrypted",
        "the server learns when you ask, how often, and the widths",
        "the head is not hidden from who asks: as many answers as an embedding is wide give it away",
        "nothing proves that the server computes what it should",
    )

    def trial(self, head: Head, embeddings: Float[Tensor, "image width"]) -> Float[Tensor, "image class"]:
        keys = Keys.new()
        scorer = Scorer(head, keys.public)
        return torch.stack([keys.decrypt(scorer.scores(keys.encrypt(one))) for one in embeddings])


EXPORTER = Encrypted()
