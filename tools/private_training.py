"""What dp_clip makes of phantom-clip at several promises: what it learns, what it costs, what planted pairs give away.

    python -m tools.private_training measure      # adds to RUNS: three seeds, each without a promise and with several
    python -m tools.private_training pages        # writes the tables and the picture anew

Beside the built-in pairs stand canaries: pictures of things that the model has no name for, each with the name of
another thing drawn evenly, shown 0, 1 or 64 times. The attack knows the model before and after: it ranks the name by
how much its cosine with the picture grew, among 255 other names drawn evenly. Of a name that was not shown every rank
is as likely: 1.42 bits by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor
from torch.nn.functional import normalize

from tools.measuring import PAGES, ROOT, Number, number, share, write_pages
from vlmend.core.metrics.exposure import exposure, exposure_by_chance
from vlmend.core.metrics.resampling import mean_interval
from vlmend.methods.privacy.dp_clip import DpClip, Embedded, embedded
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.galleries import PHOTO, object_pictures
from vlmend.report.figures import COLOURS, GRID, INK, STYLE
from vlmend.training.private import ledger_for

RUNS = PAGES / "private_training.json"
PICTURE = ROOT / "docs" / "pictures" / "epsilon.png"
PROMISES = (math.inf, 8.0, 2.0, 1.0)
SEEDS = (0, 1, 2)
SHOWN = (0, 1, 64)
OTHERS = 255

COLUMNS = {
    "kinds told": "kinds", "objects told": "objects",
    "exposure, never shown": "bits 0", "shown once": "bits 1", "64 times": "bits 64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bench:
    """All that is embedded once."""

    pairs: Embedded
    pictures: Tensor
    kinds: tuple[Tensor, Tensor]
    objects: tuple[Tensor, Tensor]
    strange: Tensor
    names: Tensor


def bench_of(base: DualEncoder) -> Bench:
    """Training pairs, held-out pictures with their kinds and names, and pictures of unknown things."""
    rows = [row for row in object_pictures("held_out").examples if row.image is not None]
    known, unknown = ([row for row in rows if bool(row.answers) is told] for told in (True, False))

    def told(names: Sequence[str]) -> tuple[Tensor, Tensor]:
        each = sorted(set(names))
        return base.embed_texts([PHOTO.format(one) for one in each]), torch.tensor([each.index(one) for one in names])

    kinds, objects = told([row.group for row in known]), told([row.answers[0] for row in known])
    seen, strange = (base.embed_images([row.image for row in part if row.image]) for part in (known, unknown))
    return Bench(embedded(base, DpClip().builtin()), seen, kinds, objects, strange, objects[0])


def planted(bench: Bench, seed: int) -> tuple[Embedded, list[tuple[int, int, int]]]:
    """The pairs with the canaries among them; of each canary its picture, its name, and how often it is shown."""
    rng = random.Random(f"dp_clip canaries {seed}")
    canaries = [(k, rng.randrange(len(bench.names)), SHOWN[k % len(SHOWN)]) for k in range(len(bench.strange))]
    copies = [(picture, name) for picture, name, count in canaries for _ in range(count)]
    pictures, names = (torch.tensor([pair[side] for pair in copies]) for side in (0, 1))
    pairs = bench.pairs
    first = int(pairs.alike.max()) + 1
    return Embedded(
        torch.cat([pairs.images, bench.strange[pictures]]), torch.cat([pairs.texts, bench.names[names]]),
        torch.cat([pairs.alike, first + names]), pairs.scale,
    ), canaries  # fmt: skip


def measured(bench: Bench, epsilon: float, seed: int) -> dict[str, Number]:
    """One fit and its numbers."""
    method = DpClip(epsilon=8.0 if math.isinf(epsilon) else epsilon)
    pairs, canaries = planted(bench, seed)
    sampling = method.batch / len(pairs.images)
    draws = Generator().manual_seed(seed)
    if math.isinf(epsilon):
        matrix = method.trained(pairs, 0.0, math.inf, sampling, seed, draws)
    else:
        ledger = ledger_for(epsilon, method.delta, sampling, method.steps)
        matrix = method.trained(pairs, ledger.noise, method.clip, sampling, seed, draws)
    return numbers(bench, matrix, canaries, seed)


def numbers(bench: Bench, matrix: Tensor, canaries: Sequence[tuple[int, int, int]], seed: int) -> dict[str, Number]:
    """Of a map: what is named right, and the exposure of the canaries."""
    seen, strange = (normalize(one @ matrix.T, dim=1) for one in (bench.pictures, bench.strange))
    found = {
        name: share(((seen @ texts.T).argmax(1) == right).tolist())
        for name, (texts, right) in (("kinds", bench.kinds), ("objects", bench.objects))
    }
    grown = (strange - bench.strange) @ bench.names.T
    bits: dict[int, list[float]] = {count: [] for count in SHOWN}
    ranked = exposures_of(grown[[picture for picture, _, _ in canaries]], [name for _, name, _ in canaries], seed)
    for (_, _, count), told in zip(canaries, ranked, strict=True):
        bits[count].append(told)
    for count, each in bits.items():
        found[f"bits {count}"] = number(mean_interval(each, range(len(each)), seed=0), len(each))
    return found


def exposures_of(grown: Tensor, names: Sequence[int], seed: int) -> list[float]:
    """Of each picture: the exposure of its name by how much its cosine grew, among others drawn evenly.

    Args:
        grown: How much the cosine grew, "picture name".
        names: The place of each picture's own name.
        seed: Of the others.
    """
    rng, found = random.Random(f"other names {seed}"), list[float]()
    for row, name in zip(grown, names, strict=True):
        others = rng.sample([one for one in range(len(row)) if one != name], OTHERS)
        found.append(exposure(float(row[name]), row[others].tolist()))
    return found


def drawn(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """What is learnt, what it costs and what is exposed, against epsilon; a dot a seed, a line through their means."""
    panels = {"kinds": "kinds told", "objects": "objects told", "bits 64": "bits, shown 64 times"}
    base = next(run for run in runs if run["method"] == "none")
    fits = [run for run in runs if run["method"] != "none"]
    places = sorted(PROMISES)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 2.8), layout="constrained")
        for k, (axes, (name, told)) in enumerate(zip(figure.subplots(1, len(panels)), panels.items(), strict=True)):
            each = [[run["values"][name][0] for run in fits if _promise(run) == epsilon] for epsilon in places]
            axes.plot(range(len(places)), [fmean(own) for own in each], "-", lw=1.3, color=COLOURS[k])
            for place, own in enumerate(each):
                axes.plot([place] * len(own), own, "o", ms=4, color=COLOURS[k])
            floor = base["values"][name][0] if name in base["values"] else exposure_by_chance(OTHERS + 1)
            axes.axhline(floor, ls=":", lw=0.9, color=INK)
            axes.set_xticks(range(len(places)), ["none" if math.isinf(one) else f"{one:g}" for one in places])
            axes.set(xlabel="epsilon", title=told, ylim=(0, None))
            axes.grid(axis="y", color=GRID, lw=0.8)
            axes.set_axisbelow(True)
        return figure


def _promise(run: Mapping[str, Any]) -> float:
    told = run["set"]["epsilon"]
    return math.inf if told == "none" else float(told)


def _measure() -> None:
    bench = bench_of(load_dual(phantom_clip(), name="phantom-clip"))
    _, canaries = planted(bench, 0)
    base = numbers(bench, torch.eye(bench.names.shape[1]), canaries, 0)
    values = {name: base[name] for name in ("kinds", "objects")}
    runs: list[dict[str, Any]] = [{"method": "none", "seed": 0, "set": {}, "values": values}]
    for epsilon in PROMISES:
        for seed in SEEDS:
            told = {"epsilon": "none" if math.isinf(epsilon) else epsilon}
            runs.append({"method": "dp_clip", "seed": seed, "set": told, "values": measured(bench, epsilon, seed)})
            print(runs[-1], flush=True)
            RUNS.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "pages"))
    if parser.parse_args().what == "measure":
        _measure()
    else:
        write_pages("private", json.loads(RUNS.read_text()), COLUMNS)
        drawn(json.loads(RUNS.read_text())).savefig(PICTURE, dpi=150)
