"""A loaded vision-language model: generate, read states, view it with a mend."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from vlmend.core.conversation import Conversation, Reply, Sampling, StopReason
from vlmend.core.edits import (
    ActivationEdit,
    AddVector,
    ContrastLogits,
    ContrastShift,
    Edit,
    LoadAdapter,
    RewritePrompt,
    idle,
)
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.anatomy import Anatomy
from vlmend.models.answering import answer, captioned
from vlmend.models.contrast import Prefixes, row_shifts
from vlmend.models.hooks import Rows, RowShift, adapting, capturing, editing, precise
from vlmend.models.lens import lens_score
from vlmend.models.reader import Reader

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
        prefixes: What sample-level mends read once, shared by all views.
    """

    name: str
    model: Any
    processor: Any
    anatomy: Anatomy
    model_digest: str
    mends: tuple[Mend, ...] = ()
    vision: VisionCounter = field(default_factory=VisionCounter)
    prefixes: Prefixes = field(default_factory=Prefixes)

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

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """From the image processor's `image_mean`; grey where it has none."""
        mean = getattr(getattr(self.processor, "image_processor", None), "image_mean", None) or (0.5, 0.5, 0.5)
        red, green, blue = (round(255 * float(part)) for part in mean)
        return red, green, blue

    def with_mend(self, mend: Mend) -> VLM:
        """A view of the same weights with one more mend.

        Raises:
            MendMismatch: The mend was fitted on another model.
        """
        mend.check_base(self.name, self.model_digest)
        return replace(self, mends=(*self.mends, mend))

    @property
    def reader(self) -> Reader:
        """The bare model, for reads without any mend."""
        return Reader(self.model, self.processor, self.anatomy)

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """Every edit that does something, in the order of the mends."""
        return tuple(edit for mend in self.mends for edit in mend.edits if not idle(edit))

    @torch.inference_mode()
    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer a batch, text-only and image requests together, with everything the mends do.

        Raises:
            BadImage: An image of the batch cannot be decoded; the message names it.
            ModelProblem: An image never reached the vision tower, or a mend never fired.
        """
        return answer(self, self.edits, batch, sampling)

    @torch.inference_mode()
    def decode(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """One pass of decoding under the edits of prompt, states, weights and logits."""
        began = time.monotonic()
        asked, pairs = self._asked(batch)
        if pairs and sampling.temperature > 0:
            raise BadParameter("A mend that contrasts logits decodes greedily only.", "Set temperature to 0.")
        inputs = self.reader.inputs(asked)
        rows = self.reader.rows(asked, inputs)
        torch.manual_seed(sampling.seed)
        with self._installed(asked, rows):
            out = self.model.generate(
                **inputs, generation_config=self._generation(sampling), logits_processor=[_Contrast(pairs)]
            )
        new = out[: len(batch), inputs["input_ids"].shape[1] :].cpu()
        seconds = (time.monotonic() - began) / len(batch)
        real = rows.real[: len(batch)].sum(1).tolist()
        return [
            self._reply(tokens, prompt, seconds, conversation.lead)
            for tokens, prompt, conversation in zip(new, real, batch, strict=True)
        ]

    @torch.inference_mode()
    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States at the last prompt position, after this view's mends, float32 on the CPU."""
        asked = self._rewritten(batch)
        inputs = self.reader.inputs(asked)
        with self._installed(asked, self.reader.rows(asked, inputs)), capturing(self.anatomy, sites) as states:
            self.reader.forward(inputs)
        return {site: state.float().cpu() for site, state in states.items()}

    @torch.inference_mode()
    def logits(self, batch: Sequence[Conversation]) -> Float[Tensor, "example vocabulary"]:
        """Next-token logits after the prompt, at least float32, on the CPU."""
        asked, pairs = self._asked(batch)
        inputs = self.reader.inputs(asked)
        with self._installed(asked, self.reader.rows(asked, inputs)):
            found = precise(self.reader.forward(inputs))
        return _Contrast(pairs)(inputs["input_ids"], found)[: len(batch)].cpu()

    def lens(
        self, batch: Sequence[Conversation], layers: Sequence[int], token_ids: Sequence[int]
    ) -> Float[Tensor, " example"]:
        """Refusal score of each prompt on the bare model (HiddenDetect, arXiv 2502.14744).

        Each layer's state at the last prompt position goes through the final norm and the output
        matrix; its cosine with the 0/1 vector of `token_ids` is integrated over `layers` (trapezoids).
        """
        with torch.inference_mode():
            states = self.reader.states(batch, [Site("language", layer) for layer in layers])
            return lens_score(self.model, self.anatomy, list(states.values()), token_ids).float().cpu()

    def _rewritten(self, batch: Sequence[Conversation]) -> list[Conversation]:
        """The batch in the words that the mends put it."""
        asked = list(batch)
        for edit in self.edits:
            if isinstance(edit, RewritePrompt):
                asked = [
                    c.rewritten(edit.before, edit.after, edit.system) if edit.when == "always" or c.has_image else c
                    for c in asked
                ]
        return asked

    def _asked(self, batch: Sequence[Conversation]) -> tuple[list[Conversation], list[ContrastLogits]]:
        """What the model is asked: every request, then once more for each contrast of logits."""
        plain = self._rewritten(batch)
        seen = any(conversation.has_image for conversation in plain)
        pairs = [e for e in self.edits if isinstance(e, ContrastLogits) and (seen or e.when == "always")]
        guided = [
            c.rewritten(before=edit.principle) if edit.when == "always" or c.has_image else c
            for edit in pairs
            for c in plain
        ]
        return plain + guided, pairs

    def _row_shifts(self, batch: Sequence[Conversation]) -> list[RowShift]:
        """The extra reads of sample-level edits, on the bare model."""
        shifts: list[RowShift] = []
        for edit in self.edits:
            if isinstance(edit, ContrastShift):
                told = [conversation.without_images() for conversation in batch]
                if edit.unseen == "caption":
                    told = captioned(replace(self, mends=()), batch)
                shifts += row_shifts(self.reader, self.prefixes, edit, batch, told)
        return shifts

    def _installed(self, batch: Sequence[Conversation], rows: Rows) -> ExitStack:
        """Edits and the vision counter for one call; checks on the way out that both did their work."""
        fixed = [edit for edit in self.edits if isinstance(edit, ActivationEdit)]
        adapters = [edit for edit in self.edits if isinstance(edit, LoadAdapter)]
        with ExitStack() as stack:
            counter = self.anatomy.vision.register_forward_hook(self._count)
            stack.callback(counter.remove)
            shifts = self._row_shifts(batch)
            seen = self.vision.calls

            def check(kind: type[BaseException] | None, *_: object) -> None:
                if kind is None and rows.has_image.any():
                    self._check(self.vision.calls > seen, [*fixed, *shifts], rows)

            stack.push(check)
            stack.enter_context(adapting(self.model, adapters))
            stack.enter_context(editing(self.anatomy, [*fixed, *shifts], rows))
            return stack.pop_all()

    def _check(self, saw: bool, edits: Sequence[ActivationEdit | RowShift], rows: Rows) -> None:
        """Images must have been seen, and ungated edits for image rows must have fired."""
        if not saw:
            raise ModelProblem(
                f"{self.name}: the images of this batch never reached the vision tower ({self.anatomy.vision_path}).",
                "The processor and the model do not fit together; check the processor's files.",
            )
        silent = [e for e in edits if e.when == "with_image" and not _gated(e) and not rows.fired[e.site]]
        if silent and silent[0].tokens != "reply":
            raise ModelProblem(
                f"{self.name}: the mend never fired at {silent[0].site}.",
                "A parent module bypasses the hooks of its blocks; this family cannot be mended here.",
            )

    def _count(self, *_: object) -> None:
        self.vision.calls += 1

    def _generation(self, sampling: Sampling) -> GenerationConfig:
        """Decoding as asked; a checkpoint's own sampling settings and penalties do not leak in."""
        own = self.model.generation_config
        drawn = sampling.temperature > 0
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            min_new_tokens=sampling.least or None,
            do_sample=drawn,
            temperature=sampling.temperature if drawn else None,
            top_k=0 if drawn else None,
            top_p=1.0 if drawn else None,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id if own.pad_token_id is not None else _first(own.eos_token_id),
        )

    def _reply(self, tokens: Int[Tensor, " token"], prompt: int, seconds: float, lead: str) -> Reply:
        ends = {*_all(self.model.generation_config.eos_token_id)}
        ids: list[int] = tokens.tolist()
        length = next((k + 1 for k, token in enumerate(ids) if token in ends), None)
        stop: StopReason = "length" if length is None else "stop"
        kept = ids if length is None else ids[:length]
        text: str = self.processor.tokenizer.decode(kept, skip_special_tokens=True)
        return Reply((lead + text).strip(), stop, prompt, len(kept), seconds)


@dataclass(frozen=True)
class _Contrast(LogitsProcessor):
    """Mixes the logits of plain rows with those of their guided twins, which follow them in the batch.

    Plain and guided rows get the same logits, so that greedy decoding keeps them in step.
    """

    pairs: Sequence[ContrastLogits]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self.pairs:
            return scores
        plain, *guided = scores.chunk(len(self.pairs) + 1)
        mixed = plain + sum(e.strength * (g - plain) for e, g in zip(self.pairs, guided, strict=True))
        return mixed.repeat(len(self.pairs) + 1, 1)


def _gated(edit: ActivationEdit | RowShift) -> bool:
    return isinstance(edit, AddVector) and edit.gate is not None


def _all(token: int | list[int] | None) -> list[int]:
    return [] if token is None else [token] if isinstance(token, int) else list(token)


def _first(token: int | list[int] | None) -> int | None:
    return next(iter(_all(token)), None)
