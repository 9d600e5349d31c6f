"""What is explained: the score of one picture and one text, as a function of the pixels that the model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.core.targets import ChatGradients, DualGradients, Pixels
from vlmend.errors import BadData, BadImage, ModelProblem
from vlmend.pictures.galleries import PHOTO, QUESTION
from vlmend.pictures.regions import AGAINST, BOX

__all__ = ["Explainable", "Shown", "region_of", "shown", "text_of"]

Explainable = DualGradients | ChatGradients
Score = Callable[[Float[Tensor, "picture channel height width"]], Float[Tensor, " picture"]]

LONGEST = 24
"""Tokens of a reply of the model's own."""

CHUNK = 16
"""Pictures that are scored at once, where the model lets rows share a batch."""

PADDED = 0.5
"""Blue of a picture that is all blue, below which a pixel is no part of it."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture as a target reads it.

    Attributes:
        text: What the score is of: a text of a dual encoder, a reply of a model that answers.
        against: A text whose score is taken off; empty where none is.
        score: Of pictures in [0, 1]: a dual encoder's logit, or the mean log-likelihood of the reply's tokens. It
            can be differentiated.
        picture: In [0, 1].
        baseline: The picture's mean colour everywhere: what is left when nothing is seen.
        region: Where the person is; None where the row does not say.
        counted: Pixels that are part of the picture, and no padding.
    """

    text: str
    against: str
    score: Score
    picture: Float[Tensor, "1 channel height width"]
    baseline: Float[Tensor, "1 channel height width"]
    region: Bool[npt.NDArray[np.bool_], "height width"] | None
    counted: Bool[npt.NDArray[np.bool_], "height width"]

    def as_image(self) -> PIL.Image.Image:
        """The picture, as the model sees it."""
        levels = (255 * self.picture[0].movedim(0, -1)).round().to(torch.uint8)
        return PIL.Image.fromarray(levels.cpu().numpy())


def text_of(row: Example, kind: str) -> str:
    """What is explained where nobody says: a caption, or the first answer; "" where the row has neither."""
    if kind == "chat":
        return row.answers[0] if row.answers else ""
    return row.caption or (PHOTO.format(row.answers[0]) if row.answers else row.prompt)


def shown(target: Explainable, row: Example, text: str = "") -> Shown:
    """What is explained of a row.

    Args:
        target: Its mends applied.
        row: With a picture; attributes `box` and `against` are read.
        text: What the score is of, in the place of the row's own; a model that answers and has neither says its own.

    Raises:
        BadData: There is no picture, or no text.
        BadImage: The picture cannot be read, or the box lies outside of it.
        ModelProblem: The layout of the model's pixels cannot be drawn.
    """
    if row.image is None:
        raise BadData(f"{row.id} has no picture.", "Pass rows with an image.")
    said, against = text or text_of(row, target.kind), row.attributes.get(AGAINST, "")
    pixels = target.pixels([row.image])
    if pixels.values.ndim != 4 or pixels.values.shape[:2] != (1, 3):
        raise ModelProblem(
            f"{target.name} reads pictures as {tuple(pixels.values.shape)} numbers, which are no one picture.",
            "Explain a model that reads each picture whole (CLIP, SigLIP, LLaVA).",
        )
    if isinstance(target, DualGradients):
        if not said:
            raise BadData(f"{row.id} has no caption, answer or prompt.", "Say what to explain: --text.")
        score = _dual_score(target, pixels, said, against)
    else:
        asked = Conversation((*row.turns, Turn("user", row.prompt or QUESTION, (row.image,))))
        said = said or target.generate([asked], Sampling(LONGEST))[0].text
        score = _chat_score(target, asked, pixels, said, against)
    x, y, counted = _sight(target, row.image)
    region = region_of(row)
    if region is not None:
        height, width = region.shape
        region = region[(y * (height - 1)).round().astype(int), (x * (width - 1)).round().astype(int)] & counted
    baseline = pixels.values.mean((2, 3), keepdim=True).expand_as(pixels.values)
    return Shown(said, against, score, pixels.values, baseline, region, counted)


