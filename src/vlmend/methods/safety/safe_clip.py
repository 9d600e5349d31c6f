"""Safe-CLIP: tune both towers so that unsafe texts and pictures lie where their safe counterparts lie.

Poppi et al., arXiv 2311.16254 (ECCV 2024). For a batch of quadruplets, safe picture v and text s, unsafe picture g and
text u, with 0 for the model as it was, cd(a, b) = 1 - cos(a, b), mean over the batch, and nce(a, b) symmetric InfoNCE:

    keep:     0.1 cd(s, s0) + 0.1 cd(v, v0) + 0.25 nce(s, v0) + 0.25 nce(v, s0)
    redirect: 0.1 cd(u, s0) + 0.2 cd(g, v0) + 0.25 nce(u, v0) + 0.5 nce(g, s0)
    L = (keep + redirect) / 8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import DualWeights, Pixels
from vlmend.errors import BadData, BadParameter
from vlmend.methods.contrastive import same
from vlmend.methods.tuning import AbstractTuning
from vlmend.pictures.marked import marked_scenes
from vlmend.training.losses import contrastive_loss
from vlmend.training.twin import How, Part

__all__ = ["METHOD", "Four", "SafeClip", "keep_loss", "quadruplets", "redirect_loss"]

Embedded = Float[Tensor, "row width"]


@dataclass(frozen=True)
class Four:
    """Embeddings of length 1 of a batch, of the model that learns or of the one that was."""

    safe_texts: Embedded
    safe_images: Embedded
    unsafe_texts: Embedded
    unsafe_images: Embedded


@dataclass(frozen=True)
class SafeClip(AbstractTuning):
    """Redirects what is unsafe to its safe counterpart, and keeps what is safe where it was.

    Attributes:
        keep: Weight of what keeps safe content in place.
        redirect: Weight of what redirects unsafe content; 0 leaves it out.
    """

    name: ClassVar[str] = "safe_clip"
    source: ClassVar[str] = "Poppi et al., arXiv 2311.16254, ECCV 2024"
    data: ClassVar[str] = "safe pictures with captions, and the unsafe counterpart of each; training"
    part: ClassVar[Part] = "all"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rate": 1e-2, "rank": 2}

    steps: int = 60
    rate: float = 1e-3
    batch: int = 32
    train: How = "adapters"
    rank: int = 16
    keep: float = 1.0
    redirect: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.keep, self.redirect) < 0:
            raise BadParameter(
                f"keep={self.keep:g}, redirect={self.redirect:g} cannot be.", "Both are weights of 0 or more."
            )

    def builtin(self) -> Dataset:
        """Drawn scenes, and the same with one thing in a colour that stands for unsafe content: to try it, not to use
        it."""
        return marked_scenes("train", 400)

    def sample_data(self) -> Dataset:
        """Four of these pairs."""
        return marked_scenes("train", 4)

    def learn(self, target: DualWeights, data: Dataset, *, seed: int) -> Mend:
        """Train a twin of the model on the rows labelled harmful and the rows that they are `of`.

        Raises:
            BadData: There is no such pair, or too few.
            MissingExtra: peft is not installed, which adapters need.
        """
        pairs = quadruplets(data)
        twin = self.twin(target, seed)
        learner, scale = target.on(twin.model), float(target.towers.scale)
        unsafe = [one.image for _, one in pairs if one.image is not None]
        before = _before(target, pairs)

        def loss(step: int, pixels: Pixels, places: Sequence[int]) -> Tensor:
            del step
            here = [pairs[place] for place in places]
            now = Four(
                _texts(learner, [one.caption or "" for one, _ in here]),
                learner.embed_pixels(target.pixels([_image(one) for one, _ in here])),
                _texts(learner, [one.caption or "" for _, one in here]),
                learner.embed_pixels(pixels),
            )
            was = Four(*(part[list(places)] for part in vars(before).values()))
            words = [one.caption or "" for one, _ in here]
            total = self.keep * keep_loss(now, was, scale, words)
            return (total + self.redirect * redirect_loss(now, was, scale, words)) / 8

        return self.made(target, data, seed, self.trained(target, twin, unsafe, loss, seed).edits, {})


def keep_loss(now: Four, was: Four, scale: float, words: Sequence[str]) -> Tensor:
    """What keeps safe texts and pictures in place.

    Args:
        now: Of the model that learns.
        was: Of the model as it was.
        scale: Factor of cosines.
        words: The safe texts; a picture of the same text is no negative.
    """
    true = same(words)
    return (
        0.1 * _apart(now.safe_texts, was.safe_texts) + 0.1 * _apart(now.safe_images, was.safe_images)
        + 0.25 * contrastive_loss(was.safe_images, now.safe_texts, scale, true)
        + 0.25 * contrastive_loss(now.safe_images, was.safe_texts, scale, true)
    )  # fmt: skip


def redirect_loss(now: Four, was: Four, scale: float, words: Sequence[str]) -> Tensor:
    """What draws unsafe texts and pictures to where their safe counterparts were."""
    true = same(words)
    return (
        0.1 * _apart(now.unsafe_texts, was.safe_texts) + 0.2 * _apart(now.unsafe_images, was.safe_images)
        + 0.25 * contrastive_loss(was.safe_images, now.unsafe_texts, scale, true)
        + 0.5 * contrastive_loss(now.unsafe_images, was.safe_texts, scale, true)
    )  # fmt: skip


def quadruplets(data: Dataset) -> list[tuple[Example, Example]]:
    """Each row labelled harmful with an image and a caption, after the row that it is `of`, which has both, too.

    Raises:
        BadData: There are fewer than two.
    """
    whole = {row.id: row for row in data.examples if row.image is not None and row.caption}
    pairs = [
        (whole[of], row)
        for row in whole.values()
        if row.label == "harmful" and (of := row.attributes.get("of", "")) in whole and of != row.id
    ]
    if len(pairs) < 2:
        raise BadData(
            f"{data.name} has {len(pairs)} unsafe rows with a safe counterpart.",
            'Pass two or more: a row with image and caption, and one with "label": "harmful", image, caption and '
            '"attributes": {"of": the id of the first}.',
        )
    return pairs


@torch.no_grad()
def _before(target: DualWeights, pairs: Sequence[tuple[Example, Example]]) -> Four:
    base = target.bare
    safe, unsafe = ([pair[k] for pair in pairs] for k in (0, 1))
    return Four(
        base.embed_texts([one.caption or "" for one in safe]), base.embed_images([_image(one) for one in safe]),
        base.embed_texts([one.caption or "" for one in unsafe]), base.embed_images([_image(one) for one in unsafe]),
    )  # fmt: skip


def _image(row: Example) -> Image:
    assert row.image is not None  # quadruplets have one
    return row.image


def _texts(encoder: DualWeights, words: Sequence[str]) -> Embedded:
    return normalize(encoder.text_features(words), dim=1)


def _apart(one: Embedded, other: Embedded) -> Tensor:
    return 1 - (one * other).sum(1).mean()


METHOD = SafeClip
