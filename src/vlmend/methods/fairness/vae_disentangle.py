"""Disentanglement by a variational autoencoder: codes of embeddings, of which those that tell a pair apart are dropped.

A linear VAE on embeddings x of pictures, centred and scaled to variance 1: q(z|x) = N(W x, diag v), p(x|z) = N(D z,
noise). It lowers reconstruction + beta * KL(q || N(0, I)) (Higgins et al., ICLR 2017). Weak supervision by pairs that
differ in the protected attribute alone (Locatello et al., ICML 2020, arXiv 2002.02886): codes whose posteriors lie
near to each other get their mean, the others stay. Codes that most pairs keep apart are the protected ones, s, and

    E = I - D_s (W_s D_s)^-1 W_s

sets them to nothing in every embedding and leaves what the decoder makes of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualTarget, Kind
from vlmend.errors import BadData, BadParameter
from vlmend.methods.pairs import counterpart_places
from vlmend.pictures.counterparts import with_counterparts
from vlmend.pictures.galleries import people_and_things
from vlmend.training.loop import LoopSettings, train_at_once

__all__ = ["METHOD", "VaeDisentangle", "code_kl", "shared_codes", "without_codes"]

BATCH = 256
APART = 0.5
"""Share of the pairs that keep a code apart, above which it is a protected one."""

Codes = Float[Tensor, "row code"]


@dataclass(frozen=True)
class VaeDisentangle(AbstractMethod[DualTarget]):
    """A linear autoencoder of pictures' embeddings, and the map that empties its protected codes.

    Attributes:
        codes: Numbers that stand for an embedding.
        beta: Weight of the codes' distance from a standard normal distribution.
        noise: Variance that the decoder need not explain, as a share of the embeddings' own.
        steps: Optimiser steps of 256 pairs.
        rate: Peak learning rate.
    """

    name: ClassVar[str] = "vae_disentangle"
    source: ClassVar[str] = "Higgins et al., ICLR 2017; Locatello et al., arXiv 2002.02886, ICML 2020"
    needs: ClassVar[Access] = "embeddings"
    passes: ClassVar[str] = "none; one small product a picture"
    data: ClassVar[str] = "pictures, and each person with another one in the same picture (step face_edit)"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {"codes": 4, "steps": 60}

    codes: int = 32
    beta: float = 1.0
    noise: float = 0.1
    steps: int = 1000
    rate: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.codes, self.steps) < 1 or self.beta < 0 or min(self.noise, self.rate) <= 0:
            raise BadParameter(
                f"codes={self.codes}, beta={self.beta:g}, noise={self.noise:g}, steps={self.steps}, rate={self.rate:g} "
                "cannot be.",
                "beta is 0 or more, noise and rate above 0, the others are at least 1.",
            )

    def builtin(self) -> Dataset:
        """Men and women of 20 professions, each with the other gender in the same view, and a view of each object."""
        return with_counterparts(people_and_things())

    def sample_data(self) -> Dataset:
        """Eight people with their counterparts."""
        return with_counterparts(Dataset("few-people", people_and_things().examples[:80:10]))

    def learn(self, target: DualTarget, data: Dataset, *, seed: int) -> Mend:
        """Learn the codes, find the protected ones, and empty them.

        Raises:
            BadData: There is no pair, or no code tells most pairs apart.
        """
        rows = [row for row in data.examples if row.image is not None]
        pairs = counterpart_places(data, rows)
        embedded = target.embed_images([row.image for row in rows if row.image is not None])
        mean, spread = embedded.mean(0), embedded.std().clamp(min=1e-9)
        together = [(place, place) for place in sorted(set(range(len(rows))) - {p for pair in pairs for p in pair})]
        model = _Autoencoder(embedded.shape[1], self, seed)
        model.learn((embedded - mean) / spread, [*pairs, *together])
        apart = model.apart((embedded - mean) / spread, pairs)
        protected = [code for code, share in enumerate(apart.tolist()) if share > APART]
        if not protected:
            raise BadData(
                f"No code of {self.codes} tells most of the {len(pairs)} pairs of {data.name} apart.",
                "The encoder hardly tells them apart, or beta is so large that codes carry nothing: try a smaller one.",
            )
        matrix = without_codes(model.encode.weight.detach(), model.decode.weight.detach(), protected, mean)
        told = ", ".join(f"{apart[code]:.2f}" for code in protected)
        note = (
            f"{len(protected)} of {self.codes} codes are emptied; share of {len(pairs)} pairs they tell apart: {told}."
        )
        made = self.made(target, data, seed, [MapImages(matrix)], {})
        return replace(made, card=replace(made.card, notes=(note,)))


class _Autoencoder:
    """The linear encoder and decoder; all codes have a variance of their own, the same for every embedding."""

    def __init__(self, width: int, method: VaeDisentangle, seed: int) -> None:
        self.method, self.generator = method, torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encode, self.decode = nn.Linear(width, method.codes, False), nn.Linear(method.codes, width, False)
        self.log_variance = nn.Parameter(torch.zeros(method.codes))

    def learn(self, embedded: Float[Tensor, "row width"], pairs: Sequence[tuple[int, int]]) -> None:
        """On pairs of places; a row that has no other is its own."""
        both = torch.tensor(pairs)

        def loss(step: int) -> Tensor:
            del step
            drawn = both[torch.randint(len(both), (min(BATCH, len(both)),), generator=self.generator)]
            first, second = embedded[drawn[:, 0]], embedded[drawn[:, 1]]
            means = self._averaged(self.encode(first), self.encode(second))
            return sum((self._elbo(x, mean) for x, mean in zip((first, second), means, strict=True)), torch.zeros(()))

        parameters = [*self.encode.parameters(), *self.decode.parameters(), self.log_variance]
        train_at_once(parameters, loss, LoopSettings(self.method.steps, self.method.rate))

    @torch.no_grad()
    def apart(self, embedded: Float[Tensor, "row width"], pairs: Sequence[tuple[int, int]]) -> Float[Tensor, " code"]:
        """Share of the pairs that each code keeps apart."""
        first, second = (self.encode(embedded[[pair[side] for pair in pairs]]) for side in (0, 1))
        return 1 - shared_codes(first, second, self.log_variance).double().mean(0)

    def _averaged(self, first: Codes, second: Codes) -> tuple[Codes, Codes]:
        shared, middle = shared_codes(first, second, self.log_variance), (first + second) / 2
        return torch.where(shared, middle, first), torch.where(shared, middle, second)

    def _elbo(self, x: Float[Tensor, "row width"], mean: Codes) -> Tensor:
        """Less the evidence's lower bound, but for a constant."""
        codes = mean + (self.log_variance / 2).exp() * torch.randn(mean.shape, generator=self.generator)
        missed = (self.decode(codes) - x).square().sum(1) / (2 * self.method.noise)
        return (missed + self.method.beta * code_kl(mean, self.log_variance).sum(1)).mean()


