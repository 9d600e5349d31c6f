"""Does a second modality protect members? Pictures, captions and both, at equal utility (card P18).

    python -m tools.modalities [--seeds 0 1 2]     # adds to RUNS, two minutes of one core a seed
    python -m tools.modalities_page                # the tables of docs/studies/modalities.md and its picture

A record is a scene of coloured shapes and the caption that tells it; the task is the colour of the group with the most
shapes. Records are dealt at random: trained on, not, for the reference model, for utility. Each modality is read by
phantom-clip's frozen layers but for the last, and by a small tower of its own on top. All models have the same two
towers, the same steps and the same first weights; where a modality is not given, its tower reads one state of zeros.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from tools.measuring import STUDIES, keep_run
from vlmend.audit.separating import blind_columns
from vlmend.core.examples import Example
from vlmend.core.images import Image
from vlmend.core.metrics.detection import auroc
from vlmend.core.metrics.membership import separation, tpr_at
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.scenes import COLOURS, drawn_scene, scene
from vlmend.training.losses import contrastive_loss

__all__ = [
    "CHECKPOINTS",
    "RUNS",
    "VARIANTS",
    "Inputs",
    "Model",
    "Pool",
    "Variant",
    "given_to",
    "measured",
    "told",
    "trained",
]

RUNS = STUDIES / "modalities.json"

CHECKPOINTS = (0, 1, 2, 3, 4, 5, 6, 8, 12, 16)
"""Passes over the records after which a model is looked at."""
RECORDS, PART = 1350, 250
"""Records in all; members, and as many others, and as many that the reference model learns."""
BATCH, RATE = 32, 5e-4
CELL = 2
"""Patches in height and width whose states are read as their mean: a cell of the grid that shapes stand on."""
HEADS, INNER = 3, 384
DRAWN = 2
"""Draws of a modality that is noise over which a loss is averaged."""
SCALE = 20.0
"""Factor of the cosines in the contrastive loss."""

States = Float[Tensor, "record token width"]
Inside = Bool[Tensor, "record token"]
Order = Int[Tensor, " record"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """One modality of all records as frozen states, and which of them are any."""

    states: States
    inside: Inside

    def of(self, places: Order) -> Inputs:
        return Inputs(self.states[places], self.inside[places])


@dataclass(frozen=True, eq=False)
class Pool:
    """All records.

    Attributes:
        rows: Picture, caption and kind (`group`).
        inputs: `picture` and `caption`.
        labels: Number of the kind.
        size: Records of each part but the last.
    """

    rows: tuple[Example, ...]
    inputs: Mapping[str, Inputs]
    labels: Int[Tensor, " record"]
    size: int = PART

    def parts(self, seed: int) -> tuple[Order, Order, Order, Order]:
        """Places of members, of others, of those that the reference model learns, and of the rest, dealt at random."""
        order = torch.tensor(random.Random(f"modalities {seed}").sample(range(len(self.rows)), len(self.rows)))
        size = self.size
        return order[:size], order[size : 2 * size], order[2 * size : 3 * size], order[3 * size :]


Source = str
"""`picture`, `caption`, or one of them `of another, drawn anew` or `of another, always the same`; `` is nothing."""


@dataclass(frozen=True)
class Variant:
    """What the two towers are given, and whether the two are pulled together by a contrastive loss as well."""

    first: Source
    second: Source
    contrastive: bool = False


ANEW, FIXED = " of another, drawn anew", " of another, always the same"
VARIANTS: Mapping[str, Variant] = {
    "picture": Variant("picture", ""),
    "caption": Variant("caption", ""),
    "picture and caption": Variant("picture", "caption"),
    "picture and caption, contrastive": Variant("picture", "caption", True),
    "picture twice": Variant("picture", "picture"),
    "caption twice": Variant("caption", "caption"),
    "picture and noise": Variant("picture", f"caption{ANEW}"),
    "caption and noise": Variant("caption", f"picture{ANEW}"),
    "picture and mark": Variant("picture", f"caption{FIXED}"),
    "caption and mark": Variant("caption", f"picture{FIXED}"),
}


class Tower(nn.Module):
    """One layer of attention over frozen states, and their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = nn.TransformerEncoderLayer(width, HEADS, INNER, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, given: Inputs) -> Float[Tensor, "record width"]:
        read = self.layer(self.norm(given.states), src_key_padding_mask=~given.inside)
        return (read * given.inside[..., None]).sum(1) / given.inside.sum(1, keepdim=True)


