"""What a model lets others do with it: one small protocol for each level of access, for each kind of target.

A target implements what it has and nothing else. `levels_of` says what that is; `check_access` is the one place where
a plug-in that wants more is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.examples import Example, undecoded
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.state_edits import Tokens
from vlmend.core.steering import Push
from vlmend.errors import NeedsAccess, SampleError, UsageError

__all__ = [
    "CALLED", "LEVELS", "PROTOCOLS", "Access", "ChatGradients", "ChatLikelihoods", "ChatStates", "ChatTarget",
    "ChatWeights", "DrawStates", "DrawTarget", "DualGradients", "DualStates", "DualTarget", "DualWeights", "Kind",
    "PairKind", "Pixels", "Target", "check_access", "check_kind", "key_of", "kinds_of", "levels_of", "problem_of",
    "within",
]  # fmt: skip

Kind = Literal["chat", "dual", "draw", "data"]
"""What suites, methods, attacks and steps work on: a model that answers, one that embeds images and texts, one that
draws pictures, a data set."""

Access = Literal["replies", "likelihoods", "embeddings", "pictures", "rows", "states", "gradients", "weights"]
"""How deep a plug-in must look."""

LEVELS: dict[Kind, tuple[Access, ...]] = {
    "chat": ("replies", "likelihoods", "states", "gradients", "weights"),
    "dual": ("embeddings", "states", "gradients", "weights"),
    "draw": ("pictures", "states"),
    "data": ("rows",),
}
"""The levels of each kind, from the surface down."""

PairKind = Literal["softmax", "sigmoid"]
"""How logits of image-text pairs become probabilities: over the texts (CLIP), or pair by pair (SigLIP)."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images as a vision tower reads them, but before normalisation.

    Resized and cropped by the model's own processor, as values from 0 (black) to 1 (white). The tower gets
    `black + values * span`. Layouts differ between families ("image channel height width" mostly; patches with
    padding of span 0 for SigLIP 2 NaFlex).

    Attributes:
        values: 0 to 1.
        black: What the processor makes of a black image.
        span: White less black, element by element.
        rest: Other inputs of the tower.
    """

    values: Float[Tensor, "*pixels"]
    black: Float[Tensor, "*pixels"]
    span: Float[Tensor, "*pixels"]
    rest: Mapping[str, Any] = field(default_factory=dict[str, Any])


@runtime_checkable
class Target(Protocol):
    """A model of some kind under zero or more mends."""

    kind: ClassVar[Kind]

    @property
    def id(self) -> str:
        """Name of model and mends, for people: two targets that can act differently have different ids."""
        ...

    @property
    def name(self) -> str:
        """Name of the base model."""
        ...

    @property
    def model_digest(self) -> str:
        """Fingerprint of the base model's weights."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """Digest of each part of the base model that can change what comes out: `weights`, `processor`, ..."""
        ...

    @property
    def mends(self) -> tuple[Mend, ...]:
        """What this view carries, in order."""
        ...

    @property
    def bare(self) -> Self:
        """The same model without its mends."""
        ...

    def with_mend(self, mend: Mend) -> Self:
        """A view of the same weights with one more mend; this target is unchanged.

        Raises:
            MendMismatch: The mend was fitted on another model.
            NeedsAccess: It acts where this target cannot be reached.
        """
        ...


@runtime_checkable
class ChatTarget(Target, Protocol):
    """Level `replies` of a model that answers."""

    @property
    def image_side(self) -> int:
        """Side in pixels of a square image that the model reads without loss."""
        ...

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """One reply for each conversation, in order.

        Raises:
            BatchProblem: Some have none; it carries the replies of the others.
        """
        ...


@runtime_checkable
class ChatLikelihoods(ChatTarget, Protocol):
    """Level `likelihoods`."""

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Float[Tensor, " token"]]:
        """Log-probability of each token of each reply, the end token left out, float32 on the CPU."""
        ...