def region_of(row: Example) -> Bool[npt.NDArray[np.bool_], "height width"] | None:
    """Where the person is in a row's picture: its `box`, or its mask, a further picture in black and white alone.

    Raises:
        BadImage: The box is no four numbers, or holds no pixel.
    """
    if row.image is None:
        return None
    width, height = row.image.decode().size
    told = row.attributes.get(BOX, "")
    if not told:
        return _mask(row.more_images[0], width, height) if row.more_images else None
    try:
        left, upper, right, lower = (round(float(part)) for part in told.replace(",", " ").split())
    except ValueError as problem:
        raise _bad_box(row, told) from problem
    region = np.zeros((height, width), bool)
    region[max(0, upper) : max(0, lower), max(0, left) : max(0, right)] = True
    if not region.any():
        raise _bad_box(row, told)
    return region


def _bad_box(row: Example, told: str) -> BadImage:
    return BadImage(f"{row.id}: no pixel of its picture lies in the box {told!r}.",
                    "A box is its left, upper, right and lower edge, in pixels: \"10 20 110 220\".")  # fmt: skip


def _mask(image: Image, width: int, height: int) -> npt.NDArray[np.bool_] | None:
    """A further picture as a mask, white where the person is; None where it is a picture like others."""
    levels = np.asarray(image.decode().convert("L"))
    if levels.shape != (height, width) or not (np.isin(levels, (0, 255)).all() and (levels > 0).any()):
        return None
    return levels > 0


def _dual_score(target: DualGradients, pixels: Pixels, text: str, against: str) -> Score:
    texts = target.embed_texts([text, *([against] if against else [])])

    def score(values: Tensor) -> Tensor:
        return torch.cat([_less(target.scored(target.embed_pixels(_repeated(pixels, part)), texts))
                          for part in values.split(CHUNK)])  # fmt: skip

    return score


def _less(logits: Float[Tensor, "picture text"]) -> Float[Tensor, " picture"]:
    """The first text's score, less the second one's where there is one."""
    return logits[:, 0] - (logits[:, 1] if logits.shape[1] > 1 else 0)


def _chat_score(target: ChatGradients, asked: Conversation, pixels: Pixels, reply: str, against: str) -> Score:
    size = _abreast(target, asked)

    def losses(part: Tensor, said: str) -> Tensor:
        return target.reply_loss([asked] * len(part), [said] * len(part), _repeated(pixels, part))

    def score(values: Tensor) -> Tensor:
        found = [
            (losses(part, against) if against else 0) - losses(part, reply) for part in values.split(size)
        ]  # fmt: skip
        return torch.cat(found)

    return score


def _abreast(target: ChatGradients, asked: Conversation) -> int:
    """How many pictures are scored at once."""
    fitting: Callable[[list[Conversation]], int] | None = getattr(target, "fitting_with_gradients", None)
    return CHUNK if fitting is None else fitting([asked] * CHUNK)


def _repeated(pixels: Pixels, values: Tensor) -> Pixels:
    """Other values in the place of one picture's, with what belongs to each."""
    count = len(values)
    rest: dict[str, Any] = {
        name: held.expand(count, *held.shape[1:]) if isinstance(held, Tensor) and held.shape[:1] == (1,) else held
        for name, held in pixels.rest.items()
    }
    black, span = (held.expand(count, *held.shape[1:]) for held in (pixels.black, pixels.span))
    return replace(pixels, values=values, black=black, span=span, rest=rest)


def _sight(
    target: Explainable, image: Image
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Where each pixel that the model reads lies in the picture, from 0 to 1 of width and height, and whether it does.

    Told by a picture of the same size whose red grows to the right and whose green grows downwards, and which is blue
    throughout: whatever the processor cuts, shrinks or pads is done to it too.
    """
    width, height = image.decode().size
    red, green = (np.linspace(0, 255, side).round().astype(np.uint8) for side in (width, height))
    chart = np.full((height, width, 3), 255, np.uint8)
    chart[..., 0], chart[..., 1] = red[None, :], green[:, None]
    seen = target.pixels([Image.from_pixels(PIL.Image.fromarray(chart), image.name)]).values[0].double().cpu().numpy()
    return seen[0], seen[1], seen[2] > PADDED
