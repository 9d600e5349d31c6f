"""The interpreter of edits of dual encoders: on text embeddings and on logits."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.dual_edits import DualEdit, MapTexts, ScaleLogits
from vlmend.core.edits import Edit, idle
from vlmend.errors import BadParameter

__all__ = ["dual_edits", "edited_logits", "edited_texts"]


def dual_edits(edits: Sequence[Edit]) -> tuple[DualEdit, ...]:
    """The edits that do something.

    Raises:
        BadParameter: Some are not for dual encoders.
    """
    foreign = sorted({type(edit).__name__ for edit in edits if not isinstance(edit, DualEdit)})
    if foreign:
        raise BadParameter(
            f"A dual encoder has no place for {', '.join(foreign)}.",
            "Use a method that works on dual encoders: vlmend list methods.",
        )
    return tuple(edit for edit in edits if isinstance(edit, DualEdit) and not idle(edit))


def edited_texts(edits: Sequence[DualEdit], texts: Float[Tensor, "text width"]) -> Float[Tensor, "text width"]:
    """Text embeddings after the edits, of length 1."""
    for edit in edits:
        if isinstance(edit, MapTexts):
            texts = normalize(texts + edit.strength * (texts @ edit.matrix.T - texts), dim=1)
    return texts


def edited_logits(edits: Sequence[DualEdit], logits: Float[Tensor, "image text"]) -> Float[Tensor, "image text"]:
    """Logits after the edits."""
    for edit in edits:
        if isinstance(edit, ScaleLogits):
            logits = logits * (1 + edit.strength * (1 / edit.temperature - 1))
    return logits