@runtime_checkable
class ChatStates(ChatTarget, Protocol):
    """Level `states`."""

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        ...

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour that the model's image processor turns into zeros, 0 to 255."""
        ...

    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States at the last prompt position, after this target's mends, in float32 on the CPU."""
        ...

    def steer(self, batch: Sequence[Conversation], sites: Sequence[Site], push: Push, tokens: Tokens) -> None:
        """Read a whole batch at once while `push` adds to it: at each site, in order, its vector to its `tokens`."""
        ...


@runtime_checkable
class ChatGradients(ChatLikelihoods, Protocol):
    """Level `gradients`: through tower, projector, decoder and the view's mends."""

    def pixels(self, images: Sequence[Image]) -> Pixels:
        """Images in [0, 1] at the model's own resolution, before normalisation."""
        ...

    def reply_loss(
        self, batch: Sequence[Conversation], replies: Sequence[str], pixels: Pixels
    ) -> Float[Tensor, " example"]:
        """Mean negative log-likelihood of each reply's tokens, differentiable in `pixels.values`.

        Args:
            batch: Each with one image, in whose place `pixels` stand.
            replies: One for each.
            pixels: Of the images, in the order of the batch.
        """
        ...


@runtime_checkable
class ChatWeights(ChatStates, Protocol):
    """Level `weights`: what the training kit makes twins of."""

    @property
    def model(self) -> Any:
        """The torch module."""
        ...

    @property
    def anatomy(self) -> Any:
        """Where its decoder blocks and its vision tower are."""
        ...

    @property
    def reader(self) -> Any:
        """What turns conversations into its inputs."""
        ...


@runtime_checkable
class DualTarget(Target, Protocol):
    """Level `embeddings` of a model that puts images and texts into one space."""

    @property
    def pair_kind(self) -> PairKind:
        """How logits become probabilities."""
        ...

    def embed_images(self, images: Sequence[Image]) -> Float[Tensor, "image width"]:
        """Embeddings of length 1 after the mends, float32 on the CPU."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """Embeddings of length 1 after the mends, float32 on the CPU."""
        ...

    def logits(self, images: Sequence[Image], texts: Sequence[str]) -> Float[Tensor, "image text"]:
        """scale * cosine + bias, with the model's own scale and bias, after this target's mends."""
        ...

    def accepts(self, images: Sequence[Image]) -> Bool[Tensor, " image"]:
        """Whether the mends take each image for one of what they know; True throughout where none decides."""
        ...

    def retrieve(self, texts: Sequence[str], images: Sequence[Image]) -> list[tuple[int, ...]]:
        """For each text the places of all images, best first, after the mends (`Rerank` included)."""
        ...


@runtime_checkable
class DualStates(DualTarget, Protocol):
    """Level `states`."""

    def hidden(
        self, batch: Sequence[Image] | Sequence[str], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States of images at vision sites or of texts at text sites, where the embedding is read."""
        ...


@runtime_checkable
class DualGradients(DualTarget, Protocol):
    """Level `gradients`: through the image tower and the view's mends."""

    def pixels(self, images: Sequence[Image]) -> Pixels:
        """Images in [0, 1] at the model's own resolution, before normalisation."""
        ...

    def embed_pixels(self, pixels: Pixels) -> Float[Tensor, "image width"]:
        """Embeddings of length 1 after the mends, differentiable in `pixels.values`."""
        ...

    def scored(
        self, images: Float[Tensor, "image width"], texts: Float[Tensor, "text width"]
    ) -> Float[Tensor, "image text"]:
        """The logits of embeddings, after this target's mends."""
        ...


@runtime_checkable
class DualWeights(DualGradients, Protocol):
    """Level `weights`: what the training kit makes twins of."""

    @property
    def towers(self) -> Any:
        """The towers, with the torch module as `model`."""
        ...

    def image_features(self, pixels: Pixels) -> Float[Tensor, "image width"]:
        """Image embeddings before they are brought to length 1, differentiable in pixels and weights."""
        ...

    def text_features(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """Text embeddings before they are brought to length 1, differentiable in the weights."""
        ...

    def on(self, model: Any) -> Self:
        """The same encoder without mends over another model of its class and shape, such as a twin."""
        ...


@runtime_checkable
class DrawTarget(Target, Protocol):
    """Level `pictures` of a text-to-image pipeline."""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        """A picture for each prompt, from noise of its own seed; None where the pipeline's own filter held it back."""
        ...


@runtime_checkable
class DrawStates(DrawTarget, Protocol):
    """Level `states`: what the denoiser predicts on the way."""

    def draw_with_pull(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image | None, float]]:
        """What `draw` gives, each with the pull of its prompt.

        The pull is the norm of what the prompt changes in the predicted noise, mean over the steps (Wen et al. 2024,
        arXiv 2407.21720); NaN where the pipeline does not predict without the prompt beside it.
        """
        ...


