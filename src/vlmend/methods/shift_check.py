"""Does the shift that a mend takes out explain what a picture does to refusals?

Harmful and benign requests lie apart in the states; a picture moves them along the line between. CMRM takes one vector
out of all of them, so it can work where harmful requests lose ground beside a picture, the vector gives that ground
back, and benign ones have lost as much. Where one of the three fails, the fit says so before anything is audited.
Own construction; the direction is that of refusal in Arditi et al. 2024, arXiv 2406.11717.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset, spread
from vlmend.core.images import Image
from vlmend.core.targets import ChatStates
from vlmend.methods.reading import as_text, read_states, with_image

__all__ = ["ShiftCheck", "check_shift"]

READ = 24
"""Requests of each label that are read at most, evenly spread."""
FEW = 6
"""Fewer of a label tell nothing."""

NO_LOSS = 0.1
"""A smaller part of the distance lost is no loss."""
EXPLAINED = 0.5
"""Below this part of the loss, what comes back is no remedy."""
SPARED = 0.3
"""Benign requests that are pushed this much of the distance beyond what they had lost will be declined."""


@dataclass(frozen=True)
class ShiftCheck:
    """Moves along the line from benign to harmful requests, in shares of their distance as text, at one layer.

    Attributes:
        layer: Of those that are edited, where the two lie apart best.
        lost: How far the content-free picture moves harmful requests towards benign ones.
        lost_benign: How far it moves benign ones the same way.
        back: How far taking out the whole shift moves any request the other way.
    """

    layer: int
    lost: float
    lost_benign: float
    back: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What speaks against a mend by this shift; nothing where nothing does."""
        where = f"At layer {self.layer} a content-free picture takes"
        if self.lost < NO_LOSS:
            return (
                f"{where} {self.lost:.2f} of their distance to benign requests from harmful ones: there is no loss "
                "that a shift could give back; it is lost elsewhere. A mend that trains (vlguard) may find it.",
            )  # fmt: skip
        if self.back < EXPLAINED * self.lost:
            return (
                f"{where} {self.lost:.2f} of their distance to benign requests from harmful ones, and the whole shift "
                f"gives {self.back:.2f} back: harmful requests are not moved as these anchors are. Fit on anchors that "
                "are like your requests (anchors=harmful, --data), or train (vlguard).",
            )  # fmt: skip
        if self.back - self.lost_benign > SPARED:
            return (
                f"{where} {self.lost_benign:.2f} of the distance from benign requests and {self.lost:.2f} from harmful "
                f"ones, and the shift gives {self.back:.2f} back to both: expect over-refusal, or use a gate "
                "(cmrm_gated).",
            )  # fmt: skip
        return ()


def check_shift(
    target: ChatStates, data: Dataset, image: Image, shift: Float[Tensor, "layer width"], layers: Sequence[int]
) -> ShiftCheck | None:
    """Hold a measured shift against what the picture does to harmful and to benign anchors.

    The line is fitted on one half of the requests and read on the other, both ways, and the mean is told.

    Args:
        target: The model without the mend.
        data: Anchors of both labels.
        image: The content-free image.
        shift: v, image minus text.
        layers: Those that are edited.

    Returns:
        None where one label has too few requests to tell.
    """
    chosen = [spread(data.labelled(label), READ) for label in ("harmful", "benign")]
    if min(map(len, chosen)) < FEW:
        return None
    text, seen = ([read_states(target, rows, asking) for rows in chosen] for asking in (as_text, with_image(image)))
    layer = max(layers, key=lambda one: _apart(*(states[:, one] for states in text)))
    found = torch.zeros(3)
    for half in (0, 1):
        harmful, benign = (states[half::2, layer].mean(0) for states in text)
        line = torch.nn.functional.normalize(harmful - benign, dim=-1)
        moved = [((one - other)[1 - half :: 2, layer] @ line).mean() for one, other in zip(text, seen, strict=True)]
        distance = (text[0][1 - half :: 2, layer].mean(0) - text[1][1 - half :: 2, layer].mean(0)) @ line
        found += torch.stack([*moved, -shift[layer] @ line]) / distance / 2
    lost, lost_benign, back = found.tolist()
    return ShiftCheck(layer, lost, lost_benign, back)


def _apart(harmful: Float[Tensor, "harmful width"], benign: Float[Tensor, "benign width"]) -> float:
    """Distance of the means over the spread along the line between them."""
    line = torch.nn.functional.normalize(harmful.mean(0) - benign.mean(0), dim=-1)
    one, two = harmful @ line, benign @ line
    return float((one.mean() - two.mean()) / (one.var() + two.var()).sqrt().clamp_min(1e-12))
