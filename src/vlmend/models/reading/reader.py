"""From conversations to model inputs, and reads of the bare model: the ground under every view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import PIL.Image
import torch
from jaxtyping import Float
from jinja2 import TemplateError
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.images import Image
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem, SampleError
from vlmend.models.anatomy.compiled import check_compiled
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.reading.resizing import check_resized, short_side
from vlmend.models.reading.rowwise import needs_images, rowwise, writes_placeholders
from vlmend.models.reading.states import Rows, capturing, check_finite
from vlmend.models.reading.templates import written
from vlmend.models.reading.words import Words, words_of

__all__ = ["Reader"]


@dataclass(frozen=True, eq=False)
class Reader:
    """A loaded model and its processor, without any mend.

    Attributes:
        model, processor: The transformers objects (`PreTrainedModel`, `ProcessorMixin`).
        anatomy: Where the blocks and the vision tower are.
    """

    model: Any
    processor: Any
    anatomy: Anatomy

    @property
    def context(self) -> int | None:
        """Tokens that the model was made to read at most; None where its config does not say."""
        limit = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return limit if isinstance(limit, int) else None

    @property
    def pad(self) -> int:
        """The token that padding is made of; what it is matters not, since no token looks at it."""
        token = self.processor.tokenizer.pad_token_id
        return token if isinstance(token, int) else 0

    @property
    def words(self) -> Words:
        """What the words of a request can be mistaken for."""
        return words_of(self.processor, self.processor.chat_template, self.anatomy.image_token_id)

    def check_context(self, inputs: Mapping[str, Any]) -> None:
        """
        Raises:
            SampleError: A prompt is longer than what the model was made to read.
        """
        longest, limit = int(inputs["attention_mask"].sum(1).max()), self.context
        if limit is not None and longest > limit:
            raise SampleError(
                f"The request has {longest:,} tokens, the model reads {limit:,}.",
                "Make it shorter, or take a model with a longer context.",
            )

    def rendered(self, batch: Sequence[Conversation]) -> list[str]:
        """Each conversation through the model's chat template, ready for the reply, lead included.

        Raises:
            SampleError: One spells what stands for a picture, or a control token that cannot be read as words.
            ModelProblem: The template has no place for one of the turns, or comes to no end.
        """
        asked = [self.words.as_text(conversation) for conversation in batch]
        try:
            texts = [
                written(self.processor, _messages(conversation), add_generation_prompt=True) + conversation.lead
                for conversation in asked
            ]
        except TemplateError as problem:
            raise ModelProblem(
                f"The chat template of this model refuses the conversation: {problem}",
                "Leave that turn out, or put its words into the user's turn.",
            ) from problem
        for text in texts:
            self.words.check(text)
        return texts

    def written(self, batch: Sequence[Conversation]) -> list[Tensor]:
        """Token ids of each request as the template writes it, images not yet spread out."""
        texts = self.rendered(batch)
        return [torch.tensor(ids) for ids in self.processor.tokenizer(texts, **self.words.options(texts)).input_ids]

    def inputs(self, batch: Sequence[Conversation]) -> dict[str, Any]:
        """Model inputs, padded on the left, floating point in the model's dtype.

        Images go in as one list a conversation, empty lists included: every processor takes that form, and some
        tell by it whose an image is (LLaVA-OneVision cuts a lone image into tiles, but not one of several).

        Raises:
            ModelProblem: The processor refuses the requests; the message holds its reason.
        """
        return {key: self._placed(value) for key, value in self.processed(batch).items()}

    def processed(self, batch: Sequence[Conversation]) -> dict[str, Any]:
        """What the processor makes of the requests, as it comes.

        Raises:
            BadImage: It would blow up a picture.
            ModelProblem: It refuses them; the message holds its reason.
        """
        texts = self.rendered(batch)
        images = [[self._fitting(image) for image in conversation.images] for conversation in batch]
        alone = writes_placeholders(self.processor) or (not all(images) and needs_images(self.processor))
        try:
            if alone:
                made = rowwise(self.processor, texts, images, self.anatomy.image_token_id, self.words)
            else:
                made = self.processor(
                    text=texts, images=images if any(images) else None, return_tensors="pt",
                    padding=True, padding_side="left", **self.words.options(texts),
                )  # fmt: skip
        except ValueError as problem:
            raise ModelProblem(
                f"{type(self.processor).__name__} refuses these requests: {problem}",
                "Change what it names, for example the number or the shape of the images.",
            ) from problem
        return {key: value for key, value in made.items() if key != "labels"}

    def rows(self, batch: Sequence[Conversation], inputs: Mapping[str, Tensor]) -> Rows:
        """What edits must know of these inputs."""
        ids = inputs["input_ids"].cpu()
        return Rows(
            real=inputs["attention_mask"].cpu().bool(),
            image=ids == self.anatomy.image_token_id,
            has_image=torch.tensor([conversation.has_image for conversation in batch]),
        )

    def states(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> dict[Site, Float[Tensor, "example width"]]:
        """States of the bare model at the last prompt position, in float32 or better, on its device."""
        if self.anatomy.alone and len(batch) > 1:
            parts = [self.states([conversation], sites) for conversation in batch]
            return {site: torch.cat([part[site] for part in parts]) for site in sites}
        check_compiled(self.model, self.anatomy)
        with capturing(self.anatomy, sites) as states:
            self.forward(self.inputs(batch))
        return states

    def forward(self, inputs: Mapping[str, Any]) -> Float[Tensor, "example vocabulary"]:
        """One forward call for the last position's next-token logits; nothing is cached.

        Raises:
            ModelProblem: They are not finite.
        """
        logits = self.asked(inputs)(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
        check_finite(logits)
        return logits

    def asked(self, inputs: Mapping[str, Any]) -> Any:
        """The model that reads these inputs: the whole one, or its language model alone where that must be."""
        if self.anatomy.text_path and "pixel_values" not in inputs:
            return self.model.get_submodule(self.anatomy.text_path)
        return self.model

    def forget(self) -> None:
        """Drop what M-RoPE families keep of the last request on the model.

        `generate` and `forward` do not look at it; a decoding loop of one's own does, from its second step on.
        """
        for module in self.anatomy.shifted:
            module.rope_deltas = cast("Any", None)

    def _fitting(self, image: Image) -> PIL.Image.Image:
        """The picture, where the processor does not make too many pixels of it."""
        picture = image.decode()
        check_resized(picture.size, short_side(self.processor.image_processor), image.name)
        return picture

    def _placed(self, value: Any) -> Any:
        """On the model's device, in its dtype; lists of tensors of unlike shapes stay lists."""
        if isinstance(value, list):
            return [self._placed(part) for part in cast("list[Any]", value)]
        if not isinstance(value, Tensor):
            return value
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Turns in the form that chat templates read; pixels travel beside them."""
    return [
        {
            "role": turn.role,
            "content": [{"type": "image"}] * len(turn.images) + [{"type": "text", "text": turn.text}],
        }
        for turn in conversation.turns
    ]
