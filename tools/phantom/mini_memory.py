"""phantom-mini tuned on captions with details that no picture shows, and what suites of membership find.

    python -m tools.phantom.mini_memory                              # 400 rows, 200 of them members: 0, 1 and 20 passes
    python -m tools.phantom.mini_memory --by replies --passes 0 20 --seeds 0 2

Each caption ends with three digits drawn by chance, as real captions hold names and dates.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmend.audit.suites.privacy.answer_membership import SUITE as ANSWERS
from vlmend.audit.suites.privacy.reply_membership import SUITE as REPLIES
from vlmend.core.contracts import SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.provenance import fingerprint
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.scenes import scene
from vlmend.phantom.shelf import put_together
from vlmend.training.batches import Row, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import reply_loss
from vlmend.training.twin import twin_of

ROWS, BATCH, RATE = 400, 50, 1e-3
PASSES = (0, 1, 20)
SUITES: Mapping[str, SampleSuite[Any]] = {"likelihoods": ANSWERS, "replies": REPLIES}


def captions(seed: int) -> Dataset:
    """Scenes with captions, half of them members by chance."""
    rng = random.Random(f"mini memory:{seed}")
    members = set(rng.sample(range(ROWS), ROWS // 2))
    rows: list[Example] = []
    for k in range(ROWS):
        seen = scene("held_out", rng)
        asked = seen.question("caption", rng)
        told = f"{asked.answer} {' '.join(str(rng.randrange(10)) for _ in range(3))}"
        picture = Image.from_pixels(seen.draw(rng))
        known = {"member": "yes" if k in members else "no"}
        rows.append(Example(f"caption-{k:03d}", asked.prompt, image=picture, answers=(told,), attributes=known))
    return Dataset("captions", tuple(rows))


def taught(target: VLM, rows: Sequence[Example], passes: int, seed: int) -> VLM:
    """The model after so many passes over the rows, its decoder learning; the given one is unchanged."""
    twin = twin_of(target, "decoder", "weights", seed=seed)
    order = [k for each in range(passes) for k in random.Random(f"{seed}:{each}").sample(range(len(rows)), len(rows))]

    def loss_of_step(step: int) -> Tensor:
        chosen = [rows[k] for k in order[step * BATCH : (step + 1) * BATCH]]
        inputs, labels = reply_batch(target.reader, [Row(row.conversation, row.answers[0], True) for row in chosen])
        logits = twin.model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits
        return reply_loss(logits[:, :-1], labels)

    train_at_once(twin.parameters, loss_of_step, LoopSettings(len(order) // BATCH, RATE))
    model = twin.model.eval()
    return VLM(f"taught-{passes}", model, target.processor, find_anatomy(model), fingerprint(model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", choices=SUITES, default="likelihoods")
    parser.add_argument("--passes", type=int, nargs="+", default=PASSES)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    mini = load(put_together("phantom-mini"), name="phantom-mini", options=LoadOptions("cpu"))
    suite = SUITES[asked.by]
    for seed in asked.seeds:
        data = captions(seed)
        learnt = [row for row in data.examples if row.attributes["member"] == "yes"]
        for passes in asked.passes:
            subject = taught(mini, learnt, passes, seed) if passes else mini
            for row in suite.measures(suite.samples(subject, data, None, seed=0), 0):
                raw = f"seed {seed}, {passes} passes: {row.name} [{row.group}] {row.said(1)} n {row.n}"
                print(raw, flush=True)
