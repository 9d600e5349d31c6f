"""VLGuard: safety fine-tuning with pictures, as an adapter that can be taken off again.

Zong et al., arXiv 2402.02207 (ICML 2024). Rows in their layout: a harmful request beside an image and a
refusal; a benign request beside the same kind of image and an answer, here the model's own reply to
the words alone. `mixed` adds questions about pictures with the model's own replies. A LoRA adapter on
every linear module of the decoder blocks is trained on the reply tokens (`vlmend.training`):

    y <- W x + up (down x),   up = (lora_alpha / rank) B,  down = A

The mend holds these small matrices. peft works on a twin that shares the model's weights and nothing
else, so the model itself is never touched.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from vlmend.core.contracts import AbstractMethod, Access, GenerativeTarget
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import LoadAdapter
from vlmend.core.examples import Dataset, spread
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.errors import BadParameter, MissingExtra, ModelProblem
from vlmend.methods.reading import BATCH, anchors_of
from vlmend.models.reading.reader import Reader
from vlmend.models.vlm import VLM
from vlmend.pictures.pool import drawn
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import IGNORED, reply_loss

__all__ = ["METHOD", "Row", "VLGuard", "adapters_of", "encoded", "rows_of", "tuned", "twin_of"]

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "Sorry, I can't assist with this.",
    "I can't help with that, because it could do harm.",
)
QUESTION = "What is in this picture?"
REPLY_TOKENS = 24
"""Length of the model's own replies; a longer one is cut there and teaches no end."""


@dataclass(frozen=True)
class VLGuard(AbstractMethod):
    """A short safety fine-tuning of a finished model.

    Attributes:
        mode: `post_hoc`: the safety rows alone. `mixed`: one row in three asks what a picture shows.
        steps: Optimiser steps.
        batch: Rows a step.
        rank: Of the adapter; its alpha is twice the rank.
        rate: Peak learning rate.
        most: Anchors at most, half of each label, evenly spread over the data.
    """

    name: ClassVar[str] = "vlguard"
    source: ClassVar[str] = "Zong et al., arXiv 2402.02207, ICML 2024"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "anchor requests, harmful and benign, and the model's replies to them; training"

    mode: Literal["post_hoc", "mixed"] = "post_hoc"
    steps: int = 60
    batch: int = 8
    rank: int = 8
    rate: float = 2e-4
    most: int = 200

    def fit(self, target: GenerativeTarget, data: Dataset, *, seed: int) -> Mend:
        """Train the adapter on a twin of the model.

        Raises:
            BadParameter: Numbers out of range, or a target whose weights are out of reach.
            BadData: The data holds no harmful or no benign request.
            MissingExtra: peft is not installed.
        """
        if min(self.steps, self.batch, self.rank, self.most - 1) < 1 or self.rate <= 0:
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, rank={self.rank}, rate={self.rate}, most={self.most} "
                "cannot be.",
                "steps, batch and rank are at least 1, most at least 2, rate is above 0.",
            )
        if not isinstance(target, VLM):
            raise BadParameter(
                f"vlguard trains weights, and those of {target.name} are out of reach.",
                "Use a loaded model, or a method that needs no weights.",
            )
        rows = rows_of(target, data, self.mode, self.most, seed)
        twin = tuned(self, target, rows, seed)
        return self.made(target, data, seed, adapters_of(target, twin), {})


@dataclass(frozen=True)
class Row:
    """One training row; `ends` is False where the reply was cut off and must not teach an end."""

    asked: Conversation
    reply: str
    ends: bool


