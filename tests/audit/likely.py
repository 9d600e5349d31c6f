"""A model whose replies have the likelihood that a rule says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.testing import ScriptedTarget


@dataclass(frozen=True)
class Likely(ScriptedTarget):
    """Gives each reply the likelihood that a rule says, of the conversation and the reply."""

    rule: Callable[[Conversation, str], float] = field(default=lambda conversation, reply: 1.0)

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Tensor]:
        return [
            torch.tensor([math.log(self.rule(*pair))], dtype=torch.float64) for pair in zip(batch, replies, strict=True)
        ]


def likely(rule: Callable[[Conversation, str], float]) -> Any:
    return Likely(lambda conversation, mended: "", rule=rule)
