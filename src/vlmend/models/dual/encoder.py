"""A loaded dual encoder (CLIP kind): embed, score, rank, read states, image gradients, view it with a mend.

How families differ is in `towers`, loading in `models/loading/dual`, what edits do in `models/editing/embeddings`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from vlmend.core.dual_edits import DualEdit
from vlmend.core.examples import Example
from vlmend.core.images import Image, blank_image
from vlmend.core.mend import Mend
from vlmend.core.metrics.calibration import as_probabilities
from vlmend.core.metrics.detection import mcm
from vlmend.core.picture_files import opened
from vlmend.core.provenance import fingerprint
from vlmend.core.sites import Site
from vlmend.core.targets import Kind, PairKind, Pixels
from vlmend.errors import BadImage, BadParameter, ModelProblem
from vlmend.models.dual.towers import Inputs, Towers, black_and_span, find_towers, pooled_states
from vlmend.models.editing.embeddings import (
    DualStages,
    check_widths,
    dual_edits,
    dual_stages,
    edited_embeddings,
    edited_logits,
    reranked,
)
from vlmend.models.editing.tokens import folded, installed_tokens, places_in_texts, with_places, without_words
from vlmend.models.editing.weights import check_weights, installed_weights
from vlmend.models.identity import of_base
from vlmend.models.reading.resizing import check_resized

__all__ = ["BATCH", "DualEncoder", "Ranked", "checked", "dual_of"]

BATCH = 32
Objective = Callable[[Float[Tensor, "image width"]], Tensor]
"""A scalar, from unit-length embeddings of images."""


@dataclass(frozen=True)
class Ranked:
    """Texts in order for one image, best first.

    Attributes:
        order: Places of the texts in what was asked.
        scores: Their logits, falling.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]


