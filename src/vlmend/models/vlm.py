"""A loaded vision-language model: generate, read states, view it with a mend."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
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
from vlmend.errors import ModelProblem
from vlmend.models.anatomy.compiled import check_compiled
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.decoding.engine import Contrast, decode_rows, decode_whole, loop_of
from vlmend.models.decoding.image_features import Seen
from vlmend.models.decoding.prefill import Workings
from vlmend.models.decoding.prefixes import row_shifts
from vlmend.models.decoding.recall import Recall
from vlmend.models.editing.lens import lens_score
from vlmend.models.editing.replies import answer, captioned
from vlmend.models.editing.states import Aimed, Rows, RowShift, adapting, capturing, editing, precise
from vlmend.models.reading.reader import Reader

__all__ = ["VLM", "VisionCounter", "answer_together", "mixes"]


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
        workings: What all views share: prefixes, image features, the budget of a batch.
    """

    name: str
    model: Any
    processor: Any
    anatomy: Anatomy
    model_digest: str
    mends: tuple[Mend, ...] = ()
    vision: VisionCounter = field(default_factory=VisionCounter)
    workings: Workings = field(default_factory=Workings)

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

    def forgetful(self) -> VLM:
        """The same view with no request remembered, prefixes aside: for the time of a request that is new."""
        return replace(self, workings=replace(self.workings, seen=Seen(), recall=Recall()))

    @property
    def reader(self) -> Reader:
        """The bare model, for reads without any mend."""
        return Reader(self.model, self.processor, self.anatomy)

    @property
    def bare(self) -> VLM:
        """The same model without its mends."""
        return replace(self, mends=())

    @property
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
        """Decoding under the edits of prompt, states, weights and logits, in batches that fit."""
        if any(isinstance(edit, ContrastLogits) for edit in self.edits) or loop_of(self).way == "generate":
            return decode_whole(self, batch, sampling)
        return decode_rows([self] * len(batch), batch, sampling)

    @torch.inference_mode()
    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States at the last prompt position, after this view's mends, float32 on the CPU."""
        if self.anatomy.alone and len(batch) > 1:
            each = [self.hidden([conversation], sites) for conversation in batch]
            return {site: torch.cat([found[site] for found in each]) for site in sites}
        asked = self.rewritten(batch)
        inputs = self.reader.inputs(asked)
        with self.installed(asked, self.reader.rows(asked, inputs)), capturing(self.anatomy, sites) as states:
            self.reader.forward(inputs)
        return {site: state.float().cpu() for site, state in states.items()}

    @torch.inference_mode()
    def logits(self, batch: Sequence[Conversation]) -> Float[Tensor, "example vocabulary"]:
        """Next-token logits after the prompt, at least float32, on the CPU."""
        if self.anatomy.alone and len(batch) > 1:
            return torch.cat([self.logits([conversation]) for conversation in batch])
        asked, pairs = self.asked(batch)
        inputs = self.reader.inputs(asked)
        with self.installed(asked, self.reader.rows(asked, inputs)):
            found = precise(self.reader.forward(inputs))
        return Contrast(pairs)(inputs["input_ids"], found)[: len(batch)].cpu()

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

    def rewritten(self, batch: Sequence[Conversation]) -> list[Conversation]:
        """The batch in the words that the mends put it."""
        asked = list(batch)
        for edit in self.edits:
            if isinstance(edit, RewritePrompt):
                asked = [edit.put(conversation) for conversation in asked]
        return asked

    def asked(self, batch: Sequence[Conversation]) -> tuple[list[Conversation], list[ContrastLogits]]:
        """What the model is asked: every request, then once more for each contrast of logits."""
        plain = self.rewritten(batch)
        seen = any(conversation.has_image for conversation in plain)
        pairs = [e for e in self.edits if isinstance(e, ContrastLogits) and (seen or e.when == "always")]
        guided = [
            c.rewritten(before=edit.principle) if edit.when == "always" or c.has_image else c
            for edit in pairs
            for c in plain
        ]
        return plain + guided, pairs

    def aimed(self, batch: Sequence[Conversation], rows: Rows, mine: Sequence[int]) -> list[Aimed]:
        """This view's edits of states, aimed at its rows `mine` of a batch; sample-level ones are read here."""
        own = torch.zeros(len(batch), dtype=torch.bool)
        own[list(mine)] = True
        fixed = [edit for edit in self.edits if isinstance(edit, ActivationEdit)]
        shifts = [_spread(shift, mine, len(batch)) for shift in self._row_shifts([batch[k] for k in mine])]
        return [Aimed(edit, rows.meant(edit.when) & own) for edit in (*fixed, *shifts)]

    @contextmanager
    def watching(self, aimed: Sequence[Aimed], rows: Rows) -> Generator[None]:
        """Check on the way out that images were seen, and that ungated edits for image rows fired."""
        before = self.vision.calls + self.workings.seen.reused
        counter = self.anatomy.vision.register_forward_hook(self._count)
        try:
            yield
        finally:
            counter.remove()
        if rows.has_image.any():
            self._check(self.vision.calls + self.workings.seen.reused > before, aimed, rows)

    def adapted(self) -> AbstractContextManager[None]:
        """This view's adapters on the model, for as long as the block lasts."""
        adapters = [edit for edit in self.edits if isinstance(edit, LoadAdapter)]
        check_compiled(self.model, self.anatomy, [adapter.module for adapter in adapters])
        return adapting(self.model, adapters)

    @contextmanager
    def installed(self, batch: Sequence[Conversation], rows: Rows) -> Generator[None]:
        """Every edit of this view for one call, and the checks on the way out."""
        aimed = self.aimed(batch, rows, range(len(batch)))
        with self.adapted(), self.watching(aimed, rows), editing(self.anatomy, aimed, rows):
            yield

    def _row_shifts(self, batch: Sequence[Conversation]) -> list[RowShift]:
        """The extra reads of sample-level edits, on the bare model."""
        shifts: list[RowShift] = []
        for edit in self.edits:
            if isinstance(edit, ContrastShift):
                told = [conversation.without_images() for conversation in batch]
                if edit.unseen == "caption":
                    told = captioned(self.bare, batch)
                shifts += row_shifts(self.reader, self.workings.prefixes, edit, batch, told)
        return shifts

    def _check(self, saw: bool, aimed: Sequence[Aimed], rows: Rows) -> None:
        """Images must have been seen, and ungated edits for image rows must have fired."""
        if not saw:
            raise ModelProblem(
                f"{self.name}: the images of this batch never reached the vision tower ({self.anatomy.vision_path}).",
                "The processor and the model do not fit together; check the processor's files.",
            )
        silent = [
            one.edit for one in aimed
            if one.edit.when == "with_image" and one.edit.tokens != "reply" and not _gated(one.edit)
            and (one.rows & rows.has_image).any() and not rows.fired.get(one.edit.site, one.rows.new_zeros(1)).any()
        ]  # fmt: skip
        if silent:
            raise ModelProblem(
                f"{self.name}: the mend never fired at {silent[0].site}.",
                "A parent module bypasses the hooks of its blocks; this family cannot be mended here.",
            )

    def _count(self, *_: object) -> None:
        self.vision.calls += 1


def mixes(view: VLM) -> bool:
    """Whether its rows may share a batch with those of other views of the model: its mends edit words and states."""
    kinds = (ActivationEdit, ContrastShift, RewritePrompt)
    return all(isinstance(edit, kinds) for edit in view.edits) and loop_of(view).way != "generate"


@torch.inference_mode()
def answer_together(views: Sequence[VLM], batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
    """Replies to requests under different mends of one model, in one batch; every view `mixes`."""
    return decode_rows(views, batch, sampling)


def _gated(edit: ActivationEdit | RowShift) -> bool:
    return isinstance(edit, AddVector) and edit.gate is not None


def _spread(shift: RowShift, mine: Sequence[int], size: int) -> RowShift:
    """A shift of some rows as one of the whole batch, zero for the others."""
    vectors = shift.vectors.new_zeros((size, shift.vectors.shape[1]))
    vectors[list(mine)] = shift.vectors
    return replace(shift, vectors=vectors)
