"""Fakes for attacks on what a model says: one that says "yes" above a bound, and a mend that moves gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import AddVector
from vlmend.core.images import Image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.sites import Site
from vlmend.core.targets import Kind, Pixels
from vlmend.models.vlm import VLM

SIDE = 2


@dataclass(frozen=True, eq=False)
class TwoWords:
    """Sees 2 x 2 pictures and says "yes" where w . x is above a bound, else "no": who can be turned is known.

    A mend of it lifts the bound.
    """

    weight: Tensor
    bound: float
    name: str = "two words"
    mends: tuple[Mend, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: ClassVar[Kind] = "chat"
    image_side: ClassVar[int] = SIDE

    @property
    def id(self) -> str:
        return self.name

    @property
    def model_digest(self) -> str:
        return self.name

    @property
    def bare(self) -> TwoWords:
        return replace(self, mends=())

    def with_mend(self, mend: Mend) -> TwoWords:
        return replace(self, mends=(*self.mends, mend))

    def margin(self, values: Tensor) -> Tensor:
        return values.flatten(1) @ self.weight - self.bound

    def pixels(self, images: Sequence[Image]) -> Pixels:
        arrays = [np.asarray(image.decode().resize((SIDE, SIDE)), dtype=np.float32) / 255 for image in images]
        values = torch.stack([torch.from_numpy(one).permute(2, 0, 1) for one in arrays])
        return Pixels(values, torch.zeros_like(values), torch.ones_like(values))

    def reply_loss(self, batch: Sequence[Conversation], replies: Sequence[str], pixels: Pixels) -> Tensor:
        signs = torch.tensor([1.0 if reply == "yes" else -1.0 for reply in replies])
        return torch.nn.functional.softplus(-signs * 20 * self.margin(pixels.values))

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Tensor]:
        found = self.reply_loss(batch, replies, self.pixels([one.images[0] for one in batch]))
        return [-one[None] for one in found]

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        above = self.margin(self.pixels([one.images[0] for one in batch]).values) > 0
        return [Reply("yes" if one else "no", "stop", 1, 1, 0.0) for one in above.tolist()]


def mended(base: VLM) -> VLM:
    """A mend of the states of every block, large enough that the bare model's gradient points elsewhere."""
    card = MendCard("push", {}, base.name, base.model_digest, "", "", 0, versions(), {}, "")
    generator = torch.Generator().manual_seed(3)
    edits = tuple(AddVector(Site("language", k), 2 * torch.randn(32, generator=generator)) for k in range(2))
    return base.with_mend(Mend(edits, card))
