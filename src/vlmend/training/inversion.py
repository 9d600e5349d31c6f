"""Gradient inversion: pictures and words back out of the gradient that a client shares of its pairs.

Two attacks. *Closed form*, for towers that cut a picture into patches and add a learnt place to each (ViT): with the
gradient d_p of the state at place p, which is the gradient of that place's embedding where one picture is shared,

    dL/dW = sum_p d_p x_p^T

is linear in the patches x_p, and solved for them by least squares (Lu et al., CVPR 2022, APRIL). Pulled towards a mean
picture by a ridge where the gradient is noisy, or the sum of several. The rows of the token embedding whose gradient is
not zero are the words (Zhu et al. 2019, DLG). *Matching*, where only adapters are shared: pixels whose gradient points
the same way (Geiping et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize

from vlmend.core.targets import DualWeights, Pixels
from vlmend.training.losses import contrastive_loss

__all__ = ["Inside", "Shared", "inside", "matched", "noised", "pair_loss", "rebuilt", "shared", "summed", "words_used"]

Patches = Float[Tensor, "place value"]
Picture = Float[Tensor, "channel height width"]

SURE = 3.0
"""Deviations of noise by which a row of the token embedding must be longer than pure noise to count as a word."""


NOTHING = 1e-200
"""Stands for the pull where the gradient is 0 throughout, so that the mean picture comes out."""


@dataclass(frozen=True, eq=False)
class Inside:
    """The parameters of a model that give pairs away.

    Attributes:
        patches: Weight of the convolution that cuts a picture into patches, "width channel side side".
        places: Embedding of the places of patches, one row a patch, after rows that are no patch's.
        tokens: Embedding of tokens; None where it makes the logits as well, so that every row of it has a gradient.
    """

    patches: Tensor
    places: Tensor
    tokens: Tensor | None


@dataclass(frozen=True, eq=False)
class Shared:
    """What a server sees of one client, or of the sum of several: the part of a gradient that gives pairs away.

    Attributes:
        patches: Gradient of the patches' weight, "width value".
        places: Gradient of the places of patches, "place width".
        tokens: Gradient of the token embedding, "token inner", where there is one; its width need not be the tower's.
        size: Length of the whole gradient.
    """

    patches: Float[Tensor, "width value"]
    places: Float[Tensor, "place width"]
    tokens: Float[Tensor, "token inner"] | None
    size: float


def inside(model: nn.Module, vision: nn.Module | None) -> Inside | None:
    """What gives pairs away, found by structure; None where the image tower has no patches with learnt places."""
    if vision is None:
        return None
    cut = [one for one in vision.modules() if isinstance(one, nn.Conv2d) and one.stride == one.kernel_size]
    width = cut[0].out_channels if cut else 0
    placed = [one for one in vision.modules() if isinstance(one, nn.Embedding) and one.embedding_dim == width]
    if not cut or cut[0].kernel_size == (1, 1) or not placed:
        return None
    outside = {id(one) for one in vision.modules()}
    words = [one for one in model.modules() if isinstance(one, nn.Embedding) and id(one) not in outside]
    tokens = max(words, key=lambda one: one.num_embeddings).weight if words else None
    logits = [one.weight for one in model.modules() if isinstance(one, nn.Linear)]
    if any(one is tokens for one in logits):
        tokens = None
    return Inside(cut[0].weight, placed[0].weight, tokens)


def pair_loss(learner: DualWeights, pixels: Pixels, texts: Sequence[str], scale: float) -> Tensor:
    """The loss of a client: symmetric InfoNCE of its pairs; of a single one, of which that is 0, 1 less its cosine.

    Any loss of one pair alone is a function of its cosine, so its gradient is this one's but for a factor.
    """
    images = normalize(learner.image_features(pixels), dim=1)
    words = normalize(learner.text_features(texts), dim=1)
    return 1 - (images * words).sum() if len(texts) == 1 else contrastive_loss(images, words, scale)


def shared(loss: Tensor, parameters: Sequence[nn.Parameter], held: Inside) -> Shared:
    """The gradient of a loss in these parameters, all of which a client shares."""
    found = cast("Sequence[Tensor | None]", torch.autograd.grad(loss, parameters, allow_unused=True))
    of = {id(one): value for one, value in zip(parameters, found, strict=True) if value is not None}
    size = float(sum((value.double() ** 2).sum() for value in of.values())) ** 0.5
    patches = of[id(held.patches)].flatten(1).double()
    return Shared(patches, of[id(held.places)].double(), None if held.tokens is None else of.get(id(held.tokens)), size)


def summed(parts: Sequence[Shared]) -> Shared:
    """The sum of what several clients share, as secure aggregation shows it: no term of it alone."""
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Shared(
        torch.stack([part.patches for part in parts]).sum(0), torch.stack([part.places for part in parts]).sum(0),
        torch.stack(tokens).sum(0) if tokens else None, sum(part.size for part in parts),
    )  # fmt: skip


def noised(seen: Shared, noise: float, seed: int) -> Shared:
    """The gradient brought to length 1, with normal noise of this deviation on every number of it.

    That is what private training shares at C = 1: `noise` is its noise multiplier.
    """
    draws = torch.Generator().manual_seed(seed)

    def with_noise(value: Tensor) -> Tensor:
        return value / seen.size + noise * torch.randn(value.shape, generator=draws, dtype=value.dtype)

    tokens = None if seen.tokens is None else with_noise(seen.tokens)
    return Shared(with_noise(seen.patches), with_noise(seen.places), tokens, 1.0)


def rebuilt(seen: Shared, pixels: Pixels, side: int, likely: Picture, ridge: float) -> Picture:
    """The picture behind a gradient, by least squares, clipped to what a picture can be.

    Args:
        seen: Of one pair; of a sum it gives a mixture.
        pixels: Of any picture: tells how values become what the tower reads.
        side: Of a patch, in pixels.
        likely: Where nothing is known: the mean of public pictures, 0 to 1.
        ridge: How hard it is pulled there, as a share of the largest eigenvalue; 0 not at all.
    """
    black, span = pixels.black[0].double(), pixels.span[0].double()
    middle = _cut(black + likely.double() * span, side)
    places = seen.places[-len(middle) :]
    inner = places @ places.T
    weight = max(ridge, 1e-14) * float(torch.linalg.eigvalsh(inner)[-1])
    pull = max(weight, NOTHING) * torch.eye(len(inner), dtype=inner.dtype)
    found = middle + torch.linalg.solve(inner + pull, places @ (seen.patches - places.T @ middle))
    return ((_joined(found, likely.shape, side) - black) / span).clamp(0, 1)


def words_used(seen: Shared, noise: float = 0.0) -> set[int]:
    """Tokens whose row of the embedding got a gradient that is longer than noise of this deviation can be."""
    if seen.tokens is None:
        return set()
    bar = noise * (seen.tokens.shape[1] ** 0.5 + SURE)
    return set((seen.tokens.norm(dim=1) > bar).nonzero()[:, 0].tolist())


def matched(
    loss_of: Callable[[Pixels], Tensor], parameters: Sequence[nn.Parameter], given: Sequence[Tensor | None],
    pixels: Pixels, *, steps: int, rate: float = 0.05, smooth: float = 0.05,
) -> Float[Tensor, "picture channel height width"]:  # fmt: skip
    """Pictures whose gradient points the way of a given one, parameter by parameter, from `pixels.values` on.

    The mean of 1 - cosine over parameters, plus `smooth` times the total variation, is lowered by Adam on the signs of
    its gradient, its rate falling to 0 by a cosine. Whoever does this knows the texts, which are in `loss_of`.
    """
    told = [(k, one / one.norm()) for k, one in enumerate(given) if one is not None and float(one.norm()) > 0]
    values = pixels.values.clone().requires_grad_()
    optimiser = torch.optim.Adam([values], lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        for _ in range(steps):
            loss = loss_of(replace(pixels, values=values))
            own: Any = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
            apart = torch.stack([1 - (own[k] * one).sum() / own[k].norm().clamp(min=1e-30) for k, one in told])
            rough = (values.diff(dim=-1).abs().mean() + values.diff(dim=-2).abs().mean()) if values.dim() == 4 else 0.0
            (slope,) = torch.autograd.grad(apart.mean() + smooth * rough, values)
            values.grad = slope.sign()
            optimiser.step()
            falling.step()
            with torch.no_grad():
                values.clamp_(0, 1)
    return values.detach()


def _cut(picture: Picture, side: int) -> Patches:
    """A picture as its patches, row by row, each in the order of the convolution's weight."""
    channels, height, width = picture.shape
    grid = picture.reshape(channels, height // side, side, width // side, side)
    return grid.permute(1, 3, 0, 2, 4).reshape(-1, channels * side * side)


def _joined(patches: Patches, shape: Sequence[int], side: int) -> Picture:
    channels, height, width = shape
    grid = patches.reshape(height // side, width // side, channels, side, side)
    return grid.permute(2, 0, 3, 1, 4).reshape(channels, height, width)