def rows_of(target: VLM, data: Dataset, mode: Literal["post_hoc", "mixed"], most: int, seed: int) -> list[Row]:
    """Refusals of harmful requests, own replies to benign ones, and, when mixed, to questions about pictures."""
    harmful, benign = (spread(anchors_of(data, label), most // 2) for label in ("harmful", "benign"))
    images = [
        anchor.image if anchor.image is not None else _picture(seed, k) for k, anchor in enumerate([*harmful, *benign])
    ]
    rows = [
        Row(Conversation.ask(anchor.prompt, image), REFUSALS[k % len(REFUSALS)], True)
        for k, (anchor, image) in enumerate(zip(harmful, images, strict=False))
    ]
    said = _replies(target, [Conversation.ask(anchor.prompt) for anchor in benign])
    for anchor, image, reply in zip(benign, images[len(harmful) :], said, strict=True):
        rows.append(_own(Conversation.ask(anchor.prompt, image), reply))
    if mode == "mixed":
        asked = [Conversation.ask(QUESTION, image) for image in images[::2]]
        rows += [_own(*pair) for pair in zip(asked, _replies(target, asked), strict=True)]
    return [row for row in rows if row.reply or row.ends]


def twin_of(target: VLM, rank: int, seed: int) -> Any:
    """A copy of the model that shares its weights, frozen, with a fresh adapter of peft in its blocks.

    Raises:
        MissingExtra: peft is not installed.
        ModelProblem: The blocks hold no plain linear module.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as problem:
        raise MissingExtra(
            "vlguard trains with peft, which is not installed.", "pip install 'vlmend[train]'"
        ) from problem
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in target.model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in target.model.buffers()}
    twin = deepcopy(target.model, shared)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_linears(target))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, twin.get_submodule(target.anatomy.blocks_path))
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # steps of Adam vanish in half precision
    return twin


def tuned(method: VLGuard, target: VLM, rows: Sequence[Row], seed: int) -> Any:
    """A twin whose adapter is trained on the rows; the batch of a step follows from seed and step."""
    twin = twin_of(target, method.rank, seed)
    parameters = [parameter for parameter in twin.parameters() if parameter.requires_grad]

    def loss_of_step(step: int) -> Tensor:
        drawn = random.Random(f"vlguard:{seed}:{step}").sample(rows, min(method.batch, len(rows)))
        inputs, labels = encoded(target.reader, drawn)
        logits = twin(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits
        return reply_loss(logits[:, :-1], labels)

    with tempfile.TemporaryDirectory() as folder:
        settings = LoopSettings(steps=method.steps, rate=method.rate, save_every=method.steps)
        train(parameters, loss_of_step, settings, Path(folder), lambda step, loss: None)
    return twin


def adapters_of(target: VLM, twin: Any) -> list[LoadAdapter]:
    """The twin's adapter as edits of the model, the scale folded into `up`."""
    path = target.anatomy.blocks_path
    found: list[LoadAdapter] = []
    for name in _linears(target):
        layer = twin.get_submodule(f"{path}.{name}")
        down, up = (getattr(layer, part)["default"].weight.detach().float().cpu() for part in ("lora_A", "lora_B"))
        found.append(LoadAdapter(f"{path}.{name}", down.clone(), layer.scaling["default"] * up))
    return found


def encoded(reader: Reader, rows: Sequence[Row]) -> tuple[dict[str, Any], Int[Tensor, "row reply"]]:
    """Model inputs, prompts padded on the left and replies on the right, and the labels of the replies."""
    inputs = reader.inputs([row.asked for row in rows])
    prompts = inputs["input_ids"]
    tokenizer = reader.processor.tokenizer
    replies = [
        tokenizer(row.reply, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] * row.ends for row in rows
    ]
    right = torch.full((len(rows), max(map(len, replies))), tokenizer.pad_token_id)
    labels = torch.full_like(right, IGNORED)
    for k, reply in enumerate(replies):
        right[k, : len(reply)] = labels[k, : len(reply)] = torch.tensor(reply)
    right, labels = right.to(prompts), labels.to(prompts)
    tail = {"input_ids": right, "attention_mask": (labels != IGNORED).to(prompts)}
    for key, value in inputs.items():
        if value.shape == prompts.shape:  # token types too, where a family has them: 0 is text
            inputs[key] = torch.cat([value, tail.get(key, torch.zeros_like(right)).to(value)], dim=1)
    return inputs, labels


def _linears(target: VLM) -> list[str]:
    """Plain linear modules of the decoder blocks, by their path below the list of blocks."""
    blocks = target.model.get_submodule(target.anatomy.blocks_path)
    names = [name for name, module in blocks.named_modules() if type(module) is nn.Linear]
    if not names:
        raise ModelProblem(
            f"The decoder blocks of {target.name} hold no plain linear module to adapt.",
            "Load the model without quantisation.",
        )
    return names


def _own(asked: Conversation, reply: Reply) -> Row:
    return Row(asked, reply.text, reply.stop == "stop")


def _replies(target: VLM, asked: Sequence[Conversation]) -> list[Reply]:
    """The model's own replies, greedily."""
    starts = range(0, len(asked), BATCH)
    return [reply for k in starts for reply in target.generate(asked[k : k + BATCH], Sampling(REPLY_TOKENS))]


def _picture(seed: int, index: int) -> Image:
    """A training picture, for requests that bring no image of their own."""
    thing = drawn("object", "train", seed, index)
    return Image.from_pixels(thing.image, thing.facts["name"])


METHOD = VLGuard
