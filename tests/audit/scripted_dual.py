"""A dual encoder whose embeddings are given, and a gallery with a planted bias."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Kind, PairKind
from vlmend.pictures.galleries import FRAMES

SCALE = 20.0


@dataclass(frozen=True, eq=False)
class ScriptedDual:
    """Looks embeddings up: of images by their bytes, of texts by themselves."""

    images: Mapping[str, Tensor]
    texts: Mapping[str, Tensor]
    name: str = "scripted-dual"
    kind: ClassVar[Kind] = "dual"
    pair_kind: PairKind = "softmax"
    mends: tuple[Mend, ...] = ()

    @property
    def id(self) -> str:
        return self.name

    @property
    def model_digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def identity(self) -> Mapping[str, str]:
        return {"weights": self.model_digest}

    @property
    def bare(self) -> ScriptedDual:
        return self

    def retrieve(self, texts: Sequence[str], images: Sequence[Image]) -> list[tuple[int, ...]]:
        scores = self.embed_texts(texts) @ self.embed_images(images).T
        return [tuple(row) for row in scores.argsort(dim=1, descending=True, stable=True).tolist()]

    def with_mend(self, mend: Mend) -> ScriptedDual:
        raise NotImplementedError

    def embed_images(self, images: Sequence[Image]) -> Tensor:
        return normalize(torch.stack([self.images[image.digest] for image in images]), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return normalize(torch.stack([self.texts[text] for text in texts]), dim=1)

    def logits(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        return SCALE * self.embed_images(images) @ self.embed_texts(texts).T

    def accepts(self, images: Sequence[Image]) -> Tensor:
        return torch.ones(len(images), dtype=torch.bool)

    def hidden(self, batch: object, sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        raise NotImplementedError


def titled_world(bias: float, seed: int, concepts: int = 20) -> tuple[ScriptedDual, Dataset]:
    """Ten men and ten women of each concept; title A of a concept leans to men by `bias`, title B to women.

    The first axes are concepts, the next one gender, the rest are noise of unit size.
    """
    generator = torch.Generator().manual_seed(seed)
    images: dict[str, Tensor] = {}
    texts: dict[str, Tensor] = {}
    rows: list[Example] = []
    for concept in range(concepts):
        caption = f"concept {concept}"
        for k in range(20):
            image, gender = noise_image(4, 1000 * concept + k), ("man", "woman")[k % 2]
            vector = torch.zeros(concepts + 17)
            vector[concept], vector[concepts] = 10, 1 if gender == "man" else -1
            vector[concepts + 1 :] = torch.randn(16, generator=generator)
            images[image.digest] = vector
            rows.append(Example(f"{concept}-{k}", "", "benign", gender, image, caption))
        for text, lean in ((caption, 0.0), (f"A{concept}", bias), (f"B{concept}", -bias)):
            vector = torch.zeros(concepts + 17)
            vector[concept], vector[concepts] = 10, lean
            vector[concepts + 1 :] = torch.randn(16, generator=generator)
            texts[text] = vector
        rows += [Example(f"{t}{concept}", f"{t}{concept}", "benign", g, caption=caption) for t, g in TITLES]
    for frame in FRAMES:
        for gender, lean in (("man", 10.0), ("woman", -10.0)):
            texts[frame.format(gender)] = torch.eye(concepts + 17)[concepts] * lean
    return ScriptedDual(images, texts), Dataset("titled", tuple(rows))


TITLES = (("A", "man"), ("B", "woman"))


def named_world(apart: float, seed: int, names: int = 40) -> tuple[ScriptedDual, Dataset]:
    """A picture of each of some named things near its name, and as many that are `apart` times less near to any."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(names)
    texts = {frame.format(f"thing {k}"): axes[k] for k in range(names) for frame in FRAMES}
    images: dict[str, Tensor] = {}
    rows: list[Example] = []
    for k in range(2 * names):
        image, known = noise_image(4, k), k < names
        strength = 6.0 if known else 6.0 / apart
        images[image.digest] = strength * axes[k % names] + torch.randn(names, generator=generator)
        rows.append(Example(str(k), "", "benign", "", image, answers=(f"thing {k}",) if known else ()))
    return ScriptedDual(images, texts), Dataset("named", tuple(rows))
