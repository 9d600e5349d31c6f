"""A model that remembers the states it has read: a study fits dozens of mends on the same anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.sites import Site
from vlmend.models.vlm import VLM

__all__ = ["RememberingVLM", "remembering"]


@dataclass(frozen=True, eq=False)
class RememberingVLM(VLM):
    """A `VLM` that reads each request once while it has no mend.

    It is a VLM, not a wrapper around one, because methods that need weights or a tokenizer ask for a VLM.
    """

    read: dict[str, dict[Site, Tensor]] = field(default_factory=dict[str, dict[Site, Tensor]])

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        """As `VLM.hidden`; what was read before is not read again."""
        if self.edits:
            return super().hidden(batch, sites)
        keys = [conversation.digest for conversation in batch]
        new = [k for k, key in enumerate(keys) if not set(sites) <= set(self.read.get(key, {}))]
        if new:
            found = super().hidden([batch[k] for k in new], sites)
            for place, k in enumerate(new):
                self.read.setdefault(keys[k], {}).update({site: found[site][place] for site in sites})
        return {site: torch.stack([self.read[key][site] for key in keys]) for site in sites}


def remembering(target: VLM) -> RememberingVLM:
    """The same model, remembering from now on; one that already does is given back."""
    if isinstance(target, RememberingVLM):
        return target
    values: dict[str, Any] = {one.name: getattr(target, one.name) for one in fields(VLM)}
    return RememberingVLM(**values)
