"""A loaded vision-language model: generate, read states, view it with a mend."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig

from vlmend.core.conversation import Conversation, Reply, Sampling, StopReason
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.models.anatomy import Anatomy
from vlmend.models.hooks import Rows, capturing, editing

__all__ = ["VLM", "VisionCounter"]


@dataclass
class VisionCounter:
    """Counts the calls of the vision tower, the proof that images reach it."""

    calls: int = 0


@dataclass(frozen=True, eq=False)
class VLM:
    """A view of one loaded model under zero or more mends.

    Views share weights; making one costs nothing. The model is never changed: every edit lives for
    one call.

    Attributes:
        name: Name or folder it was loaded from.
        model, processor: The transformers objects (`PreTrainedModel`, `ProcessorMixin`).
        anatomy: Where the blocks and the vision tower are.
        model_digest: Fingerprint of the weights.
        mends: What this view applies, in order.
        vision: Counter shared by all views.
    """

    name: str
    model: Any
    processor: Any
    anatomy: Anatomy
    model_digest: str
    mends: tuple[Mend, ...] = ()
    vision: VisionCounter = field(default_factory=VisionCounter)

    @property
    def id(self) -> str:
        """`name`, or `name+method@digest` for each mend: no cache can confuse two views."""
        return "+".join([self.name, *(f"{m.card.method}@{m.digest[:8]}" for m in self.mends)])

    @property
    def layers(self) -> int:
        return len(self.anatomy.blocks)

    @property
    def image_side(self) -> int:
        """The vision tower's own image size, or 336 where a family reads any size."""
        size = getattr(self.anatomy.vision.config, "image_size", None)
        return size if isinstance(size, int) else 336

    def with_mend(self, mend: Mend) -> VLM:
        """A view of the same weights with one more mend.

        Raises:
            MendMismatch: The mend was fitted on another model.
        """
        mend.check_base(self.name, self.model_digest)
        return replace(self, mends=(*self.mends, mend))

    @torch.inference_mode()
    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer a batch, left-padded, text-only and image requests together.

        Raises:
            BadImage: An image of the batch cannot be decoded; the message names it.
            ModelProblem: An image never reached the vision tower, or a mend never fired.
        """
        began = time.monotonic()
        inputs = self._inputs(batch)
        rows = self._rows(batch, inputs)
        torch.manual_seed(sampling.seed)
        with self._installed(batch, rows):
            out = self.model.generate(**inputs, generation_config=self._generation(sampling))
        new = out[:, inputs["input_ids"].shape[1] :].cpu()
        seconds = (time.monotonic() - began) / len(batch)
        return [
            self._reply(tokens, int(real.sum()), sampling, seconds) for tokens, real in zip(new, rows.real, strict=True)
        ]

    @torch.inference_mode()
    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States at the last prompt position, after this view's mends, float32 on the CPU."""
        inputs = self._inputs(batch)
        rows = self._rows(batch, inputs)
        with self._installed(batch, rows), capturing(self.anatomy, sites) as states:
            self.model(**inputs, use_cache=False, logits_to_keep=1)
        return {site: state.cpu() for site, state in states.items()}

    @torch.inference_mode()
    def logits(self, batch: Sequence[Conversation]) -> Float[Tensor, "example vocabulary"]:
        """Next-token logits after the prompt, float32 on the CPU."""
        inputs = self._inputs(batch)
        with self._installed(batch, self._rows(batch, inputs)):
            return self.model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu()

    def _installed(self, batch: Sequence[Conversation], rows: Rows) -> ExitStack:
        """Edits and the vision counter for one call; checks on the way out that both did their work."""
        edits = [edit for mend in self.mends for edit in mend.edits]
        seen = self.vision.calls

        def check(kind: type[BaseException] | None, *_: object) -> None:
            if kind is None and rows.has_image.any() and self.vision.calls == seen:
                raise ModelProblem(
                    f"{self.name}: the images of this batch never reached the vision tower "
                    f"({self.anatomy.vision_path}).",
                    "The processor and the model do not fit together; check the processor's files.",
                )
            silent = [e for e in edits if e.when == "with_image" and not rows.fired[e.site]]
            if kind is None and rows.has_image.any() and silent:
                raise ModelProblem(
                    f"{self.name}: the mend never fired at {silent[0].site}.",
                    "A parent module bypasses the hooks of its blocks; this family cannot be mended here.",
                )

        with ExitStack() as stack:
            stack.push(check)
            counter = self.anatomy.vision.register_forward_hook(self._count)
            stack.callback(counter.remove)
            stack.enter_context(editing(self.anatomy, edits, rows))
            return stack.pop_all()

    def _count(self, *_: object) -> None:
        self.vision.calls += 1

    def _inputs(self, batch: Sequence[Conversation]) -> dict[str, Any]:
        texts = [
            self.processor.apply_chat_template(_messages(c), add_generation_prompt=True, tokenize=False) for c in batch
        ]
        images = [image.decode() for conversation in batch for image in conversation.images]
        inputs = self.processor(
            text=texts, images=images or None, return_tensors="pt", padding=True, padding_side="left"
        )
        inputs = inputs.to(self.model.device)
        return {
            key: value.to(self.model.dtype) if torch.is_floating_point(value) else value
            for key, value in inputs.items()
        }

    def _rows(self, batch: Sequence[Conversation], inputs: Mapping[str, Tensor]) -> Rows:
        ids = inputs["input_ids"].cpu()
        token = self.anatomy.image_token_id
        return Rows(
            real=inputs["attention_mask"].cpu().bool(),
            image=torch.zeros_like(ids, dtype=torch.bool) if token is None else ids == token,
            has_image=torch.tensor([conversation.has_image for conversation in batch]),
        )

    def _generation(self, sampling: Sampling) -> GenerationConfig:
        """Decoding as asked; a checkpoint's own sampling settings and penalties do not leak in."""
        own = self.model.generation_config
        drawn = sampling.temperature > 0
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=drawn,
            temperature=sampling.temperature if drawn else None,
            top_k=0 if drawn else None,
            top_p=1.0 if drawn else None,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id if own.pad_token_id is not None else _first(own.eos_token_id),
        )

    def _reply(self, tokens: Int[Tensor, " token"], prompt: int, sampling: Sampling, seconds: float) -> Reply:
        ends = {*_all(self.model.generation_config.eos_token_id)}
        ids: list[int] = tokens.tolist()
        length = next((k + 1 for k, token in enumerate(ids) if token in ends), None)
        stop: StopReason = "length" if length is None else "stop"
        kept = ids if length is None else ids[:length]
        text = self.processor.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Reply(text, stop, prompt, len(kept), seconds)


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Turns in the form that chat templates read; pixels travel beside them."""
    return [
        {
            "role": turn.role,
            "content": [{"type": "image"}] * len(turn.images) + [{"type": "text", "text": turn.text}],
        }
        for turn in conversation.turns
    ]


def _all(token: int | list[int] | None) -> list[int]:
    return [] if token is None else [token] if isinstance(token, int) else list(token)


def _first(token: int | list[int] | None) -> int | None:
    return next(iter(_all(token)), None)
