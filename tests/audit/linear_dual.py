"""A dual encoder of one number: the mean of one half of a picture, so that it is known where a text looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.models.dual.encoder import DualEncoder, checked
from vlmend.models.dual.towers import Towers

__all__ = ["NOTHING", "SIDE", "halved", "linear_dual", "speckled"]

SIDE = 16
NOTHING = "nothing"
"""A text that fits the less the brighter that half is; every other text fits the more."""


class Eye(nn.Module):
    """The mean of one half, beside a number that is always 1."""

    def __init__(self, half: str) -> None:
        super().__init__()
        self.read = nn.Linear(3 * SIDE * SIDE, 1, bias=False)
        weights = torch.zeros(3, SIDE, SIDE)
        weights[:, :, : SIDE // 2] = 2 / (3 * SIDE * SIDE)
        self.read.weight.data = (weights if half == "left" else weights.flip(2)).flatten()[None]

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.read(pixels.flatten(1))
        return torch.cat([found, torch.ones_like(found)], 1)


class Model(nn.Module):
    """The eye, and two texts."""

    def __init__(self, half: str) -> None:
        super().__init__()
        self.eye = Eye(half)
        self.table = nn.Embedding.from_pretrained(torch.eye(2))


def linear_dual(half: str = "left") -> DualEncoder:
    """Looks at the left half, where the rows here have the person, or at the right one: the planted fault."""
    model = Model(half).requires_grad_(False)

    def picture(image: PIL.Image.Image) -> Mapping[str, Tensor]:
        small = image.convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.NEAREST)
        return {"pixel_values": torch.from_numpy(np.asarray(small) / 255).float().movedim(-1, 0)[None]}

    def tokens(texts: Sequence[str], free: int) -> Mapping[str, Tensor]:
        return {"input_ids": torch.tensor([[int(text == NOTHING)] for text in texts])}

    towers = Towers(
        model, picture, tokens, vision=model.eye, text=None, kind="softmax", scale=1.0,
        features=lambda held: (
            lambda inputs: held.eye(inputs["pixel_values"]), lambda inputs: held.table(inputs["input_ids"][:, 0])
        ),
    )  # fmt: skip
    return checked(towers, f"linear-{half}")


def halved(name: str, left: int = 250, right: int = 50, group: str = "man", **attributes: str) -> Example:
    """A picture of two greys, with a box around its left half."""
    return _row(name, np.repeat([left, right], SIDE), group, attributes)


def speckled(name: str, group: str = "man") -> Example:
    """The same of columns in eight shades, alike in both halves but for 20 levels that the left one is brighter."""
    shades = np.random.default_rng(0).permutation(np.linspace(20, 220, SIDE // 2))
    return _row(name, np.repeat(np.concatenate([shades + 20, shades]), 2), group, {})


def _row(name: str, line: np.ndarray, group: str, attributes: Mapping[str, str]) -> Example:
    pixels = np.broadcast_to(line[None, :, None], (2 * SIDE, 2 * SIDE, 3)).astype(np.uint8)
    told = {"box": f"0 0 {SIDE} {2 * SIDE}", **attributes}
    picture = Image.from_pixels(PIL.Image.fromarray(np.ascontiguousarray(pixels)))
    return Example(name, group=group, image=picture, caption="a person", attributes=told)