@final
@dataclass(frozen=True, eq=False)
class DualEncoder:
    """A view of one loaded dual encoder under zero or more mends.

    Every result is float32 on the CPU, and does not depend on the batches beyond rounding. Views share weights,
    which no mend changes.

    Attributes:
        name: Name or folder it was loaded from.
        towers: What it is made of.
        model_digest: Fingerprint of the weights.
        width: Size of an embedding.
        mends: What this view applies, in order.
    """

    name: str
    towers: Towers
    model_digest: str
    width: int
    mends: tuple[Mend, ...] = ()
    kind: ClassVar[Kind] = "dual"

    @property
    def id(self) -> str:
        """`name`, or `name+method@digest` for each mend."""
        return "+".join([self.name, *(f"{m.card.method}@{m.digest[:8]}" for m in self.mends)])

    def with_mend(self, mend: Mend) -> DualEncoder:
        """A view of the same weights with one more mend.

        Raises:
            MendMismatch: The mend was fitted on another model.
            BadParameter: It holds edits that are not for dual encoders, or weights that this one does not have.
        """
        mend.check_base(self.name, self.model_digest, of_base(self.identity))
        edits = dual_edits(mend.edits)
        check_weights(self.towers.model, dual_stages(edits).weights)
        check_widths(self.width, edits)
        return replace(self, mends=(*self.mends, mend))

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of each part that can change an embedding: `weights`, `decoding`, `processor`, `tokenizer`."""
        return {"weights": self.model_digest, "decoding": self.towers.decoding, **self.towers.input_digests}

    @property
    def bare(self) -> DualEncoder:
        """The same model without its mends."""
        return replace(self, mends=())

    @cached_property
    def edits(self) -> tuple[DualEdit, ...]:
        """Every edit that does something, in the order of the mends."""
        return dual_edits([edit for mend in self.mends for edit in mend.edits])

    @cached_property
    def stages(self) -> DualStages:
        """The same by where they act."""
        return dual_stages(self.edits)

    @property
    def pair_kind(self) -> PairKind:
        """`softmax`: logits compete over the texts (CLIP, ALIGN). `sigmoid`: each pair stands alone (SigLIP)."""
        return self.towers.kind

    def check_request(self, example: Example) -> None:
        """Raise BadImage where a picture of the row is none, or of a shape that the processor would blow up."""
        for image in example.conversation.images:
            with opened(image.content, image.name) as picture:
                size = picture.size
            check_resized(size, self.towers.short_side, image.name)

    def layers(self, stack: Literal["vision", "text"]) -> int:
        """Number of blocks of one tower.

        Raises:
            AnatomyProblem: They cannot be told.
        """
        return len(self.towers.blocks(stack))

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image]) -> Float[Tensor, "image width"]:
        """Unit-length embeddings of images after the mends.

        Raises:
            BadImage: Images that cannot be read; all of them are named.
        """
        with self.mended_weights():
            features = [_features(self.towers.image_features(inputs)) for inputs in self._image_batches(images)]
        return edited_embeddings(self.stages, "vision", torch.cat(features))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """Unit-length embeddings of texts after the mends; long texts are cut to the family's length."""
        order, batches = self._text_batches(texts)
        with self.mended_weights():
            features = [folded(_features(self.towers.text_features(inputs)), self.stages.tokens) for inputs in batches]
        return edited_embeddings(self.stages, "text", torch.cat(features)[order])

    @contextmanager
    def mended_weights(self) -> Generator[None]:
        """This view's edits of weights and its learnt tokens in the model, for as long as the block lasts."""
        with (
            installed_weights(self.towers.model, self.stages.weights),
            installed_tokens(self.towers.blocks, self.stages.tokens),
        ):
            yield

    def logits(self, images: Sequence[Image], texts: Sequence[str]) -> Float[Tensor, "image text"]:
        """scale * cosine + bias, with the model's own scale and bias, after the mends."""
        return self.scored(self.embed_images(images), self.embed_texts(texts))

    def scored(
        self, images: Float[Tensor, "image width"], texts: Float[Tensor, "text width"]
    ) -> Float[Tensor, "image text"]:
        """The logits of embeddings, after the mends; differentiable."""
        return edited_logits(self.stages, self.towers.scale * (images @ texts.T) + self.towers.bias)

    def probabilities(self, images: Sequence[Image], texts: Sequence[str]) -> Float[Tensor, "image text"]:
        """0 to 1: softmax over these texts, or the sigmoid of each pair, as the model was trained."""
        return as_probabilities(self.logits(images, texts), self.pair_kind)

    def accepts(self, images: Sequence[Image]) -> Bool[Tensor, " image"]:
        """Whether every `AcceptAbove` of the mends accepts an image; True throughout where there is none."""
        kept = torch.ones(len(images), dtype=torch.bool)
        for edit in self.stages.accepts:
            kept &= mcm(self.embed_images(images) @ self.embed_texts(edit.texts).T) >= edit.threshold
        return kept

    def retrieve(self, texts: Sequence[str], images: Sequence[Image]) -> list[tuple[int, ...]]:
        """For each text the places of all images, best first, after the mends; equal ones in the order given."""
        embedded = self.embed_images(images)
        cosines = self.embed_texts(texts) @ embedded.T
        orders: list[list[int]] = cosines.argsort(dim=1, descending=True, stable=True).tolist()
        for edit in self.stages.reranks:
            groups: list[int] = (embedded @ self.embed_texts(edit.prompts).T).argmax(1).tolist()
            orders = [reranked(edit, text, order, groups) for text, order in zip(texts, orders, strict=True)]
        return [tuple(order) for order in orders]

    def rank(self, images: Sequence[Image], texts: Sequence[str]) -> list[Ranked]:
        """The texts in order for each image; equal logits stay in the order asked."""
        scores, order = self.logits(images, texts).sort(dim=1, descending=True, stable=True)
        return [Ranked(tuple(o), tuple(s)) for o, s in zip(order.tolist(), scores.tolist(), strict=True)]

    @torch.no_grad()
    def hidden(
        self, batch: Sequence[Image] | Sequence[str], sites: Sequence[Site]
    ) -> dict[Site, Float[Tensor, "example width"]]:
        """States of blocks, before any final norm, where the embedding is read.

        That is the class token of CLIP's images, the end-of-text token of its texts, SigLIP's last text position, the
        first token of BERT-like text towers. Where the embedding reads many positions (SigLIP's attention pooling,
        ALIGN's convolutions) it is the mean over those, padding left out.

        Args:
            batch: Images for `vision` sites, texts for `text` sites.
            sites: All of one stack. Widths can differ between blocks (ALIGN).

        Raises:
            BadParameter: Sites of another stack, or beyond the last block.
            AnatomyProblem: The blocks cannot be told.
        """
        images = [item for item in batch if isinstance(item, Image)]
        texts = [item for item in batch if isinstance(item, str)]
        stack = "vision" if images else "text"
        if (images and texts) or {site.stack for site in sites} != {stack}:
            raise BadParameter(
                f"A dual encoder has states of images at vision sites and of texts at text sites, not of "
                f"{len(images)} images and {len(texts)} texts at {', '.join(map(str, sites)) or 'no site'}.",
                "Ask for one kind at a time, for example hidden(images, [Site('vision', 0)]).",
            )
        blocks = self.towers.blocks(stack)
        order, inputs = (slice(None), self._image_batches(images)) if images else self._text_batches(texts)
        features = self.towers.image_features if images else self.towers.text_features
        with self.mended_weights():
            parts = [pooled_states(blocks, features, each, sites) for each in inputs]
        sets = self.stages.tokens if texts else ()
        return {s: torch.cat([folded(p[s].float().cpu(), sets, unit=False) for p in parts])[order] for s in sites}

    def pixels(self, images: Sequence[Image]) -> Pixels:
        """Images in [0, 1], after the processor's resizing and before its normalisation.

        What the processor does after resizing is measured on a black, a white and a grey image of the same size, so
        that any rescaling and normalisation is met, and must be linear.

        Raises:
            BadImage: Images that cannot be read; all of them are named.
            ModelProblem: The processor does more than shift and scale.
        """
        key = self.towers.pixels
        _some(images, "image")
        inputs = self._collated(images, images)
        sizes = [image.decode().size for image in images]
        ends = {size: black_and_span(self.towers, size, self.name) for size in set(sizes)}
        black, span = (torch.cat([ends[size][k] for size in sizes]) for k in (0, 1))
        values = torch.where(span == 0, 0.0, (inputs[key].float() - black) / span.where(span != 0, 1.0))
        return Pixels(values.clamp(0, 1), black, span, {name: v for name, v in inputs.items() if name != key})

    def embed_pixels(self, pixels: Pixels) -> Float[Tensor, "image width"]:
        """Unit-length embeddings after the mends, differentiable in `pixels.values`; one forward call for all."""
        return edited_embeddings(self.stages, "vision", self.image_features(pixels))

    def image_features(self, pixels: Pixels) -> Float[Tensor, "image width"]:
        """What the image tower gives under the edits of weights, of any length; differentiable in `pixels.values`."""
        seen = pixels.black + pixels.values * pixels.span
        inputs = self.towers.placed({self.towers.pixels: seen, **pixels.rest})
        with self.mended_weights():
            return _features(self.towers.image_features(inputs))

    def text_features(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """What the text tower gives for a batch, of any length and in the order of the texts; differentiable."""
        with self.mended_weights():
            return folded(_features(self.towers.text_features(self._tokens(texts))), self.stages.tokens)

    def on(self, model: Any) -> DualEncoder:
        """The same encoder without mends over another model of its class and shape, such as a twin."""
        return replace(self, towers=self.towers.on(model), mends=())

    def image_gradient(self, images: Sequence[Image] | Pixels, objective: Objective) -> Float[Tensor, "*pixels"]:
        """Gradient of a scalar of the embeddings in the pixels, at their values in [0, 1] (see `Pixels`).

        Args:
            images: Images, or pixels on the way (of an attack, say); all go through one forward call.
            objective: A scalar, from the unit-length embeddings "image width".

        Raises:
            BadParameter: The objective is no scalar, or does not depend on the embeddings.
        """
        pixels = images if isinstance(images, Pixels) else self.pixels(images)
        values = pixels.values.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(self.embed_pixels(replace(pixels, values=values)))
        if value.numel() != 1 or not value.requires_grad:
            raise BadParameter(
                f"The objective must be one number made from the embeddings, not {tuple(value.shape)} numbers"
                f"{'' if value.requires_grad else ' without a gradient'}.",
                "Return a sum or a mean, and compute it with torch.",
            )
        return torch.autograd.grad(value.sum(), values)[0].float().cpu()

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        places, kept = places_in_texts(self.stages.tokens), without_words(texts, self.stages.tokens)
        return self.towers.placed(with_places(self.towers.tokens(kept, places), self.stages.tokens))

    def _image_batches(self, images: Sequence[Image]) -> Generator[dict[str, Tensor]]:
        """Decoded batch by batch, so that a million images need the room of one batch."""
        _some(images, "image")
        for start in range(0, len(images), BATCH):
            yield self.towers.placed(self._collated(images[start : start + BATCH], images))

    def _text_batches(self, texts: Sequence[str]) -> tuple[list[int], list[dict[str, Tensor]]]:
        """For each text its place in the batches, and batches of like length."""
        _some(texts, "text")
        by_length = sorted(range(len(texts)), key=lambda k: len(texts[k]))
        batches = [
            self._tokens([texts[k] for k in by_length[start : start + BATCH]]) for start in range(0, len(texts), BATCH)
        ]
        return sorted(range(len(texts)), key=by_length.__getitem__), batches

    def _collated(self, images: Sequence[Image], asked: Sequence[Image]) -> dict[str, Tensor]:
        """Inputs of a few images; where one is bad, all bad ones among those asked are named."""
        try:
            rows = [self._row(image) for image in images]
        except BadImage as first:
            bad = [problem for problem in map(self._problem, asked) if problem is not None]
            if len(bad) == 1:
                raise
            messages = " ".join(problem.message for problem in bad)
            raise BadImage(f"{len(bad)} images cannot be used. {messages}", first.hint) from first
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def _problem(self, image: Image) -> BadImage | None:
        try:
            self._row(image)
        except BadImage as problem:
            return problem
        return None

    def _row(self, image: Image) -> Inputs:
        picture = image.decode()
        check_resized(picture.size, self.towers.short_side, image.name)
        try:
            return self.towers.picture(picture)
        except ValueError as problem:
            raise BadImage(
                f"{image.name}: the model's image processor refuses it ({problem}).",
                "Its shape may be too extreme; crop or resize it.",
            ) from problem


def dual_of(model: PreTrainedModel, processor: Any, name: str) -> DualEncoder:
    """A dual encoder of transformers, from a loaded model and its processor; the model is frozen.

    Raises:
        ModelProblem: It is no dual encoder; a first image or text already fails.
    """
    return checked(find_towers(model, processor), name)


def checked(towers: Towers, name: str) -> DualEncoder:
    """A dual encoder that has embedded one image and one text.

    Raises:
        ModelProblem: One of them fails, or their embeddings cannot be compared.
    """
    encoder = DualEncoder(name, towers, fingerprint(towers.model), 0)
    try:
        image, text = encoder.embed_images([blank_image(32)]), encoder.embed_texts(["a"])
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as problem:
        raise ModelProblem(
            f"{name} ({type(towers.model).__name__}) cannot embed a first image and text: {problem!r}.",
            "Check that its processor is the one it was published with; otherwise it is no dual encoder for vlmend.",
        ) from problem
    if image.shape != text.shape:
        raise ModelProblem(
            f"The embeddings of {name} cannot be compared: {image.shape[1]} numbers an image, {text.shape[1]} a text.",
            "Use a dual encoder that was trained to match images and texts.",
        )
    return replace(encoder, width=image.shape[1])


def _some(items: Sequence[object], what: str) -> None:
    if not items:
        raise BadParameter(f"There is no {what} to embed.", f"Pass at least one {what}.")


def _features(features: Tensor) -> Float[Tensor, "row width"]:
    """What a tower gives for each row, in float32 on the CPU."""
    if features.ndim != 2:
        raise ValueError(f"an embedding is one vector, not of shape {tuple(features.shape[1:])}")
    if not torch.isfinite(features).all():
        raise ModelProblem(
            "The model gives embeddings that are not finite.", "Load it in float32; else its weights are broken."
        )
    return features.float().cpu()
