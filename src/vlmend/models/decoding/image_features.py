"""The vision tower runs once for each distinct image: what it made of the last ones is kept.

The features of an image depend on neither words, condition nor mend, so an audit's conditions and a run
before and after share them. It works by standing before the model's `get_image_features` for one call. Where
the pixels of one image are one row of a tensor, only new images go through the tower; where they are many
(tiles, grids), a batch whose images are all known goes through none. A family whose tower hands over more
than features (deep stacks) is left alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

__all__ = ["Seen", "seeing"]

KEPT_BYTES = 256 * 2**20


@dataclass(eq=False)
class Seen:
    """Image features by key; the image that was not used for longest goes first.

    Attributes:
        kept: Features of each image, "token width".
        bytes: Their size.
        reused: Images that needed no pass through the tower.
        stacked: Whether this family's tower gives one tensor for all images, and not one each.
    """

    kept: OrderedDict[str, Tensor] = field(default_factory=OrderedDict[str, Tensor])
    bytes: int = 0
    reused: int = 0
    stacked: bool = False

    def keep(self, key: str, features: Tensor) -> None:
        """Keep the features of one image, and let go of the oldest where there are too many."""
        if key not in self.kept:
            self.kept[key] = features.clone()
            self.bytes += features.nbytes
        self.kept.move_to_end(key)
        while self.bytes > KEPT_BYTES and len(self.kept) > 1:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes


@contextmanager
def seeing(model: Any, keys: Sequence[str], seen: Seen) -> Generator[None]:
    """For one call, let the tower see only those images of the batch that are new.

    Args:
        model: The transformers model.
        keys: One for each image, in the order in which the processor got them; equal keys, equal features.
        seen: What is known.
    """
    inner = model.base_model
    plain = getattr(inner, "get_image_features", None)
    if plain is None or not keys:
        yield
        return

    def features(pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        distinct = list(dict.fromkeys(keys))
        new = [key for key in distinct if key not in seen.kept]
        known = {key: seen.kept[key] for key in distinct if key in seen.kept}
        if new:
            rowwise = (  # one row an image; with five dimensions a row holds the images of a whole request
                pixel_values.ndim == 4
                and len(pixel_values) == len(keys)
                and not any(isinstance(extra, Tensor) for extra in (*args, *kwargs.values()))
            )
            asked = new if rowwise else list(keys)
            out = plain(pixel_values[[keys.index(one) for one in new]] if rowwise else pixel_values, *args, **kwargs)
            if not _only_features(out, len(asked)):
                return out if not rowwise or len(asked) == len(keys) else plain(pixel_values, *args, **kwargs)
            known |= dict(zip(asked, out.pooler_output, strict=True))
            seen.stacked = isinstance(out.pooler_output, Tensor)
        for key in distinct:
            seen.keep(key, known[key])
        seen.reused += len(keys) - len(new)
        each = [known[key] for key in keys]
        return BaseModelOutputWithPooling(pooler_output=torch.stack(each) if seen.stacked else each)  # type: ignore[arg-type]

    inner.get_image_features = features
    try:
        yield
    finally:
        del inner.get_image_features


def _only_features(out: Any, images: int) -> bool:
    """Whether the tower gave features for each image, and nothing else that the model reads."""
    fields = {name for name, value in out.items() if value is not None} if isinstance(out, ModelOutput) else set()
    plain = {"pooler_output", "last_hidden_state", "hidden_states", "attentions"}
    return "pooler_output" in fields <= plain and len(out["pooler_output"]) == images
