"""How near a rebuilt picture comes to the one that it was rebuilt from."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

__all__ = ["EXACT", "picked_out", "psnr"]

EXACT = 60.0
"""dB that no picture goes above: rounding to 8 bits alone costs 58.9 dB."""

Array = npt.NDArray[np.float64]
Values = Float[Array, "*pixels"]
Several = Float[Array, "picture *pixels"]


def psnr(rebuilt: Values, true: Values) -> float:
    """Peak signal-to-noise ratio in dB of values between 0 and 1: -10 log10 of their mean squared difference.

    At most `EXACT`, so that a mean over pictures is not ruled by what no file can hold.
    """
    error = float(np.mean((rebuilt - true) ** 2))
    return EXACT if error <= 10 ** (-EXACT / 10) else -10 * math.log10(error)


def picked_out(rebuilt: Values, true: Values, others: Several) -> bool:
    """Whether the true picture lies strictly nearer to the rebuilt one than each of the others, by squared error."""
    own = np.mean((rebuilt - true) ** 2)
    rest = np.mean((others - rebuilt) ** 2, axis=tuple(range(1, others.ndim)))
    return bool((own < rest).all())
