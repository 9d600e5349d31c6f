"""Clients of federated training: a copy of a model, the rows that it learns, and the loss whose gradient is shared.

One of a dual encoder, whose rows are pairs, and one of a model that answers, whose rows are requests with replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vlmend.audit.separating import words_of
from vlmend.core.examples import Example
from vlmend.core.targets import ChatGradients, ChatWeights, DualWeights, Pixels
from vlmend.errors import ModelProblem
from vlmend.training.batches import Row, reply_batch, row_of
from vlmend.training.inversion import pair_loss
from vlmend.training.replies import loss_of_rows
from vlmend.training.twin import How, Twin, twin_of

__all__ = ["RANK", "Client", "PairClient", "ReplyClient", "client_of"]

RANK = 8
"""Of adapters, where a client trains these."""


class Client(Protocol):
    """What a client trains, and on what.

    Attributes:
        twin: The copy that learns.
        vision: Its image tower, where that can be told.
    """

    twin: Twin
    vision: nn.Module | None

    def pixels(self, rows: Sequence[Example]) -> Pixels:
        """The rows' pictures, "row channel height width" in [0, 1] for towers that read them so.

        Raises:
            ModelProblem: The model reads pictures in a way that cannot be told picture by picture.
        """
        ...

    def tokens(self, row: Example) -> set[int]:
        """Those of a row's words, padding apart."""
        ...

    def loss(self, rows: Sequence[Example], pixels: Pixels) -> Tensor:
        """Of a batch, these pixels in the place of its pictures; differentiable in them and in what learns."""
        ...


def client_of(subject: DualWeights | ChatWeights, how: How, seed: int) -> Client:
    """A client who trains the whole of this model, mends left out.

    Raises:
        BadParameter: Weights are to be trained and are too coarse for that.
        MissingExtra: Adapters are to be trained and peft is not installed.
    """
    if isinstance(subject, DualWeights):
        return PairClient(subject, how, seed)
    return ReplyClient(subject, how, seed)


class PairClient:
    """Trains a dual encoder on pictures and their texts."""

    def __init__(self, subject: DualWeights, how: How, seed: int) -> None:
        self.twin = twin_of(subject, "all", how, rank=RANK, seed=seed)
        self._learner: Any = subject.on(self.twin.model)
        self._scale = float(subject.towers.scale)
        self.vision: nn.Module | None = self._learner.towers.vision

    def pixels(self, rows: Sequence[Example]) -> Pixels:
        """As the protocol says."""
        return self._learner.pixels([row.image for row in rows if row.image is not None])

    def tokens(self, row: Example) -> set[int]:
        """As the protocol says."""
        given = self._learner.towers.tokens([words_of(row)], 0)
        ids = given["input_ids"][0]
        return set(ids[given["attention_mask"][0] > 0].tolist() if "attention_mask" in given else ids.tolist())

    def loss(self, rows: Sequence[Example], pixels: Pixels) -> Tensor:
        """Symmetric InfoNCE; of a single pair, of which that is 0, 1 less its cosine."""
        return pair_loss(self._learner, pixels, [words_of(row) for row in rows], self._scale)


class ReplyClient:
    """Trains a model that answers on replies: cross-entropy of their tokens."""

    def __init__(self, subject: ChatWeights, how: How, seed: int) -> None:
        self.twin = twin_of(subject, "all", how, rank=RANK, seed=seed)
        self._subject = subject
        self.vision: nn.Module | None = self.twin.model.get_submodule(subject.anatomy.vision_path)

    def pixels(self, rows: Sequence[Example]) -> Pixels:
        """As the protocol says."""
        assert isinstance(self._subject, ChatGradients)
        found = self._subject.pixels([row.image for row in rows if row.image is not None])
        if found.values.dim() != 4 or len(found.values) != len(rows):
            raise ModelProblem(
                f"{self._subject.name} does not read one picture as one block of pixels.",
                "Gradients are inverted for towers that do (LLaVA with one tile, PaliGemma).",
            )
        return found

    def tokens(self, row: Example) -> set[int]:
        """As the protocol says: of the request as the template writes it, and of the reply."""
        inputs, _ = reply_batch(self._subject.reader, [_learnt(row)])
        return set(inputs["input_ids"][0].tolist()) - {self._subject.anatomy.image_token_id}

    def loss(self, rows: Sequence[Example], pixels: Pixels) -> Tensor:
        """Mean over the reply tokens of the batch; over rows where they cannot share one."""
        learnt = [_learnt(row) for row in rows]
        if not self._subject.anatomy.alone:
            return loss_of_rows(self._subject, self.twin, learnt, pixels)
        each: list[Tensor] = []
        for k, row in enumerate(learnt):
            values, black, span = (part[k : k + 1] for part in (pixels.values, pixels.black, pixels.span))
            each.append(loss_of_rows(self._subject, self.twin, [row], Pixels(values, black, span)))
        return torch.stack(each).mean()


def _learnt(row: Example) -> Row:
    found = row_of(row)
    assert found is not None
    return found
