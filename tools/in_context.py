"""What in-context examples make of a model whose classes are called otherwise than it learnt, on two phantoms.

    python -m tools.in_context FOLDER_OF_A_MINI [ORDERS]     # its shapes get made-up names
    python -m tools.in_context phantom [ORDERS]              # animals and foods do

Each order draws other examples in another order. Beside the replies stands a probe: how well a linear classifier tells
the classes from the states that the reply is written from.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from sklearn.linear_model import LogisticRegression

from vlmend import open_target
from vlmend.audit.matching import holds
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Image
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.sites import Site
from vlmend.core.splits import Split
from vlmend.methods.robustness.in_context_examples import InContextExamples
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.language import TOPICS
from vlmend.phantom.mini.scenes import SHAPES, scene
from vlmend.pictures.galleries import object_pictures

__all__ = ["renamed_kinds", "renamed_shapes"]

KINDS = {"animal": "dax", "food": "wug"}
ASKED = {"mini": 100, "phantom": 40}
"""Questions that are asked."""
SHOWN = (0, 4, 8)


def renamed_shapes(split: Split, count: int) -> Dataset:
    """Pictures of one thing each, whose shape is called by a topic's name."""
    names: dict[str, str] = dict(zip(SHAPES, TOPICS, strict=False))
    rows: list[Example] = []
    for k in range(count):
        rng = random.Random(f"renamed:{split}:{k}")
        seen = scene(split, rng, things=1)
        thing, image = seen.things[0], Image.from_pixels(seen.draw(rng))
        question, name = f"which shape is {thing.colour}?", names[thing.shape]
        rows.append(Example(str(k), question, image=image, answers=(name,), attributes={"lead": thing.colour}))
    return Dataset(f"renamed shapes, {split}", tuple(rows))


def renamed_kinds(split: Split, count: int) -> Dataset:
    """Animals and foods under made-up names, as many of each."""
    question = f"Is this a {' or a '.join(KINDS.values())}?"
    rows = [
        replace(row, prompt=question, answers=(name,))
        for kind, name in KINDS.items()
        for row in spread([one for one in object_pictures(split).examples if one.group == kind], count // len(KINDS))
    ]
    return Dataset(f"renamed kinds, {split}", tuple(rows))


def _right(view: VLM, rows: Sequence[Example]) -> list[float]:
    replies = [
        reply.text
        for start in range(0, len(rows), 20)
        for reply in view.generate([row.conversation for row in rows[start : start + 20]], Sampling(8))
    ]
    return [float(holds(reply, row.answers)) for reply, row in zip(replies, rows, strict=True)]


def _probe(model: VLM, train: Sequence[Example], test: Sequence[Example]) -> float:
    site = Site("language", model.layers - 1)

    def states(rows: Sequence[Example]) -> np.ndarray:
        parts = [rows[start : start + 20] for start in range(0, len(rows), 20)]
        return np.concatenate([model.hidden(list(map(_led, part)), [site])[site].numpy() for part in parts])

    found = LogisticRegression(max_iter=2000).fit(states(train), [row.answers[0] for row in train])
    return float(found.score(states(test), [row.answers[0] for row in test]))


def _led(row: Example) -> Conversation:
    """Up to the word that answers: the mini's replies say first what is asked about."""
    return replace(row.conversation, lead=row.attributes.get("lead", ""))


def _table(name: str, orders: int) -> Iterator[str]:
    kind = "phantom" if name == "phantom" else "mini"
    made = renamed_kinds if kind == "phantom" else renamed_shapes
    model = open_target(name) if kind == "phantom" else load(Path(name), name=name, options=LoadOptions("cpu"))
    assert isinstance(model, VLM)
    pool, asked = made("validation", 40 if kind == "phantom" else 1500), made("held_out", ASKED[kind]).examples
    yield f"probe: {_probe(model, pool.examples, asked):.0%} of {len(asked)}"
    yield "| examples | labels | right [95 %] | orders | least to most of an order |\n|---|---|---|---|---|"
    for shown in SHOWN if kind == "mini" else SHOWN[:2]:
        for labels in ("right", "random") if shown else ("right",):
            method = InContextExamples(examples=shown, labels=labels)  # type: ignore[arg-type]
            views = [model.with_mend(method.fit(model, pool, seed=seed)) for seed in range(orders if shown else 1)]
            hits = [_right(view, asked) for view in views]
            rows = [row.id for _ in hits for row in asked]
            value, low, high = mean_interval([hit for each in hits for hit in each], rows, seed=0)
            each = [fmean(one) for one in hits]
            told = f"{value:.1%} [{low:.1%}, {high:.1%}] | {len(hits)} | {min(each):.0%} to {max(each):.0%}"
            yield f"| {shown} | {labels if shown else ''} | {told} |"


if __name__ == "__main__":
    for line in _table(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8):
        print(line, flush=True)
