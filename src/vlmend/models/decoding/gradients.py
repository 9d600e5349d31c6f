"""Pixels before normalisation, and the loss of given replies in them: through tower, projector, decoder and mends.

What a processor does after resizing is measured on a black, a white and a grey image of the same size, so that any
rescaling and normalisation is met, and must be linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ContrastShift, FilterImage, ShowExamples, ShowNearest
from vlmend.core.images import Image
from vlmend.core.targets import Pixels
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.decoding.engine import lengths_of
from vlmend.models.decoding.forced import forced_logits, logprobs_of, reply_tokens
from vlmend.models.decoding.loop import Waiting, in_budget
from vlmend.models.decoding.prefill import View
from vlmend.models.reading.reader import Reader

__all__ = ["fitting_with_gradients", "pixels_of", "reply_loss"]

KEPT = 4
"""A token takes so much more room where gradients are wanted, since each layer keeps what it needs for them: on phantom
1.5 MB, so that the budget of a CPU is 1.5 GB of them."""
REPLY = 32
"""Tokens of a reply that room is left for."""

LINEAR = 1e-4
"""Largest miss of the grey image, in the processor's own numbers."""
NO_WAY = "Attack this model through one that vlmend can map (LLaVA, CLIP towers), and transfer the pictures."


def pixels_of(view: View, images: Sequence[Image]) -> Pixels:
    """Images in [0, 1], at float precision, in the layout of the processor's `pixel_values`.

    Raises:
        BadParameter: There is no image.
        BadImage: One cannot be decoded.
        ModelProblem: The layout cannot be mapped, or colours are not only shifted and scaled.
    """
    if not images:
        raise BadParameter("There is no image to turn into pixels.", "Pass at least one image.")
    reader = view.reader
    dtype = torch.promote_types(reader.model.dtype, torch.float32)
    ends: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for image in images:
        size = image.decode().size
        if size not in ends:
            ends[size] = _black_and_span(reader, size)
        black, span = (end.to(dtype) for end in ends[size])
        values = (_processed(reader, image).to(dtype) - black) / span.where(span != 0, 1.0)
        parts.append((torch.where(span == 0, 0.0, values).clamp(0, 1), black, span))
    if len({part[0].shape[1:] for part in parts}) > 1:
        raise ModelProblem(f"{type(reader.processor).__name__} cuts these images into unlike parts.", NO_WAY)
    values, black, span = (torch.cat([part[k] for part in parts]) for k in range(3))
    return Pixels(values, black, span)


def reply_loss(
    view: View, batch: Sequence[Conversation], replies: Sequence[str], pixels: Pixels
) -> Float[Tensor, " example"]:
    """Mean negative log-likelihood of each reply's tokens, differentiable in `pixels.values`.

    Raises:
        BadParameter: A reply without tokens, or a request without exactly one image.
        ModelProblem: A mend that gradients cannot pass, or pixels of another shape.
    """
    tokens = reply_tokens(view.reader, replies)
    if any(len(conversation.images) != 1 for conversation in batch) or not all(len(ids) for ids in tokens):
        raise BadParameter(
            "A loss in pixels takes requests with one image each, and replies of one token or more.",
            "Leave out the others.",
        )
    _check_passable(view)
    if view.anatomy.alone and len(batch) > 1:
        raise ModelProblem(f"Rows of this model cannot share a batch: {view.anatomy.alone}.", "Pass one at a time.")
    model = view.reader.model
    with torch.enable_grad():
        seen = _spread(view, batch, (pixels.black + pixels.values * pixels.span).to(model.device, model.dtype))
        logits = forced_logits(view, batch, tokens, seen)
        return torch.stack([-logprobs_of(each, ids).mean() for each, ids in zip(logits, tokens, strict=True)])


def fitting_with_gradients(view: View, batch: Sequence[Conversation]) -> int:
    """How many of these requests, from the first on, fit at once where gradients are wanted; at least one."""
    if view.anatomy.alone:
        return 1
    lengths = lengths_of(view, view.rewritten(batch))
    waiting = [Waiting(k, length) for k, length in enumerate(lengths)]
    return len(in_budget(waiting, REPLY, view.workings.room(view.reader.model.device).tokens // KEPT))


def _check_passable(view: View) -> None:
    """
    Raises:
        ModelProblem: An edit reads the image elsewhere than in the pixels.
    """
    bad = [
        type(edit).__name__
        for edit in view.edits
        if isinstance(edit, FilterImage | ShowExamples | ShowNearest)
        or (isinstance(edit, ContrastShift) and edit.seen == "original")
    ]
    if bad:
        raise ModelProblem(
            f"Gradients cannot pass {', '.join(sorted(set(bad)))}: it reads image files, not the pixels.",
            "Attack the view without that mend, or search without gradients.",
        )


def _spread(view: View, batch: Sequence[Conversation], seen: Tensor) -> Tensor:
    """The pixels once for every copy of the batch that shows the images; contrasts ask it more than once.

    Raises:
        ModelProblem: A contrast shows another image, or the pixels are not those of the batch.
    """
    asked, contrast = view.asked(batch)
    shown = [[c.images for c in asked[k * len(batch) : (k + 1) * len(batch)]] for k in range(contrast.copies)]
    own = [conversation.images for conversation in batch]
    if any(images != own and any(images) for images in shown):
        raise ModelProblem("Gradients cannot pass a contrast with another image.", "Attack the view without it.")
    wanted = view.reader.inputs(batch).get("pixel_values")
    if not isinstance(wanted, Tensor) or wanted.shape != seen.shape:
        told = tuple(wanted.shape) if isinstance(wanted, Tensor) else "another layout"
        raise ModelProblem(f"The batch takes pixels of {told}, and those given are {tuple(seen.shape)}.", NO_WAY)
    return torch.cat([seen] * sum(images == own for images in shown))


def _processed(reader: Reader, image: Image) -> Tensor:
    """What the processor makes of one image in a request of its own.

    Raises:
        ModelProblem: No pixels that can be told apart.
    """
    made: Any = reader.processed([Conversation.ask("", image)]).get("pixel_values")
    if not isinstance(made, Tensor) or not made.is_floating_point() or made.ndim < 2:
        raise ModelProblem(
            f"{type(reader.processor).__name__} gives no pixels in one block for an image, so they cannot be mapped.",
            NO_WAY,
        )
    return made


def _black_and_span(reader: Reader, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the processor makes of black, and of white less black, for images of this size.

    Raises:
        ModelProblem: It does more to colours than shift and scale them.
    """
    black, grey, white = (
        _processed(reader, Image.from_pixels(PIL.Image.new("RGB", size, cast("Any", (value,) * 3)))).float()
        for value in (0, 51, 255)
    )
    if not torch.allclose(grey, black + 0.2 * (white - black), atol=LINEAR):
        raise ModelProblem(
            f"{type(reader.processor).__name__} does more to colours than shift and scale them.",
            "Gradients in [0, 1] have no meaning then; use an image processor without that step.",
        )
    return black, white - black
