"""What the parts may ask of each other: targets and methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import TypeVar

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import Edit
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.sites import Site

__all__ = ["AbstractMethod", "Access", "DualTarget", "GenerativeTarget", "PairKind", "Target", "TargetKind"]

Access = Literal["replies", "embeddings", "hidden", "gradients", "weights"]
"""How deep a method must look into a model."""

PairKind = Literal["softmax", "sigmoid"]
"""How logits of image-text pairs become probabilities: over the texts (CLIP), or pair by pair (SigLIP)."""

TargetKind = Literal["generative", "dual"]
"""What suites and methods work on: models that answer, or models that embed images and texts."""


@runtime_checkable
class Target(Protocol):
    """A model under zero or more mends."""

    @property
    def id(self) -> str:
        """Name of model and mends: two targets that can act differently have different ids."""
        ...

    @property
    def name(self) -> str:
        """Name of the base model."""
        ...

    @property
    def model_digest(self) -> str:
        """Fingerprint of the base model."""
        ...


@runtime_checkable
class GenerativeTarget(Target, Protocol):
    """A model that answers, and shows its states."""

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        ...

    @property
    def image_side(self) -> int:
        """Side in pixels of a square image that the model reads without loss."""
        ...

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour that the model's image processor turns into zeros, 0 to 255."""
        ...

    def with_mend(self, mend: Mend) -> GenerativeTarget:
        """A view of the same weights with one more mend; this target is unchanged."""
        ...

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        """One reply for each conversation, in order.

        Raises:
            BatchProblem: Some have none; it carries the replies of the others.
        """
        ...

    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States at the last prompt position, after this target's mends, in float32 on the CPU."""
        ...


@runtime_checkable
class DualTarget(Target, Protocol):
    """A model that puts images and texts into one space, and shows its states."""

    @property
    def kind(self) -> PairKind:
        """How logits become probabilities."""
        ...

    def with_mend(self, mend: Mend) -> DualTarget:
        """A view of the same weights with one more mend; this target is unchanged."""
        ...

    def embed_images(self, images: Sequence[Image]) -> Float[Tensor, "image width"]:
        """Embeddings of length 1, float32 on the CPU."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """Embeddings of length 1, float32 on the CPU."""
        ...

    def logits(self, images: Sequence[Image], texts: Sequence[str]) -> Float[Tensor, "image text"]:
        """scale * cosine + bias, with the model's own scale and bias, after this target's mends."""
        ...

    def accepts(self, images: Sequence[Image]) -> Bool[Tensor, " image"]:
        """Whether the mends take each image for one of what they know; True throughout where none decides."""
        ...

    def hidden(
        self, batch: Sequence[Image] | Sequence[str], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        """States of images at vision sites or of texts at text sites, where the embedding is read."""
        ...


AnyTarget = TypeVar("AnyTarget", bound=Target, default=GenerativeTarget)


@dataclass(frozen=True)
class AbstractMethod(ABC, Generic[AnyTarget]):
    """A way to make a mend. The fields of the subclass are its parameters.

    A method for dual encoders is an `AbstractMethod[DualTarget]` with `works_on = "dual"`.

    Class attributes: `name` (the file's name), `source` (paper), `needs`, `works_on`, and what a user
    pays: `passes` (extra forward work a request), `data` (what the fit reads).
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[Access]
    passes: ClassVar[str]
    data: ClassVar[str]
    works_on: ClassVar[TargetKind] = "generative"

    @abstractmethod
    def fit(self, target: AnyTarget, data: Dataset, *, seed: int) -> Mend:
        """Fit a mend for this target; the target is unchanged afterwards."""

    def builtin(self) -> Dataset | None:
        """The method's own data, where it is not fitted on requests; None means the built-in anchors."""
        return None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return asdict(self)

    def made(
        self, target: AnyTarget, data: Dataset, seed: int, edits: Sequence[Edit], dose: Mapping[str, float]
    ) -> Mend:
        """The edits as a mend with its card."""
        card = MendCard(
            method=self.name, parameters=self.parameters, model=target.name, model_digest=target.model_digest,
            data=data.name, data_digest=data.digest, seed=seed, versions=versions(), dose=dict(dose),
            source=self.source,
        )  # fmt: skip
        return Mend(tuple(edits), card)
