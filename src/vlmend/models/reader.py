"""From conversations to model inputs, and reads of the bare model: the ground under every view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.sites import Site
from vlmend.models.anatomy import Anatomy
from vlmend.models.hooks import Rows, capturing

__all__ = ["Reader"]


@dataclass(frozen=True, eq=False)
class Reader:
    """A loaded model and its processor, without any mend.

    Attributes:
        model, processor: The transformers objects (`PreTrainedModel`, `ProcessorMixin`).
        anatomy: Where the blocks and the vision tower are.
    """

    model: Any
    processor: Any
    anatomy: Anatomy

    def rendered(self, batch: Sequence[Conversation]) -> list[str]:
        """Each conversation through the model's chat template, ready for the reply, lead included."""
        return [
            self.processor.apply_chat_template(_messages(c), add_generation_prompt=True, tokenize=False) + c.lead
            for c in batch
        ]

    def inputs(self, batch: Sequence[Conversation]) -> dict[str, Any]:
        """Model inputs, padded on the left, floating point in the model's dtype."""
        images = [image.decode() for conversation in batch for image in conversation.images]
        inputs = self.processor(
            text=self.rendered(batch), images=images or None, return_tensors="pt", padding=True, padding_side="left"
        )
        inputs = inputs.to(self.model.device)
        return {
            key: value.to(self.model.dtype) if torch.is_floating_point(value) else value
            for key, value in inputs.items()
        }

    def rows(self, batch: Sequence[Conversation], inputs: Mapping[str, Tensor]) -> Rows:
        """What edits must know of these inputs."""
        ids = inputs["input_ids"].cpu()
        token = self.anatomy.image_token_id
        return Rows(
            real=inputs["attention_mask"].cpu().bool(),
            image=torch.zeros_like(ids, dtype=torch.bool) if token is None else ids == token,
            has_image=torch.tensor([conversation.has_image for conversation in batch]),
        )

    def states(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> dict[Site, Float[Tensor, "example width"]]:
        """States of the bare model at the last prompt position, in float32 or better, on its device."""
        with capturing(self.anatomy, sites) as states:
            self.forward(self.inputs(batch))
        return states

    def forward(self, inputs: Mapping[str, Any]) -> Float[Tensor, "example vocabulary"]:
        """One forward call for the last position's next-token logits; nothing is cached."""
        return self.model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Turns in the form that chat templates read; pixels travel beside them."""
    return [
        {
            "role": turn.role,
            "content": [{"type": "image"}] * len(turn.images) + [{"type": "text", "text": turn.text}],
        }
        for turn in conversation.turns
    ]