PROTOCOLS: Mapping[tuple[Kind, Access], Any] = {
    ("chat", "replies"): ChatTarget, ("chat", "likelihoods"): ChatLikelihoods, ("chat", "states"): ChatStates,
    ("chat", "gradients"): ChatGradients, ("chat", "weights"): ChatWeights,
    ("dual", "embeddings"): DualTarget, ("dual", "states"): DualStates, ("dual", "gradients"): DualGradients,
    ("dual", "weights"): DualWeights, ("draw", "pictures"): DrawTarget, ("draw", "states"): DrawStates,
}  # fmt: skip
"""What a target must have for each level; a level without a protocol is given by every target of its kind."""

CALLED: Mapping[Kind, str] = {
    "chat": "a model that answers", "dual": "a dual encoder", "draw": "a text-to-image pipeline", "data": "a data set",
}  # fmt: skip
"""The kinds in messages."""


def key_of(target: Target) -> str:
    """SHA-256 over everything of a target that can change what comes out: name, every part of it, every mend."""
    held = [target.name, target.model_digest, sorted(target.identity.items()), [mend.digest for mend in target.mends]]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def levels_of(target: Target) -> tuple[Access, ...]:
    """What a target gives, from the surface down."""
    return tuple(
        level for level in LEVELS[target.kind] if isinstance(target, PROTOCOLS.get((target.kind, level), Target))
    )


def kinds_of(works_on: Kind | tuple[Kind, ...]) -> tuple[Kind, ...]:
    """The kinds that a plug-in declares, one or several."""
    return (works_on,) if isinstance(works_on, str) else works_on


def check_kind(kind: Kind, model: str, name: str, works_on: Kind | tuple[Kind, ...]) -> None:
    """Refuse a plug-in that is for targets of another kind; a target's config tells its kind before it is loaded.

    Raises:
        UsageError: It is.
    """
    kinds = kinds_of(works_on)
    if kind not in kinds:
        raise UsageError(
            f"{name} works on {' or '.join(CALLED[one] for one in kinds)}, and {model} is {CALLED[kind]}.",
            "vlmend list methods (suites, attacks) says what works on which.",
        )


def within(target: Target, needs: Access) -> bool:
    """Whether a target can be reached that deep; a level that its kind does not have means its surface."""
    return needs not in LEVELS[target.kind] or needs in levels_of(target)


def check_access(target: Target, name: str, works_on: Kind | tuple[Kind, ...], needs: Access) -> None:
    """Refuse, before any work, a plug-in that does not fit a target.

    Args:
        target: What it is to work on.
        name: Of the plug-in.
        works_on: The kind or kinds it is for.
        needs: The access it needs; where the target's kind has no such level, its surface.

    Raises:
        UsageError: It is for another kind of target.
        NeedsAccess: The target cannot be reached as deep as that.
    """
    check_kind(target.kind, target.name, name, works_on)
    if not within(target, needs):
        raise NeedsAccess(
            f"{name} needs the {needs} of {target.name}, of which only {', '.join(levels_of(target))} can be had.",
            "Take a model that vlmend loads itself, or a plug-in that needs less: vlmend list methods.",
        )


def problem_of(target: Target, row: Example) -> str:
    """Why a row cannot be put to a target at all; "" where it can."""
    why = undecoded(row)
    check = getattr(target, "check_request", None)
    if why or check is None:
        return why
    try:
        check(row)
    except SampleError as problem:
        return problem.message
    return ""