class Model(nn.Module):
    """Two towers of one build, and a linear head over both."""

    def __init__(self, width: int, kinds: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.towers = nn.ModuleList([Tower(width), Tower(width)])
        self.head = nn.Linear(2 * width, kinds)

    def features(self, given: tuple[Inputs, Inputs]) -> tuple[Tensor, Tensor]:
        """What each tower makes of its modality, "record width"."""
        first, second = (tower(one) for tower, one in zip(self.towers, given, strict=True))
        return first, second

    def forward(self, given: tuple[Inputs, Inputs]) -> Float[Tensor, "record kind"]:
        return self.head(torch.cat(self.features(given), dim=1))


def pool_of(base: DualEncoder, count: int = RECORDS) -> Pool:
    """Scenes with one group that outnumbers the others, and captions that tell all; read by frozen layers."""
    rng, rows = random.Random("modalities"), list[Example]()
    while len(rows) < count:
        drawn = scene(rng)
        most, *rest = sorted(drawn.things, key=lambda thing: -thing.count)
        if all(thing.count < most.count for thing in rest):
            picture = Image.from_pixels(drawn_scene(drawn, rng))
            rows.append(Example(f"scene {len(rows)}", image=picture, caption=drawn.caption(), group=most.colour))
    labels = torch.tensor([list(COLOURS).index(row.group) for row in rows])
    return Pool(tuple(rows), {"picture": _pictures(base, rows), "caption": _captions(base, rows)}, labels)


@torch.no_grad()
def _pictures(base: DualEncoder, rows: Sequence[Example]) -> Inputs:
    pixels = base.pixels([row.image for row in rows if row.image is not None])
    values = pixels.black + pixels.values * pixels.span
    vision: Any = base.towers.vision
    read = vision(pixel_values=values, output_hidden_states=True).hidden_states[-2]
    side = math.isqrt(read.shape[1] - 1) // CELL
    cells = reduce(read[:, 1:], "n (h a w b) c -> n (h w) c", "mean", h=side, w=side, a=CELL, b=CELL)
    states = torch.cat([read[:, :1], cells], dim=1)
    return Inputs(states, torch.ones(states.shape[:2], dtype=torch.bool))


@torch.no_grad()
def _captions(base: DualEncoder, rows: Sequence[Example]) -> Inputs:
    text: Any = base.towers.text
    tokens = base.towers.tokens([row.caption or "" for row in rows], 0)
    states = text(**tokens, output_hidden_states=True).hidden_states[-2]
    return Inputs(states, tokens["attention_mask"].bool())


def given_to(pool: Pool, source: Source, places: Order, parts: Sequence[Order], draws: random.Random) -> Inputs:
    """One modality of the records at `places`.

    Args:
        pool: All records.
        source: Whose.
        places: The records.
        parts: Of the pool. What is always the same comes from the next record of the same part, what is drawn anew
            from the last part: of neither members nor others.
        draws: Of what is drawn anew.
    """
    if not source:
        width = pool.inputs["picture"].states.shape[2]
        return Inputs(torch.zeros(len(places), 1, width), torch.ones(len(places), 1, dtype=torch.bool))
    name, _, whose = source.partition(" ")
    if not whose:
        return pool.inputs[name].of(places)
    if whose == ANEW.strip():
        return pool.inputs[name].of(parts[-1][[draws.randrange(len(parts[-1])) for _ in places]])
    turned = {int(one): int(other) for part in parts for one, other in zip(part, part.roll(1), strict=True)}
    return pool.inputs[name].of(torch.tensor([turned[int(place)] for place in places]))


def trained(
    pool: Pool, variant: Variant, parts: Sequence[Order], which: int, seed: int,
    checkpoints: Sequence[int] = CHECKPOINTS,
) -> Iterator[Model]:  # fmt: skip
    """The model after each of the passes over one part of the pool, at a constant rate; always the same object."""
    part = parts[which]
    model = Model(pool.inputs["picture"].states.shape[2], int(pool.labels.max()) + 1, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for passed in range(checkpoints[-1] + 1):
        if passed in checkpoints:
            yield model
        draws = random.Random(f"modalities {seed} {passed}")
        order = part[draws.sample(range(len(part)), len(part))]
        for places in order.split(BATCH):
            sources = (variant.first, variant.second)
            first, second = (given_to(pool, source, places, parts, draws) for source in sources)
            features = model.features((first, second))
            loss = cross_entropy(model.head(torch.cat(features, dim=1)), pool.labels[places])
            if variant.contrastive:
                unit = [normalize(one, dim=1) for one in features]
                loss = loss + contrastive_loss(unit[0], unit[1], SCALE)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()


@torch.no_grad()
def told(
    model: Model, pool: Pool, sources: tuple[Source, Source], places: Order, parts: Sequence[Order]
) -> tuple[Float[Tensor, " record"], Float[Tensor, " record"], Float[Tensor, " record"]]:
    """Of each record its loss, whether its kind is told right, and the cosine of the two towers.

    Means over draws where a modality is drawn anew.
    """
    draws = random.Random("modalities told")
    count = DRAWN if any(source.endswith(ANEW) for source in sources) else 1
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(count):
        first, second = (given_to(pool, source, places, parts, draws) for source in sources)
        features = model.features((first, second))
        logits = model.head(torch.cat(features, dim=1))
        own = pool.labels[places]
        cosines = (normalize(features[0], dim=1) * normalize(features[1], dim=1)).sum(1)
        found.append((cross_entropy(logits, own, reduction="none"), (logits.argmax(1) == own).float(), cosines))
    losses, right, cosines = (torch.stack(one).mean(0) for one in zip(*found, strict=True))
    return losses, right, cosines


def measured(pool: Pool, name: str, seed: int, checkpoints: Sequence[int] = CHECKPOINTS) -> dict[str, Any]:
    """One variant on the parts of one seed: utility and what each attack reaches, by checkpoint."""
    variant, parts, began = VARIANTS[name], pool.parts(seed), time.process_time()
    shown = (variant.first, variant.second)
    asked = {"": shown}
    if variant.second == "caption" != variant.first:
        asked |= {", caption withheld": (variant.first, ""), ", picture withheld": ("", variant.second)}
    found: dict[str, list[float]] = {}
    models = [trained(pool, variant, parts, which, seed, checkpoints) for which in (0, 2)]
    for model, reference in zip(*models, strict=True):
        for what, sources in asked.items():
            members, others, held = (told(model, pool, sources, parts[k], parts) for k in (0, 1, 3))
            known = [told(reference, pool, sources, part, parts)[0] for part in parts[:2]]
            scores = {
                "loss": (-members[0], -others[0]),
                "reference": (known[0] - members[0], known[1] - others[0]),
                **({"cosine": (members[2], others[2])} if variant.contrastive and not what else {}),
            }
            row = {"utility": float(held[1].mean())}
            for attack, (own, other) in scores.items():
                row[attack] = auroc(own.tolist(), other.tolist())
                row[f"{attack}, TPR"] = tpr_at(own.tolist(), other.tolist())
            for key, value in row.items():
                found.setdefault(f"{key}{what}", []).append(round(value, 5))
    return {"variant": name, "seed": seed, "seconds": round(time.process_time() - began, 1), **found}


def blind(pool: Pool, seed: int) -> dict[str, list[float]]:
    """AUROC of the baselines that know no model, with their intervals."""
    members, others, *_ = pool.parts(seed)
    places = [*members.tolist(), *others.tolist()]
    known = [True] * len(members) + [False] * len(others)
    rows = [pool.rows[k] for k in places]
    found: dict[str, list[float]] = {}
    for name, column in blind_columns(rows, seed, known).items():
        kinds: tuple[dict[str, list[float]], ...] = ({}, {})
        for row, score, own in zip(rows, column, known, strict=True):
            kinds[not own][row.id] = [score]
        found[name] = [round(value, 5) for value in separation(*kinds, seed=0).auroc]
    return found


def _measure(runs: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    pool = pool_of(load_dual(phantom_clip(), name="phantom-clip"))
    for seed in seeds:
        _keep(runs, {"variant": "blind", "seed": seed, **blind(pool, seed)})
        for name in names:
            _keep(runs, measured(pool, name, seed))


def _keep(file: Path, run: Mapping[str, Any]) -> None:
    names = ["blind", *VARIANTS]
    keep_run(file, run, ("variant", "seed"), lambda one: (names.index(one["variant"]), one["seed"]))
    print(json.dumps(run), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--runs", type=Path, default=RUNS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    _measure(asked.runs, asked.variants, asked.seeds)
