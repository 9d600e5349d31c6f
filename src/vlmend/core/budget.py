"""How much an attack may change, counted in what a file can hold, and pictures that are changed by whole steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.errors import BadParameter

__all__ = ["LEVELS", "Budget", "as_seen", "levels_of", "random_signs", "with_levels"]

LEVELS = 255
"""Steps of 8 bits from black to white."""


@dataclass(frozen=True)
class Budget:
    """What an attack may do.

    Attributes:
        epsilon: Largest change of a pixel, as a share of black to white (4/255); 0 leaves pictures as they are.
        steps: Gradient steps, or tries.
    """

    epsilon: float
    steps: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1 or self.steps < 0:
            raise BadParameter(
                f"epsilon={self.epsilon:g} and steps={self.steps} are no budget.",
                "epsilon lies between 0 and 1 (write 4/255), steps count from 0.",
            )

    @property
    def empty(self) -> bool:
        """Whether nothing may be changed."""
        return self.epsilon == 0 or self.steps == 0

    @property
    def levels(self) -> int:
        """Whole steps of 8 bits within epsilon."""
        return int(np.floor(self.epsilon * LEVELS + 1e-6))

    @property
    def in_levels(self) -> Budget:
        """The budget that a file of 8 bits can hold.

        Raises:
            BadParameter: Epsilon is above 0 and below one step.
        """
        if self.epsilon and not self.levels:
            raise BadParameter(
                f"epsilon={self.epsilon:g} is less than one step of 8 bits, so no saved picture would differ.",
                f"Take 0, or 1/255 = {1 / LEVELS:.6f} and more.",
            )
        return replace(self, epsilon=self.levels / LEVELS)


def levels_of(row: Example) -> NDArray[np.int16]:
    """The picture of a row in steps of 8 bits, "height width channel"; of a row without one, no pixels."""
    return np.zeros((0, 0, 3), np.int16) if row.image is None else np.asarray(row.image.decode(), dtype=np.int16)


def with_levels(row: Example, levels: NDArray[np.int16]) -> Example:
    """The row with these pixels, no darker than black and no brighter than white."""
    picture = PIL.Image.fromarray(np.clip(levels, 0, LEVELS).astype(np.uint8))
    return replace(row, image=Image.from_pixels(picture, "" if row.image is None else row.image.name))


def as_seen(picture: PIL.Image.Image, attacked: PIL.Image.Image) -> PIL.Image.Image:
    """A picture at the size at which an attack changed it: squeezed, or cropped as processors do.

    Which of the two is told by what lies nearer to the attacked picture. Cropped: the shorter side is brought to that
    size, then the middle is kept.
    """
    width, height = attacked.size
    scale = max(width / picture.width, height / picture.height)
    whole = picture.resize((max(width, int(picture.width * scale)), max(height, int(picture.height * scale))))
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    cropped = whole.crop((left, top, left + width, top + height))
    wanted = np.asarray(attacked, dtype=np.int16)
    return min(
        (picture.resize(attacked.size), cropped),
        key=lambda one: float(np.abs(np.asarray(one, dtype=np.int16) - wanted).mean()),
    )


def random_signs(row: Example, budget: Budget, seed: int) -> Example:
    """The row with random signs times epsilon on every pixel: as large as an attack, without its aim."""
    if row.image is None:
        return row
    clean = levels_of(row)
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.int16), clean.shape)
    return with_levels(row, clean + signs * budget.levels)
