"""Is what the plug-in reads and does the mend? Its own code, on the transformers model, held to the hooks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import noise_image
from vlmend.errors import ModelProblem
from vlmend.export.vllm_plugin.mends import Mend, MendError
from vlmend.export.vllm_plugin.steering import Request, Steering
from vlmend.models.decoding.forced import forced_logits
from vlmend.models.decoding.generation import bare_settings, generation
from vlmend.models.vlm import VLM

__all__ = ["TOLERANCE", "greedy", "prove", "under_plugin"]

TOLERANCE = 1e-5
"""Largest difference of any logit, relative to the largest logit (at least 1)."""
KEEP = "Keep the hooks for this model (vlmend serve), and report its family."
TOKENS = 8
"""Of the reply whose logits are compared."""


@torch.inference_mode()
def greedy(view: VLM, conversation: Conversation, count: int) -> list[int]:
    """The first so many greedy tokens of a reply that may not end before."""
    asked = view.rewritten([conversation])
    inputs = view.reader.inputs(asked)
    with view.installed(asked, view.reader.rows(asked, inputs)), bare_settings(view.model):
        out = view.reader.asked(inputs).generate(
            **inputs, generation_config=generation(view.reader, Sampling(count, least=count))
        )
    view.reader.forget()
    return out[0, -count:].tolist()


@torch.inference_mode()
def prove(view: VLM, mend: Mend) -> float:
    """Hold the plug-in to the hooks on a text-only and an image request, behind each token of the reply.

    Returns:
        The largest difference of a logit, as a share of the largest one.

    Raises:
        ModelProblem: Logits differ.
    """
    picture = Conversation.ask("What is in this picture?", noise_image(view.image_side, 0))
    error = 0.0
    for asked in (Conversation.ask("Name three colours."), picture):
        tokens = torch.tensor(greedy(view, asked, TOKENS))
        (meant,) = forced_logits(view, [asked], [tokens])
        try:
            found = under_plugin(view.bare, mend, asked, tokens)
        except MendError as problem:
            raise ModelProblem(f"The plug-in cannot steer this model: {problem}.", KEEP) from problem
        error = max(error, float((found - meant).abs().max() / meant.abs().max().clamp_min(1)))
    if not error <= TOLERANCE:
        raise ModelProblem(
            f"The plug-in differs from the hooks by {error:.2g} of the largest logit; nothing was written.",
            KEEP,
        )
    return error


def under_plugin(bare: VLM, mend: Mend, asked: Conversation, tokens: Tensor) -> Tensor:
    """Logits behind each token of a reply, "token vocabulary", with the plug-in at the bare model's blocks."""
    inputs = bare.reader.inputs([asked])
    ids: list[int] = inputs["input_ids"][0].tolist()
    images = [(place, place + 1) for place, token in enumerate(ids) if token == bare.anatomy.image_token_id]
    request = Request("a proof", mend.name, 0, len(ids) + len(tokens), len(ids), images)
    steering = Steering({mend.name: mend}, bare.model.device)
    with ExitStack() as stack:
        for layer in steering.layers:
            hook = _hook(steering, layer)
            stack.callback(bare.anatomy.blocks[layer].register_forward_hook(hook).remove)
        with steering.step(lambda: [request], request.count):
            (found,) = forced_logits(bare, [asked], [tokens])
    return found


def _hook(steering: Steering, layer: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: Any) -> None:
        state = output if isinstance(output, Tensor) else output[0]
        steering.after(layer, state[0], None)

    return hook
