"""What makes a map believable: it changes when the weights are shuffled, and hiding what it marks costs the score."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vlmend.audit.explaining.maps import Heat, vision_tower
from vlmend.audit.explaining.shown import Explainable, Shown
from vlmend.core.mend import Mend, MendCard
from vlmend.core.metrics.attribution import (
    cell_means,
    centre_map,
    curve_area,
    mass_share,
    points_at,
    rank_correlation,
    spread_cells,
)
from vlmend.core.provenance import versions
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import ModelProblem

__all__ = ["HIDDEN", "Faithful", "faithful", "place_values", "sanity_values", "shuffled"]

PARTS = 8
HIDDEN = tuple(k / PARTS for k in range(PARTS + 1))
"""Shares of the cells of a picture that are hidden or shown, from none to all."""


@dataclass(frozen=True)
class Faithful:
    """Scores while cells of a picture are hidden or put back (Petsiuk, Das and Saenko, BMVC 2018, arXiv 1806.07421).

    Attributes:
        deleted: With the cells that the map ranks highest hidden first, at each share of `HIDDEN`.
        at_random: With cells hidden in a random order: what any order gives.
        inserted: With the cells that it ranks highest put on the mean colour first.
    """

    deleted: tuple[float, ...]
    at_random: tuple[float, ...]
    inserted: tuple[float, ...]

    @property
    def values(self) -> dict[str, float]:
        """How much sooner the score falls, and comes back, than in a random order: in the score's own units."""
        chance = curve_area(self.at_random)
        return {
            "deletion_gain": chance - curve_area(self.deleted),
            "insertion_gain": curve_area(self.inserted) - chance,
        }


def shuffled(target: Explainable, seed: int) -> Explainable:
    """A view whose vision tower has each of its weights' entries in a random order: it has learnt nothing.

    Adebayo et al., NeurIPS 2018, arXiv 1810.03292, draw weights anew; their order keeps their sizes.

    Raises:
        ModelProblem: The tower cannot be reached, or its weights are quantised.
    """
    model, tower = vision_tower(target)
    path = next(path for path, module in model.named_modules() if module is tower)
    draws = torch.Generator().manual_seed(seed)
    edits = [
        ReplaceWeights(f"{path}.{name}" if path else name, _mixed(weight.detach().float().cpu(), draws))
        for name, weight in tower.named_parameters()
        if weight.is_floating_point()
    ]
    if len(edits) < len([*tower.parameters()]):
        raise ModelProblem(
            f"The vision tower of {target.name} holds quantised weights, which cannot be shuffled.",
            "Load the model without --quantize, or leave the checks out: --no-checks.",
        )
    card = MendCard(
        "shuffled", {}, target.name, target.model_digest, "", "", seed, versions(), {}, "arXiv 1810.03292",
        dict(target.identity),
    )  # fmt: skip
    return target.with_mend(Mend(tuple(edits), card))


def place_values(seen: Shown, heat: Heat) -> dict[str, float]:
    """Where a map lies: share of its mass on the person, beside the person's area and a map of the centre."""
    if seen.region is None or not seen.region.any():
        return {}
    area = float(seen.region.sum() / seen.counted.sum())
    centre = mass_share(centre_map(*heat.map.shape), seen.region, seen.counted)
    share = mass_share(heat.map, seen.region, seen.counted)
    if math.isnan(share):
        return {}
    return {"share": share, "area": area, "centre": centre, "pointed": float(points_at(heat.map, seen.region))}


def sanity_values(seen: Shown, heat: Heat, random_heat: Heat) -> dict[str, float]:
    """How like the map is that of shuffled weights, cell by cell, and where that one lies."""
    own, other = cell_means(heat.map), cell_means(random_heat.map)
    found = {
        "correlation": rank_correlation(own[None], other[None]),
        "correlation_of_sizes": rank_correlation(abs(own)[None], abs(other)[None]),
    }
    placed = place_values(seen, random_heat)
    if placed:
        found["share_shuffled"] = placed["share"]
    return {name: value for name, value in found.items() if not math.isnan(value)}


def faithful(seen: Shown, heat: Heat, seed: int) -> Faithful:
    """The score while parts of the picture are hidden, in the order of the map and in a random one."""
    means = cell_means(heat.map)
    best = [int(cell) for cell in np.argsort(-means, kind="stable")]
    mixed = random.Random(f"hidden:{seed}").sample(best, len(best))
    sizes = [round(share * len(best)) for share in HIDDEN]
    deleted, at_random = ([order[:size] for size in sizes] for order in (best, mixed))
    inserted = [best[size:] for size in sizes]
    scores = iter(_scores(seen, [*deleted, *at_random, *inserted]))
    first, second, third = (tuple(next(scores) for _ in HIDDEN) for _ in range(3))
    return Faithful(first, second, third)


def _scores(seen: Shown, hidden: Sequence[Sequence[int]]) -> list[float]:
    """Of the picture with each of these sets of cells in its mean colour."""
    height, width = seen.picture.shape[2:]
    masks = torch.from_numpy(np.stack([spread_cells(cells, height, width) for cells in hidden]))[:, None]
    with torch.no_grad():
        return seen.score(torch.where(masks, seen.baseline, seen.picture)).double().tolist()


def _mixed(weight: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    return weight.flatten()[torch.randperm(weight.numel(), generator=draws)].reshape(weight.shape)
