"""What requests under mends may share, told by what each edit declares that it touches. Unknown means unsafe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence

from vlmend.core.edits import ContrastLogits, ContrastShift, Edit, WeightEdit
from vlmend.core.packing import pack
from vlmend.core.state_edits import Touch
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights
from vlmend.models.anatomy.find import Anatomy

__all__ = ["keeps_prompt", "mixes_rows", "only_whole", "place_of", "sight_of"]

KEEPS_PROMPT: frozenset[Touch] = frozenset({"prompt", "image", "states", "logits", "reply"})
"""Touched by edits that leave everything before the last prompt token as the model alone reads it: words and images
are changed before they are read, and stand changed in the key of what is kept."""
ROW_BY_ROW: frozenset[Touch] = frozenset({"prompt", "image", "prompt_states", "states"})
"""Touched by edits that act on their own rows of a batch."""
KEEPS_SIGHT: frozenset[Touch] = frozenset({"prompt", "image", "prompt_states", "states", "logits", "reply"})
"""Touched by edits that leave the features of a given image as they are."""


def keeps_prompt(edits: Sequence[Edit]) -> bool:
    """Whether prefixes and prompts that were read may be shared with other views."""
    return all(edit.touches <= KEEPS_PROMPT for edit in edits)


def mixes_rows(edits: Sequence[Edit]) -> bool:
    """Whether the rows of a view may share a batch with those of other views."""
    return all(edit.touches <= ROW_BY_ROW for edit in edits)


def only_whole(edits: Sequence[Edit]) -> bool:
    """Whether only transformers' loop will do: contrasts, and shifts of the bare model beside other weights."""
    contrasts, shifts, weights = (
        any(isinstance(edit, kind) for edit in edits) for kind in (ContrastLogits, ContrastShift, WeightEdit)
    )
    return contrasts or (shifts and weights)


def sight_of(edits: Sequence[Edit], anatomy: Anatomy, head: Collection[str]) -> str:
    """Key of what a view makes of an image: "" where it is what the model alone makes of it.

    Args:
        edits: Of the view.
        anatomy: Tells the decoder blocks, behind which no weight reaches the features of an image.
        head: Dotted paths of the output layer.
    """
    reaching = [edit for edit in edits if not edit.touches <= KEEPS_SIGHT and not _behind(edit, anatomy, head)]
    if not reaching:
        return ""
    rows, tensors = pack(reaching)
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode() + tensors).hexdigest()


def place_of(edit: LoadAdapter | ReplaceWeights) -> str:
    """Dotted path of the module whose weights an edit acts on."""
    return edit.module if isinstance(edit, LoadAdapter) else edit.parameter.rpartition(".")[0]


def _behind(edit: Edit, anatomy: Anatomy, head: Collection[str]) -> bool:
    """Whether an edit acts on weights of the decoder blocks or of the output layer only."""
    if not isinstance(edit, LoadAdapter | ReplaceWeights):
        return False
    place = place_of(edit)
    return place in head or place.startswith(f"{anatomy.blocks_path}.")
