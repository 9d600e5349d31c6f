"""A loaded vision-language model: generate, read states, view it with a mend."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import ActivationEdit, ContrastShift, Edit, WeightEdit, idle
from vlmend.core.examples import Example
from vlmend.core.images import Image, blank_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.state_edits import Tokens
from vlmend.core.steering import Push
from vlmend.core.targets import Kind, Pixels
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.anatomy.compiled import check_compiled
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.decoding.engine import decode_rows, decode_whole
from vlmend.models.decoding.forced import reply_entropies, reply_logprobs
from vlmend.models.decoding.gradients import fitting_with_gradients, pixels_of, reply_loss
from vlmend.models.decoding.image_features import Seen
from vlmend.models.decoding.outcomes import answered, problem_of
from vlmend.models.decoding.prefill import Workings
from vlmend.models.decoding.recall import Recall
from vlmend.models.decoding.sharing import mixes_rows, only_whole, place_of, sight_of
from vlmend.models.decoding.shifts import row_shifts, spread_over
from vlmend.models.decoding.steering import steered
from vlmend.models.decoding.trial import loop_of
from vlmend.models.editing.contrast import Contrast, contrasted
from vlmend.models.editing.lens import lens_score
from vlmend.models.editing.nearest import reworded
from vlmend.models.editing.places import check_places
from vlmend.models.editing.replies import answer, captioned
from vlmend.models.editing.states import Aimed, RowShift, editing, gate_of
from vlmend.models.editing.weights import check_weights, installed_weights
from vlmend.models.identity import identity_of, of_base
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import Rows, capturing, precise

__all__ = ["VLM", "VisionCounter", "answer_together"]


@dataclass
class VisionCounter:
    """Counts the calls of the vision tower, the proof that images reach it."""

    calls: int = 0


@final
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

    kind: ClassVar[Kind] = "chat"

    @property
    def id(self) -> str:
        """`name`, or `name+method@digest` for each mend: no cache can confuse two views."""
        return self._id

    @cached_property
    def _id(self) -> str:
        return "+".join([self.name, *(f"{m.card.method}@{m.digest[:8]}" for m in self.mends)])

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of each part of the base model that can change a reply (`models.identity`)."""
        if self.workings.identity is None:
            self.workings.identity = identity_of(self.model_digest, self.model, self.processor)
        return self.workings.identity

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
            BadParameter: It holds edits that are not for models that answer, or weights or places that this one does
                not have.
        """
        mend.check_base(self.name, self.model_digest, of_base(self.identity))
        foreign = sorted({type(edit).__name__ for edit in mend.edits if not isinstance(edit, Edit)})
        if foreign:
            raise BadParameter(
                f"A model that answers has no place for {', '.join(foreign)}.",
                "They are for dual encoders; vlmend list methods says what works on which.",
            )
        weights = [edit for edit in mend.edits if isinstance(edit, WeightEdit)]
        if any(edit.when != "always" for edit in weights):
            raise BadParameter(
                "Weights act on every row of a batch, and this mend's are for requests with an image only.",
                "Make them with when='always'.",
            )
        check_weights(self.model, weights)
        vocabulary = int(self.model.config.get_text_config(decoder=True).vocab_size)
        check_places(self.anatomy, vocabulary, [edit for edit in mend.edits if isinstance(edit, Edit)])
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
        return self._edits

    @cached_property
    def _edits(self) -> tuple[Edit, ...]:
        return tuple(e for mend in self.mends for e in mend.edits if isinstance(e, Edit) and not idle(e))

    @property
    def sight(self) -> str:
        """Key of what this view makes of an image; "" where no edit reaches tower or projector."""
        return self._sight

    @cached_property
    def _sight(self) -> str:
        head = self.model.get_output_embeddings()
        paths = [path for path, module in self.model.named_modules() if module is head]
        return sight_of(self.edits, self.anatomy, paths) if self.edits else ""

    @cached_property
    def mixes(self) -> bool:
        """Whether its rows may share a batch with those of other views of the model."""
        return mixes_rows(self.edits) and loop_of(self).way != "generate"

    @torch.inference_mode()
    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer a batch, text-only and image requests together, with everything the mends do.

        A request that alone makes processor or model raise has an error of its own, and the others are answered.

        Raises:
            BatchProblem: Some requests have no reply; it carries those of the others.
            SampleError: The only request has none.
            ModelProblem: An image never reached the vision tower, or a mend never fired.
        """
        views = [self] * len(batch)
        return answered(views, batch, sampling, lambda _, asked, how: answer(self, self.edits, asked, how))

    @torch.inference_mode()
    def decode(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """Decoding under the edits of prompt, states, weights and logits, in batches that fit."""
        if only_whole(self.edits) or loop_of(self).way == "generate":
            return decode_whole(self, batch, sampling)
        return decode_rows([self] * len(batch), batch, sampling)

    @torch.inference_mode()
    def check_request(self, example: Example) -> None:
        """Find out whether a row can be put to the model at all: processor, context, one forward call.

        A row without an image is tried beside a blank one too, as fits ask it.

        Raises:
            SampleError: It alone cannot; the message says why.
        """
        asked = [example.conversation]
        if not asked[0].has_image:
            asked.append(replace(example, image=blank_image(self.image_side)).conversation)
        for conversation in asked:
            problem = problem_of(self, conversation)
            if problem is not None:
                raise problem

    @torch.inference_mode()
    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States at the last prompt position, after this view's mends, float32 on the CPU."""
        kept = self.workings.states
        if kept is None or self.edits:
            return self._states(batch, sites)
        keys = [conversation.digest for conversation in batch]
        new = [k for k, key in enumerate(keys) if not set(sites) <= set(kept.get(key, {}))]
        if new:
            found = self._states([batch[k] for k in new], sites)
            for place, k in enumerate(new):
                kept.setdefault(keys[k], {}).update({site: found[site][place] for site in sites})
        return {site: torch.stack([kept[key][site] for key in keys]) for site in sites}

    def _states(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        if self.anatomy.alone and len(batch) > 1:
            each = [self._states([conversation], sites) for conversation in batch]
            return {site: torch.cat([found[site] for found in each]) for site in sites}
        asked = self.rewritten(batch)
        inputs = self.reader.inputs(asked)
        with self.installed(asked, self.reader.rows(asked, inputs)), capturing(self.anatomy, sites) as states:
            self.reader.forward(inputs)
        return {site: state.float().cpu() for site, state in states.items()}

    @torch.inference_mode()
    def steer(self, batch: Sequence[Conversation], sites: Sequence[Site], push: Push, tokens: Tokens) -> None:
        """Read a batch while `push` adds to its states, under this view's mends."""
        steered(self, batch, sites, push, tokens)

    @torch.inference_mode()
    def logits(self, batch: Sequence[Conversation]) -> Float[Tensor, "example vocabulary"]:
        """Next-token logits after the prompt, at least float32, on the CPU."""
        if self.anatomy.alone and len(batch) > 1:
            return torch.cat([self.logits([conversation]) for conversation in batch])
        asked, contrast = self.asked(batch)
        inputs = self.reader.inputs(asked)
        with self.installed(asked, self.reader.rows(asked, inputs)):
            found = precise(self.reader.forward(inputs))
        return contrast.mixed(found).cpu()

    @torch.inference_mode()
    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Float[Tensor, " _"]]:
        """Log-probability of each token of each reply, the end token left out, float32 on the CPU.

        Under this view's edits of prompt, states, weights and logits; edits that decline or choose replies are left
        out.
        """
        return reply_logprobs(self, batch, replies)

    @torch.inference_mode()
    def entropies(
        self, batch: Sequence[Conversation], replies: Sequence[str], alpha: float
    ) -> list[Float[Tensor, " _"]]:
        """Rényi entropy, in nats, of the distribution behind each token of each reply; the edits as in `logprobs`."""
        return reply_entropies(self, batch, replies, alpha)

    def pixels(self, images: Sequence[Image]) -> Pixels:
        """Images in [0, 1], after the processor's resizing and before its normalisation (`decoding.gradients`).

        Raises:
            ModelProblem: The processor does more than shift and scale colours, or cuts images into unlike parts.
        """
        return pixels_of(self, images)

    def reply_loss(
        self, batch: Sequence[Conversation], replies: Sequence[str], pixels: Pixels
    ) -> Float[Tensor, " example"]:
        """Mean negative log-likelihood of each reply's tokens, differentiable in `pixels.values`.

        Raises:
            BadParameter: A reply without tokens, or a request without exactly one image.
            ModelProblem: A mend that gradients cannot pass, or pixels of another shape.
        """
        return reply_loss(self, batch, replies, pixels)

    def fitting_with_gradients(self, batch: Sequence[Conversation]) -> int:
        """How many of these requests, from the first on, fit at once where gradients are wanted; at least one."""
        return fitting_with_gradients(self, batch)

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
        """The batch in the words and with the images that the mends give it."""
        return reworded(self, batch)

    def asked(self, batch: Sequence[Conversation]) -> tuple[list[Conversation], Contrast]:
        """What the model is asked: every request, then its other views for each contrast of logits."""
        return contrasted(self.edits, self.rewritten(batch))

    def aimed(self, batch: Sequence[Conversation], rows: Rows, mine: Sequence[int]) -> list[Aimed]:
        """This view's edits of states, aimed at its rows `mine` of a batch; sample-level ones are read here."""
        own = torch.zeros(len(batch), dtype=torch.bool)
        own[list(mine)] = True
        fixed = [edit for edit in self.edits if isinstance(edit, ActivationEdit)]
        shifts = [spread_over(shift, mine, len(batch)) for shift in self._row_shifts([batch[k] for k in mine])]
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
        """This view's edits of weights on the model, for as long as the block lasts."""
        weights = [edit for edit in self.edits if isinstance(edit, WeightEdit)]
        check_compiled(self.model, self.anatomy, [place_of(edit) for edit in weights])
        return installed_weights(self.model, weights)

    @contextmanager
    def installed(self, batch: Sequence[Conversation], rows: Rows) -> Generator[None]:
        """Every edit of this view for one call, and the checks on the way out."""
        aimed = self.aimed(batch, rows, range(len(batch)))
        with self.adapted(), self.watching(aimed, rows), editing(self.anatomy, aimed, rows):
            yield

    @torch.no_grad()
    def _row_shifts(self, batch: Sequence[Conversation]) -> list[RowShift]:
        """The extra reads of sample-level edits, on the bare model."""
        shifts: list[RowShift] = []
        for edit in self.edits:
            if isinstance(edit, ContrastShift):
                captions = edit.unseen == "caption"
                told = captioned(self.bare, batch) if captions else [each.without_images() for each in batch]
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
            if one.edit.when == "with_image" and one.edit.tokens != "reply" and gate_of(one.edit) is None
            and (one.rows & rows.has_image).any() and not rows.fired.get(one.edit.site, one.rows.new_zeros(1)).any()
        ]  # fmt: skip
        if silent:
            raise ModelProblem(
                f"{self.name}: the mend never fired at {silent[0].site}.",
                "A parent module bypasses the hooks of its blocks; this family cannot be mended here.",
            )

    def _count(self, *_: object) -> None:
        self.vision.calls += 1


@torch.inference_mode()
def answer_together(views: Sequence[VLM], batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
    """Replies to requests under different mends of one model, in one batch; every view `mixes`.

    Raises:
        BatchProblem: Some requests have no reply; it carries those of the others.
    """
    return answered(views, batch, sampling, decode_rows)
