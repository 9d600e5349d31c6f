"""Projection tuning: one linear map on picture embeddings, towers frozen.

Three maps W, each i <- W i, back to length 1:

- `span`: U U', with U an orthonormal basis of the embedded names (the first step of COLA, arXiv 2510.24038). It needs
  no pictures. With t a name's embedding t . U U' i = t . i: within these names no order changes, only confidence.
- `names`: the head of projection-head calibration (arXiv 2505.11895) with the embedded names as fixed centres: the
  cross-entropy of pictures and of the same ones under attack is least, W near the identity I.
- `clean`: the W with the least sum of |W i' - i|^2 + |W i - i|^2 over pictures i and the same ones under attack i'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.metrics.calibration import nll
from vlmend.core.targets import Access, DualGradients, Kind
from vlmend.errors import BadParameter
from vlmend.methods.tuning import naming_loss
from vlmend.pictures.galleries import some_objects, training_objects
from vlmend.pictures.named import NamedPictures, named_pictures
from vlmend.training.adversary import Adversary, worst_pixels
from vlmend.training.loop import LoopSettings, train_at_once

__all__ = ["METHOD", "ProjectionTuning", "least_squares_map", "span_projection"]

TOGETHER = 64
"""Pictures that are attacked at a time."""


@dataclass(frozen=True)
class ProjectionTuning(AbstractMethod[DualGradients]):
    """A linear map on picture embeddings: into the span of the names, or calibrated on attacked pictures.

    Attributes:
        how: `span`, `names` or `clean`, see above.
        rank: Directions that `span` keeps, the leading ones of the names; all where it is none.
        epsilon: Largest change of a pixel of the attacked pictures, as a share of black to white.
        inner: Steps of that attack, each of 2.5 epsilon over their number.
        keep: Weight of |W - I|^2, summed over the entries, for each picture; holds a head near the identity.
        steps: Optimiser steps of `names`, over all pictures at once.
        rate: Their peak learning rate.
    """

    name: ClassVar[str] = "projection_tuning"
    source: ClassVar[str] = "arXiv 2510.24038, NeurIPS 2025 (COLA); arXiv 2505.11895"
    needs: ClassVar[Access] = "gradients"
    passes: ClassVar[str] = "none; one small product a picture"
    data: ClassVar[str] = "names; but for span pictures of them, attacked while it is fitted"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {"inner": 1, "steps": 4, "rate": 1e-2}

    how: Literal["span", "names", "clean"] = "names"
    rank: int | None = None
    epsilon: float = 4 / 255
    inner: int = 5
    keep: float = 1e-2
    steps: int = 200
    rate: float = 3e-3

    def __post_init__(self) -> None:
        if min(self.inner, self.steps) < 1 or not 0 < self.epsilon <= 1 or self.keep <= 0 or self.rate <= 0:
            raise BadParameter(
                f"epsilon={self.epsilon:g}, inner={self.inner}, keep={self.keep:g}, steps={self.steps}, "
                f"rate={self.rate:g} cannot be.",
                "epsilon lies above 0 and at most at 1 (4/255 is 0.0157), inner and steps are at least 1, keep and "
                "rate are above 0.",
            )
        if self.rank is not None and (self.rank < 1 or self.how != "span"):
            raise BadParameter(
                f"rank={self.rank} cannot be with how={self.how}.", "Pass 1 or more with how=span, else none."
            )

    def builtin(self) -> Dataset:
        """A training view of each known object."""
        return training_objects(1)

    def sample_data(self) -> Dataset:
        """Eight training pictures with their names."""
        return some_objects()

    def learn(self, target: DualGradients, data: Dataset, *, seed: int) -> Mend:
        """Fit the map on the rows that have an image and a right answer; the first answer is the name.

        Raises:
            BadData: There are fewer than two names.
        """
        known = named_pictures(data)
        base = target.bare
        texts = base.embed_texts(known.texts)
        if self.how == "span":
            matrix, count = span_projection(texts, self.rank)
            note = f"{len(texts)} names span {count} of {len(matrix)} dimensions, of which the map keeps those."
            if count == len(matrix):
                note = f"{len(texts)} names span all {count} dimensions: the map is the identity and changes nothing."
            mend = self.made(target, data, seed, [MapImages(matrix)], {})
            return replace(mend, card=replace(mend.card, notes=(note,)))
        clean = base.embed_images(known.images)
        attacked = self._attacked(base, known, texts, seed)
        if self.how == "clean":
            matrix = least_squares_map(attacked, clean, self.keep)
        else:
            seen = torch.cat([attacked, clean])
            matrix = self._centred(base, seen, texts, torch.tensor(known.right).repeat(2))
        return self.made(target, data, seed, [MapImages(matrix)], {})

    def _attacked(
        self, base: DualGradients, known: NamedPictures, texts: Float[Tensor, "text width"], seed: int
    ) -> Float[Tensor, "image width"]:
        """Embeddings of the pictures within epsilon at which the right name is least likely."""
        adversary = Adversary(self.epsilon, self.inner, 2.5 * self.epsilon / self.inner)
        right, found = torch.tensor(known.right), list[Tensor]()
        for start in range(0, len(known.images), TOGETHER):
            part = slice(start, start + TOGETHER)
            pixels = base.pixels(known.images[part])
            loss = naming_loss(base, pixels, texts, right[part])
            values = worst_pixels(loss, pixels.values, adversary, seed + start)
            with torch.no_grad():
                found.append(base.embed_pixels(replace(pixels, values=values)))
        return torch.cat(found)

    def _centred(
        self, base: DualGradients, seen: Float[Tensor, "image width"], texts: Float[Tensor, "text width"],
        right: Int[Tensor, " image"],
    ) -> Float[Tensor, "width width"]:  # fmt: skip
        """W from the identity to where the right names are likeliest."""
        eye = torch.eye(seen.shape[1])
        matrix = nn.Parameter(eye.clone())

        def loss(step: int) -> Tensor:
            del step
            logits = base.scored(normalize(seen @ matrix.T, dim=1), texts)
            return nll(logits, right, base.pair_kind).mean() + self.keep * (matrix - eye).square().sum()

        train_at_once([matrix], loss, LoopSettings(self.steps, self.rate))
        return matrix.detach()


def span_projection(
    texts: Float[Tensor, "text width"], rank: int | None = None
) -> tuple[Float[Tensor, "width width"], int]:
    """U U' of an orthonormal basis U of the texts, or of their leading directions, and how many these are."""
    _, sizes, rows = torch.linalg.svd(texts.double(), full_matrices=False)
    count = int((sizes > sizes[0] * max(texts.shape) * torch.finfo(texts.dtype).eps).sum())
    basis = rows[: min(count, rank or count)]
    return (basis.T @ basis).float(), len(basis)


def least_squares_map(
    attacked: Float[Tensor, "image width"], clean: Float[Tensor, "image width"], keep: float
) -> Float[Tensor, "width width"]:
    """The W with the least mean of |W i' - i|^2 + |W i - i|^2, plus keep |W - I|^2."""
    seen, wanted = torch.cat([attacked, clean]).double(), torch.cat([clean, clean]).double()
    near = keep * len(clean) * torch.eye(seen.shape[1], dtype=torch.float64)
    return torch.linalg.solve(seen.T @ seen + near, wanted.T @ seen + near, left=False).float()


METHOD = ProjectionTuning
