"""What federated and adversarial_privacy make of phantom-clip: what is learnt, what it costs, what is given away.

    python -m tools.shared_training federated      # adds to RUNS
    python -m tools.shared_training leakage        # prints what a client's update gives back of its pictures
    python -m tools.shared_training adversarial    # adds to RUNS
    python -m tools.shared_training pages          # writes the tables anew

federated: things on a ground of light and shade, by their names, held-out pictures. adversarial_privacy: the pairs that
phantom-clip never saw, dealt at random in three: trained on, kept aside, seen by nobody. A fresh adversary of the
method's own kind is taught on half of the members and of the unseen pairs, and asked about the other half.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.measuring import PAGES, Number, changed, number, pgd, share, survived, write_pages
from tools.phantom.clip_memory import never_shown
from vlmend.audit.suites.privacy.gradient_inversion import RIDGES, Room
from vlmend.core.examples import Dataset, Example
from vlmend.core.metrics.membership import separation
from vlmend.core.metrics.reconstruction import psnr
from vlmend.core.metrics.resampling import mean_interval
from vlmend.methods.adversary import Guesser
from vlmend.methods.privacy.adversarial_privacy import TELLTALES, AdversarialPrivacy, telltales
from vlmend.methods.privacy.federated import Federated
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.galleries import PHOTO, object_pictures, shifted_objects
from vlmend.pictures.named import named_pictures, pairs_in
from vlmend.training.federated import Rounds, local_update
from vlmend.training.inversion import Shared, inside
from vlmend.training.twin import twin_of

RUNS = PAGES / "shared_training.json"
LONG: Mapping[str, Any] = {"rounds": 10, "local": 4}
FEDERATED: tuple[Mapping[str, Any], ...] = (
    {"clients": 1, "batch": 128}, {}, {"alpha": 0.1}, {"alpha": 0.1, "mu": 1.0},
)  # fmt: skip
ADVERSARIAL: tuple[Mapping[str, Any], ...] = (
    {"hide": 0.0},
    {"hide": 1.0},
    {"hide": 10.0},
    {"hide": 0.0, "epsilon": 4 / 255},
)
MEMORY: Mapping[str, Any] = {"steps": 50, "rate": 3e-4}
FRESH = 300
"""Steps of the fresh adversary."""

COLUMNS = {
    "ground": "ground", "clean": "objects", "unseen pairs found": "pairs",
    "cosine, AUROC": "cosine", "fresh adversary, AUROC": "fresh", "TPR at 1 % FPR": "tpr",
    "right under PGD 4/255": "pgd",
}  # fmt: skip


def told_right(view: DualEncoder) -> dict[str, Number]:
    """Shares of 267 held-out objects whose name is the nearest text of all, clean and on a ground."""
    names = sorted({row.answers[0] for row in object_pictures("held_out").examples if row.answers})
    texts = view.embed_texts([PHOTO.format(name) for name in names])

    def right(shift: str | None) -> Number:
        rows = [row for row in shifted_objects("held_out", 267).examples if row.attributes.get("shift") == shift]
        found = (view.embed_images([row.image for row in rows if row.image]) @ texts.T).argmax(1).tolist()
        return share([names[k] == row.answers[0] for k, row in zip(found, rows, strict=True)])

    return {"ground": right("ground"), "objects": right(None)}


def dealt(seed: int) -> Dataset:
    """Pairs that phantom-clip never saw: a third members, a third reference, a third for nobody."""
    rows = list(never_shown().examples)
    random.Random(f"adversarial privacy {seed}").shuffle(rows)
    told = ("yes", "reference", "no")
    return Dataset(
        "dealt",
        tuple(replace(row, attributes={**row.attributes, "member": told[k % 3]}) for k, row in enumerate(rows)),
    )


def given_away(view: DualEncoder, data: Dataset, seed: int) -> dict[str, Number]:
    """AUROC of the cosine and of a fresh adversary, its rate at 1 %, and what unseen pairs are still good for."""
    kinds = [[row for row in data.examples if row.attributes["member"] == kind] for kind in ("yes", "no")]
    numbers = [_numbers(view, rows) for rows in kinds]
    scores = [torch.zeros(len(rows)) for rows in kinds]
    for half in (0, 1):
        h = Guesser(TELLTALES, 2, seed, normed=False)
        taught = [one[half::2] for one in numbers]
        labels = torch.tensor([1] * len(taught[0]) + [0] * len(taught[1]))
        h.learn(torch.cat(taught), labels, FRESH)
        for one, score in zip(numbers, scores, strict=True):
            told = h(one[1 - half :: 2]).detach()
            score[1 - half :: 2] = told[:, 1] - told[:, 0]
    n = sum(map(len, kinds))
    by = {
        name: separation(*({str(k): [float(x)] for k, x in enumerate(of)} for of in each), seed=seed)
        for name, each in (("cosine", [one[:, 0] for one in numbers]), ("fresh", scores))
    }
    return {
        "cosine": number(by["cosine"].auroc, n), "fresh": number(by["fresh"].auroc, n),
        "tpr": number(by["fresh"].tpr, n), "pairs": _found(view, kinds[1]),
    }  # fmt: skip


def _numbers(view: DualEncoder, rows: Sequence[Example]) -> Tensor:
    known = pairs_in(rows)
    texts = view.embed_texts([known.texts[right] for right in known.right])
    return telltales(view.embed_images(known.images), texts, float(view.towers.scale))


def _found(view: DualEncoder, rows: Sequence[Example]) -> Number:
    """Share of pictures that find their caption among those of all."""
    known = pairs_in(rows)
    found = (view.embed_images(known.images) @ view.embed_texts(known.texts).T).argmax(1).tolist()
    return share([a == b for a, b in zip(found, known.right, strict=True)])


def leaked(base: DualEncoder, batch: int, local: int, seed: int, count: int = 4) -> tuple[Number, Number]:
    """PSNR of what the closed form makes of a client's update of all weights, and that of the mean picture.

    The server divides the update by rate and steps, and chooses the ridge on public pictures that go the same way.
    """
    rows = [row for row in object_pictures("held_out").examples if row.answers]
    random.Random(f"leaked {seed}").shuffle(rows)
    public, private = rows[:64], rows[64 : 64 + count * batch]
    room = Room(base, [replace(row, caption=PHOTO.format(row.answers[0])) for row in public], seed)
    method = Federated(clients=1, rounds=1, local=local, batch=batch, train="weights")

    def update(some: Sequence[Example]) -> Shared:
        twin = twin_of(base, "all", "weights", seed=seed)
        known = named_pictures(Dataset("client", tuple(some)))
        (client,) = method.parties(base, twin, known, [range(len(some))], seed)
        held = inside(twin.model, base.on(twin.model).towers.vision)
        assert held is not None
        before = [one.detach().clone() for one in twin.parameters]
        after = local_update(twin.parameters, before, client, Rounds(1, local, method.rate), 0)
        moved = {id(p): (b - a).double() / method.rate for p, b, a in zip(twin.parameters, before, after, strict=True)}
        return Shared(moved[id(held.patches)].flatten(1), moved[id(held.places)], None, 1.0)

    def scored(some: Sequence[Example], seen: Shared, ridge: float) -> list[float]:
        picture = room.picture(seen, ridge).numpy()
        return [psnr(picture, one.double().numpy()) for one in room.pixels(some).values]

    tried = public[:batch]
    ridge = max(RIDGES, key=lambda one: float(np.mean(scored(tried, update(tried), one))))
    parts = [private[k : k + batch] for k in range(0, len(private), batch)]
    found = [value for part in parts for value in scored(part, update(part), ridge)]
    mean = room.mean.double().numpy()
    floor = [psnr(mean, one.double().numpy()) for one in room.pixels(private).values]
    clusters = [k // batch for k in range(len(private))]
    ours, none = (number(mean_interval(each, clusters, seed=0), len(each)) for each in (found, floor))
    return ours, none


def _kept(file: Path, run: dict[str, Any]) -> None:
    """Add a run to the file, in which others may have written meanwhile."""
    runs = json.loads(file.read_text()) if file.exists() else []
    file.write_text(json.dumps([*runs, run], indent=1) + "\n")
    print(run, flush=True)


def _federated(base: DualEncoder, runs: Path, seeds: Sequence[int]) -> None:
    for seed in seeds:
        for told in FEDERATED:
            method, began = Federated(**{**LONG, **told}), time.process_time()
            mend = method.fit(base, method.builtin(), seed=seed)
            values = told_right(base.with_mend(mend))
            cost = {"seconds": round(time.process_time() - began, 1), "dose": mend.card.dose}
            _kept(runs, {"method": "federated", "seed": seed, "set": changed(method), "values": values, **cost})


def _adversarial(base: DualEncoder, runs: Path, seeds: Sequence[int]) -> None:
    for seed in seeds:
        data = dealt(seed)  # pairs of nobody are left out by the method
        for told in ADVERSARIAL:
            method, began = AdversarialPrivacy(**{**MEMORY, **told}), time.process_time()
            view = base.with_mend(method.fit(base, data, seed=seed))
            cost = {"seconds": round(time.process_time() - began, 1)}
            attacked = {"pgd": share(survived(pgd(view, 4, steps=5, pictures=30)))}
            values = given_away(view, data, seed) | {"objects": told_right(view)["objects"]} | attacked
            _kept(runs, {"method": method.name, "seed": seed, "set": changed(method), "values": values, **cost})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("federated", "leakage", "adversarial", "pages"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=RUNS)
    told = parser.parse_args()
    torch.set_num_threads(1)
    runs: Path = told.runs
    if told.what == "pages":
        write_pages("shared", json.loads(runs.read_text()), COLUMNS)
        return
    base = load_dual(phantom_clip(), name="phantom-clip")
    if told.what == "leakage":
        for batch, local in ((2, 1), (8, 1), (32, 1), (8, 4)):
            print(batch, local, *leaked(base, batch, local, told.seeds[0]), flush=True)
        return
    if not runs.exists():
        data, values = dealt(0), told_right(base)
        _kept(runs, {"method": "none", "seed": 0, "set": {}, "values": values | given_away(base, data, 0)})
    (_federated if told.what == "federated" else _adversarial)(base, runs, told.seeds)


if __name__ == "__main__":
    main()
