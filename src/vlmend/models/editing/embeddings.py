"""The interpreter of edits of dual encoders: on embeddings, on logits, on what is accepted and retrieved.

What becomes of an embedding: the tower under its edits of weights, `ModuleEdit`, back to length 1, then `MapTexts` or
`MapImages`, each kind in the order of the mends.
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

from vlmend.core.dual_edits import AcceptAbove, DualEdit, MapImages, MapTexts, Rerank, ScaleLogits
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
]

Tower = Literal["vision", "text"]
EMBEDDINGS = {Site(tower, 0, "embedding"): tower for tower in get_args(Tower)}


@dataclass(frozen=True, eq=False)
class DualStages:
    """The edits of a view by where they act, each in the order of the mends."""

    weights: tuple[WeightEdit, ...]
    modules: tuple[ModuleEdit, ...]
    maps: tuple[MapTexts | MapImages, ...]
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
        if isinstance(edit, MapTexts | MapImages | ModuleEdit):
            given = len(edit.write_bias if isinstance(edit, ModuleEdit) else edit.matrix)
            if given != width:
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
            case ModuleEdit():
                found["modules"].append(edit)
            case MapTexts() | MapImages():
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
        if isinstance(edit, MapTexts) == (tower == "text"):
            matrix = edit.matrix.to(units)
            units = normalize(units + edit.strength * (units @ matrix.T - units), dim=1)
    return units


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
