"""The interpreter of edits of dual encoders: on embeddings, on logits, on what is accepted and retrieved.

What becomes of an embedding: the tower under its edits of weights and its learnt tokens (`tokens.py`), `ModuleEdit`,
back to length 1, then `MapTexts`, `MapImages` and `TurnFrom` in the order of the mends.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.dual_edits import (
    AcceptAbove,
    DualEdit,
    InsertTokens,
    MapImages,
    MapTexts,
    Rerank,
    ScaleLogits,
    TurnFrom,
)
from vlmend.core.edits import AnyEdit, idle
from vlmend.core.sites import Site
from vlmend.core.state_edits import ModuleEdit
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights, WeightEdit
from vlmend.errors import BadParameter

__all__ = [
    "DualStages",
    "Tower",
    "check_widths",
    "dealt",
    "dual_edits",
    "dual_stages",
    "edited_embeddings",
    "edited_logits",
    "reranked",
    "turned",
]

Tower = Literal["vision", "text"]
EPSILON = 1e-6
"""A part shorter than that is none, up to rounding."""

EMBEDDINGS = {Site(tower, 0, "embedding"): tower for tower in get_args(Tower)}


@dataclass(frozen=True, eq=False)
class DualStages:
    """The edits of a view by where they act, each in the order of the mends."""

    weights: tuple[WeightEdit, ...]
    tokens: tuple[InsertTokens, ...]
    modules: tuple[ModuleEdit, ...]
    maps: tuple[MapTexts | MapImages | TurnFrom, ...]
    logits: tuple[ScaleLogits, ...]
    accepts: tuple[AcceptAbove, ...]
    reranks: tuple[Rerank, ...]


def dual_edits(edits: Sequence[AnyEdit]) -> tuple[DualEdit, ...]:
    """The edits that do something.

    Raises:
        BadParameter: Some are not for dual encoders.
    """
    foreign = {type(edit).__name__ for edit in edits if not isinstance(edit, DualEdit)}
    foreign |= {
        f"ModuleEdit at {edit.site}" for edit in edits if isinstance(edit, ModuleEdit) and edit.site not in EMBEDDINGS
    }
    if foreign:
        raise BadParameter(
            f"A dual encoder has no place for {', '.join(sorted(foreign))}.",
            "Use a method that works on dual encoders: vlmend list methods.",
        )
    return tuple(edit for edit in edits if isinstance(edit, DualEdit) and not idle(edit))


def check_widths(width: int, edits: Sequence[DualEdit]) -> None:
    """Refuse edits of embeddings of another width.

    Raises:
        BadParameter: Which one.
    """
    for edit in edits:
        given = _width(edit)
        if given not in (None, width):
            raise BadParameter(
                f"{type(edit).__name__} is {given} numbers wide, and this model's embeddings are {width}.",
                "Fit the mend again on this very model.",
            )


def dual_stages(edits: Sequence[DualEdit]) -> DualStages:
    """The edits sorted by where they act."""
    found: dict[str, list[Any]] = {name: [] for name in DualStages.__dataclass_fields__}
    for edit in edits:
        match edit:
            case LoadAdapter() | ReplaceWeights():
                found["weights"].append(edit)
            case InsertTokens():
                found["tokens"].append(edit)
            case ModuleEdit():
                found["modules"].append(edit)
            case MapTexts() | MapImages() | TurnFrom():
                found["maps"].append(edit)
            case ScaleLogits():
                found["logits"].append(edit)
            case AcceptAbove():
                found["accepts"].append(edit)
            case Rerank():
                found["reranks"].append(edit)
            case _:
                assert_never(edit)
    return DualStages(**{name: tuple(held) for name, held in found.items()})


def edited_embeddings(
    stages: DualStages, tower: Tower, features: Float[Tensor, "row width"]
) -> Float[Tensor, "row width"]:
    """Embeddings of length 1, from what the tower gives; differentiable."""
    for edit in stages.modules:
        if EMBEDDINGS[edit.site] == tower:
            read, write = edit.read.to(features), edit.write.to(features)
            hidden = torch.relu(features @ read.T + edit.read_bias.to(features))
            features = features + edit.strength * (hidden @ write.T + edit.write_bias.to(features))
    units = normalize(features, dim=1)
    for edit in stages.maps:
        if _tower(edit) == tower:
            aim = turned(units, edit.basis.to(units)) if isinstance(edit, TurnFrom) else units @ edit.matrix.to(units).T
            units = normalize(units + edit.strength * (aim - units), dim=1)
    return units


def turned(units: Float[Tensor, "row width"], basis: Float[Tensor, "direction width"]) -> Float[Tensor, "row width"]:
    """Where `TurnFrom` turns embeddings of length 1: length 1 again, differentiable."""
    along = units @ basis.T @ basis
    across = units - along
    n = across.norm(dim=1, keepdim=True)
    kept = (2 + n - n * (3 + 2 * n).sqrt()) / (4 - 2 * n.square())
    rest = (1 - kept.square() * along.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    return torch.where(n > EPSILON, kept * along + rest * across / n.clamp_min(EPSILON), units)


def edited_logits(stages: DualStages, logits: Float[Tensor, "image text"]) -> Float[Tensor, "image text"]:
    """Logits after the edits."""
    for edit in stages.logits:
        logits = logits * (1 + edit.strength * (1 / edit.temperature - 1))
    return logits


def reranked(edit: Rerank, text: str, order: Sequence[int], groups: Sequence[int]) -> list[int]:
    """The places of all images for one text after a `Rerank`.

    Args:
        edit: What to do.
        text: The query.
        order: Places of all images, best first.
        groups: Group of the image at each place, as a number.
    """
    words = set(re.findall(r"\w+", text.casefold()))
    if words & {word.casefold() for word in edit.named}:
        return list(order)
    return dealt(order, groups, random.Random(f"rerank:{text}"))


def dealt(order: Sequence[int], groups: Sequence[int], rng: random.Random) -> list[int]:
    """Places dealt in rounds: the best one left of each group, in a random order within the round.

    Within a group the order is kept, and every place comes once: where a group has run out, the others go on.
    """
    queues = [[place for place in order if groups[place] == group] for group in sorted(set(groups))]
    found: list[int] = []
    for turn in range(max(map(len, queues), default=0)):
        best = [queue[turn] for queue in queues if turn < len(queue)]
        rng.shuffle(best)
        found += best
    return found


def _tower(edit: MapTexts | MapImages | TurnFrom) -> Tower:
    """Whose embeddings an edit maps."""
    match edit:
        case MapTexts():
            return "text"
        case MapImages():
            return "vision"
        case TurnFrom():
            return edit.tower


def _width(edit: DualEdit) -> int | None:
    """How wide the embeddings are that an edit is for; None where it is for any."""
    match edit:
        case MapTexts() | MapImages():
            return len(edit.matrix)
        case TurnFrom():
            return edit.basis.shape[1]
        case ModuleEdit():
            return len(edit.write_bias)
        case InsertTokens() | ScaleLogits() | AcceptAbove() | Rerank() | LoadAdapter() | ReplaceWeights():
            return None
