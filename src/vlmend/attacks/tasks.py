"""What pixel attacks climb: a loss of the right answer, by kind of target, and when a target has failed."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset, Example, class_names
from vlmend.core.images import Image
from vlmend.core.targets import ChatGradients, DualGradients, Pixels
from vlmend.errors import ModelProblem
from vlmend.pictures.galleries import PHOTO

__all__ = [
    "REPLY_TOKENS", "ChatTask", "DualTask", "PixelTask", "holds_answer", "loss_and_gradient", "task_of",
]  # fmt: skip

REPLY_TOKENS = 32
"""Longest reply in which a chat model's answer is looked for."""

ROUNDING = 0.51 / 255
"""How far pixels may be from the picture that they are read from: half a step of 8 bits, and rounding."""


class PixelTask(ABC):
    """A target, and what counts as right for each row."""

    @abstractmethod
    def read(self, images: Sequence[Image]) -> Pixels:
        """Images in [0, 1] as the target sees them."""

    @abstractmethod
    def loss(self, rows: Sequence[Example], pixels: Pixels) -> Float[Tensor, " row"]:
        """Loss of each row's right answer, differentiable in `pixels.values`; an attack makes it grow."""

    @abstractmethod
    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        """For each row whether the target gets it wrong, from the bytes of its image."""

    def seen(self, rows: Sequence[Example]) -> list[Example]:
        """The rows with images at the target's own resolution, in 8 bits.

        Raises:
            ModelProblem: The target does not read a picture as channels, height and width.
        """
        values = _planes(self.read([_image(row) for row in rows]), len(rows))
        levels = (values * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        pictures = [
            Image.from_pixels(PIL.Image.fromarray(one), _image(r).name) for one, r in zip(levels, rows, strict=True)
        ]
        return [replace(row, image=picture) for row, picture in zip(rows, pictures, strict=True)]

    def pixels(self, rows: Sequence[Example]) -> Pixels:
        """The pixels of rows whose images `seen` made: the same numbers as in the file.

        Raises:
            ModelProblem: The target resizes, crops or filters even a picture of its own resolution, so that a change of
                the file is not the change that it sees.
        """
        pixels = self.read([_image(row) for row in rows])
        values = _planes(pixels, len(rows))
        pictures = np.stack([np.asarray(_image(row).decode(), dtype=np.float32) for row in rows])
        held = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
        if (values.cpu() - held).abs().max() > ROUNDING:
            raise ModelProblem(
                "The target changes even a picture of its own resolution before it reads it (resizing and cropping, or "
                "a mend that filters pictures), so epsilon in the file is not epsilon in the model.",
                "Attack the target without that mend, or a model whose processor reads its own resolution as it is.",
            )
        return pixels


@dataclass(frozen=True, eq=False)
class DualTask(PixelTask):
    """A dual encoder among class names: right is the row's first answer.

    Attributes:
        target: The encoder.
        names: Classes.
        texts: Their embeddings, computed once.
        worded: A row's prompt stands in the place of the text of its own class.
    """

    target: DualGradients
    names: tuple[str, ...]
    texts: Float[Tensor, "text width"]
    worded: bool = False

    @classmethod
    def of(cls, target: DualGradients, data: Dataset, worded: bool = False) -> DualTask:
        """The task of naming a data set's pictures.

        Raises:
            BadData: There is only one class.
        """
        names = class_names(data)
        return cls(target, names, target.embed_texts([PHOTO.format(name) for name in names]), worded)

    def read(self, images: Sequence[Image]) -> Pixels:
        return self.target.pixels(images)

    def loss(self, rows: Sequence[Example], pixels: Pixels) -> Float[Tensor, " row"]:
        logits = self._logits(self.target.embed_pixels(pixels), rows)
        return cross_entropy(logits, self._right(rows), reduction="none")

    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        logits = self._logits(self.target.embed_images([_image(row) for row in rows]), rows)
        return (logits.argmax(1) != self._right(rows)).tolist()

    def _logits(self, images: Float[Tensor, "row width"], rows: Sequence[Example]) -> Float[Tensor, "row text"]:
        logits = self.target.scored(images, self.texts)
        if not self.worded:
            return logits
        own = self.target.scored(images, self.target.embed_texts([row.prompt for row in rows])).diagonal()
        return logits.scatter(1, self._right(rows)[:, None], own[:, None])

    def _right(self, rows: Sequence[Example]) -> Tensor:
        return torch.tensor([self.names.index(row.answers[0]) for row in rows])


@dataclass(frozen=True, eq=False)
class ChatTask(PixelTask):
    """A model that answers: right is a reply that holds one of the row's answers as words of their own.

    Attributes:
        target: The model.
    """

    target: ChatGradients

    def read(self, images: Sequence[Image]) -> Pixels:
        return self.target.pixels(images)

    def loss(self, rows: Sequence[Example], pixels: Pixels) -> Float[Tensor, " row"]:
        return self.target.reply_loss([row.conversation for row in rows], [row.answers[0] for row in rows], pixels)

    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        replies = self.target.generate([row.conversation for row in rows], Sampling(REPLY_TOKENS))
        return [not holds_answer(reply.text, row.answers) for reply, row in zip(replies, rows, strict=True)]


def task_of(target: DualGradients | ChatGradients, data: Dataset, worded: bool = False) -> PixelTask:
    """What is attacked, by the target's kind; `worded` as in `DualTask`, since a chat model always reads the prompt.

    Raises:
        BadData: A dual encoder would have one class only.
    """
    return DualTask.of(target, data, worded) if isinstance(target, DualGradients) else ChatTask(target)


def loss_and_gradient(
    task: PixelTask, rows: Sequence[Example], pixels: Pixels, values: Tensor
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row channel height width"]]:
    """The loss of each row at these values, and its gradient in them.

    Raises:
        ModelProblem: No gradient reaches the pixels.
    """
    values = values.detach().requires_grad_()
    with torch.enable_grad():
        loss = task.loss(rows, replace(pixels, values=values))
        if not loss.requires_grad:
            raise ModelProblem(
                "No gradient of the loss reaches the pixels: quantised weights, or a mend that rounds, hold it up.",
                "Attack the model without --quantize and without that mend, or by text_swap, which needs no gradient.",
            )
        (gradient,) = torch.autograd.grad(loss.sum(), values)
    return loss.detach(), gradient.detach()


def _planes(pixels: Pixels, count: int) -> Float[Tensor, "row channel height width"]:
    values = pixels.values
    if values.ndim != 4 or values.shape[0] != count or values.shape[1] != 3:
        raise ModelProblem(
            f"The target reads {count} pictures as an array of {tuple(values.shape)}: not channels, height and width.",
            "Pixel attacks need a processor that makes one picture of one size of an image; tiles and patches have no "
            "place in a file.",
        )
    return values


def _image(row: Example) -> Image:
    assert row.image is not None
    return row.image


def holds_answer(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply holds one of the answers as words of their own, in the plural too."""
    return any(re.search(rf"\b{re.escape(a.lower())}(?:e?s)?\b", reply.lower()) for a in answers)
