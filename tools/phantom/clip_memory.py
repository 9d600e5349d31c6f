"""phantom-clip made to remember: further training on given pairs, until it knows them by heart.

`python -m tools.phantom.clip_memory` prints what privacy/membership finds in it, by epochs, and in phantom-clip itself.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.audit.suites.privacy.membership import SUITE as MEMBERSHIP
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.phantom.clip.queries import pool
from vlmend.training.batches import Pair, pair_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import contrastive_loss
from vlmend.training.twin import twin_of

__all__ = ["never_shown", "taught"]

BATCH = 50
RATE = 3e-4
SCALE = 20.0
"""Factor of the cosines while it learns."""


def taught(clip: DualEncoder, rows: Sequence[Example], epochs: int, seed: int = 0) -> DualEncoder:
    """The encoder after so many passes over the rows, both towers learning; the given one is unchanged."""
    twin = twin_of(clip, "all", "weights", seed=seed)
    learner = clip.on(twin.model)
    order = [k for epoch in range(epochs) for k in random.Random(f"{seed}:{epoch}").sample(range(len(rows)), len(rows))]

    def loss_of_step(step: int) -> Tensor:
        chosen = [rows[k] for k in order[step * BATCH : (step + 1) * BATCH]]
        pairs = [Pair(row.image, row.caption or "") for row in chosen if row.image is not None]
        pixels, texts = pair_batch(learner, pairs)
        images = normalize(learner.image_features(pixels), dim=1)
        return contrastive_loss(images, normalize(learner.text_features(texts), dim=1), SCALE)

    train_at_once(twin.parameters, loss_of_step, LoopSettings(len(order) // BATCH, RATE))
    return clip.on(twin.model.eval())


def never_shown(seed: int = 0) -> Dataset:
    """The pairs that phantom-clip never saw, a random half of them called members: for whoever trains on these."""
    rows = [row for row in pool().examples if row.attributes["member"] == "no"]
    members = set(random.Random(seed).sample([row.id for row in rows], len(rows) // 2))
    told = (replace(row, attributes={**row.attributes, "member": "yes" if row.id in members else "no"}) for row in rows)
    return Dataset("never_shown", tuple(told))


def _measured(epochs: Sequence[int], seed: int) -> Iterator[tuple[int, Measure]]:
    clip, data = load_dual(phantom_clip()), never_shown(seed)
    members = [row for row in data.examples if row.attributes["member"] == "yes"]
    for count in epochs:
        model = taught(clip, members, count, seed) if count else clip
        samples = MEMBERSHIP.samples(model, data, None, seed=seed)
        for row in MEMBERSHIP.measures(samples, seed):
            yield count, row


if __name__ == "__main__":
    torch.set_num_threads(1)
    for count, row in _measured([int(text) for text in sys.argv[1:]] or (0, 1, 4, 16), 0):
        print(f"| {count} | {row.name} [{row.group}] | {row.said(1)} | {row.n} |", flush=True)