def code_kl(mean: Codes, log_variance: Float[Tensor, " code"]) -> Codes:
    """KL(N(mean, variance) || N(0, 1)) of each code, in nats: (mean^2 + variance - 1 - ln variance) / 2."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def shared_codes(first: Codes, second: Codes, log_variance: Float[Tensor, " code"]) -> Bool[Tensor, "row code"]:
    """Codes that a pair shares: those no further apart than half way between its nearest and its furthest.

    The distance is the symmetric KL of the two posteriors, (difference of means)^2 / variance.
    """
    far = (first - second).square() / log_variance.exp()
    edge = (far.amin(1, keepdim=True) + far.amax(1, keepdim=True)) / 2
    return far <= edge


def without_codes(
    encode: Float[Tensor, "code width"], decode: Float[Tensor, "width code"], codes: Sequence[int],
    mean: Float[Tensor, " width"],
) -> Float[Tensor, "width width"]:  # fmt: skip
    """The map that empties codes: I - D_s (W_s D_s)^-1 W_s, where W_s does not read the mean of all embeddings.

    Embeddings are not centred where the map acts, so what W_s reads along their mean is taken out of it first.
    """
    own, made = encode[list(codes)].double(), decode[:, list(codes)].double()
    middle = mean.double()
    own = own - (own @ middle)[:, None] * middle / middle.square().sum().clamp(min=1e-12)
    empty = made @ torch.linalg.pinv(own @ made) @ own
    return (torch.eye(len(middle), dtype=torch.float64) - empty).float()


METHOD = VaeDisentangle
