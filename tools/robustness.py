"""What fitted mends make of phantom-clip, and the tables of their pages, which are written from it.

    python -m tools.robustness measure MEND_FOLDER ... [--epsilons 4,5] [--parts halves]   # adds rows to RUNS
    python -m tools.robustness pages         # writes the tables anew

A mend folder is what `vlmend mend NAME phantom-clip --out FOLDER` wrote; FOLDER@0.5 is half as strong, and `none` the
base. A run that is measured again keeps the numbers that were not asked for this time. Parts: `shifts`, `attacks` and
`pairs` unless said otherwise; `transferred`, the pictures of an attack on the base; `halves`, the things of each half
among their own names (`vlmend.methods.prompting`: one half is learnt, one is new). On a page,
`<!-- runs: NAME NAME -->` begins a table of the base and the runs of these methods, `<!-- end -->` ends it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tools.measuring import PAGES, ROOT, Number, changed, number, pgd, share, survived, write_pages
from tools.measuring import page_of as page_with
from tools.measuring import table as table_of
from vlmend.attacks.running import own_pictures
from vlmend.audit.suites.robustness.calibration import SUITE
from vlmend.core.examples import Dataset, Example, class_names
from vlmend.core.mend import Mend
from vlmend.core.metrics.detection import detection
from vlmend.core.metrics.modality import gap_shares
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.targets import DualGradients
from vlmend.methods.prompting import every_second_thing
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.galleries import PHOTO, object_pictures, shifted_objects

__all__ = ["ROOT", "RUNS", "measured", "page_of", "table"]

RUNS = PAGES / "robustness.json"

SHIFTED = "rotation, blur, style"
"""Shifts that no mend here is trained on, taken together."""
THINGS = 267
"""Things that are shown, half of all, clean and under each shift."""
STEPS = 20
PICTURES = 150
"""Of PGD, and pictures that it attacks."""

COLUMNS = {
    "clean": "accuracy clean", "attacked 4/255": "attacked 4/255", "attacked 5/255": "attacked 5/255",
    "4/255, attack on the base": "transferred 4/255",
    "ground": "accuracy ground", SHIFTED: f"accuracy {SHIFTED}", "ECE, clean": "ece clean",
    f"ECE, {SHIFTED}": f"ece {SHIFTED}", "unknown things, AUROC": "auroc",
    "picture finds name": "names", "name finds picture": "pictures", "gap": "gap",
    "learnt, clean": "learnt clean", "learnt, ground": "learnt ground", "new, clean": "new clean",
    "new, ground": "new ground",
}  # fmt: skip
"""Headings of a table, and the values below them."""

PARTS = ("shifts", "attacks", "pairs")
"""What is measured unless said otherwise."""

Values = Mapping[str, Number]


def measured(view: DualGradients, epsilons: Sequence[int], parts: Sequence[str] = PARTS) -> Values:
    """The numbers of one view of phantom-clip, on held-out pictures."""
    found: dict[str, Number] = {}
    if "shifts" in parts:
        found |= _shifted(view)
    if "attacks" in parts:
        found |= {f"attacked {epsilon}/255": _attacked(view, epsilon) for epsilon in epsilons}
    if "transferred" in parts:
        found |= {f"transferred {epsilon}/255": _transferred(view, epsilon) for epsilon in epsilons}
    if "pairs" in parts:
        found |= _paired(view)
    if "halves" in parts:
        found |= _of_halves(view)
    return found


def _shifted(view: DualGradients) -> dict[str, Number]:
    """Accuracy and ECE among all known names, clean, on grounds, and under the shifts that no mend is trained on."""
    rows = shifted_objects("held_out").examples
    spread = Dataset("every second thing first", (*rows[::2], *rows[1::2]))
    samples = [
        replace(one, group=one.group if one.group in ("clean", "ground") else SHIFTED)
        for one in SUITE.samples(view, spread, THINGS, seed=0)
    ]
    return {
        f"{row.name} {row.group}": (row.value, row.low, row.high, row.n)
        for row in SUITE.measures(samples, 0)
        if row.name in ("accuracy", "ece")
    }


def _attacked(view: DualGradients, epsilon: int) -> Number:
    """Share that is named right under PGD."""
    return share(survived(_pgd(view, epsilon)))


def _transferred(view: DualGradients, epsilon: int) -> Number:
    """Share that is named right of the pictures that PGD made against the base."""
    return share(_right(view, _pgd(view.bare, epsilon), class_names(own_pictures())))


def _of_halves(view: DualGradients) -> dict[str, Number]:
    """Clean and on grounds: things of each half among the names of that half."""
    learnt = {row.answers[0] for row in every_second_thing()[0].examples}
    rows = [row for row in shifted_objects("held_out").examples if row.attributes.get("shift", "ground") == "ground"]
    found: dict[str, Number] = {}
    for half, is_learnt in (("learnt", True), ("new", False)):
        own = [row for row in rows if (row.answers[0] in learnt) == is_learnt]
        right = _right(view, own, sorted({row.answers[0] for row in own}))
        for group, shift in (("clean", None), ("ground", "ground")):
            told = [one for one, row in zip(right, own, strict=True) if row.attributes.get("shift") == shift]
            found[f"{half} {group}"] = share(told)
    return found


def _pgd(view: DualGradients, epsilon: int) -> Sequence[Example]:
    return pgd(view, epsilon, steps=STEPS, pictures=PICTURES)


def _right(view: DualGradients, rows: Sequence[Example], names: Sequence[str]) -> list[bool]:
    """Whether each picture is given its name, of these."""
    said = view.logits([row.image for row in rows if row.image is not None], [PHOTO.format(one) for one in names])
    return [names[place] == row.answers[0] for place, row in zip(said.argmax(1).tolist(), rows, strict=True)]


def _paired(view: DualGradients) -> dict[str, Number]:
    """Of held-out things and their names: which is nearest to which, gap and cosine of the two; unknown things told.

    AUROC: how often the largest logit of a known thing is above that of an unknown one.
    """
    rows = object_pictures("held_out").examples
    known, other = ([row for row in rows if bool(row.answers) is named] for named in (True, False))
    texts = view.embed_texts([PHOTO.format(row.answers[0]) for row in known])
    images, strange = (view.embed_images([row.image for row in one if row.image is not None]) for one in (known, other))
    logits, own = view.scored(images, texts), torch.arange(len(known))
    each = {
        "names": (logits.argmax(1) == own).double(),
        "pictures": (logits.argmax(0) == own).double(),
        "gap": gap_shares(images, texts),
        "pair_cosine": (images * texts).sum(1),
    }
    found = {
        name: number(mean_interval(values.tolist(), range(len(known)), seed=0), len(known))
        for name, values in each.items()
    }
    told = detection(logits.amax(1).tolist(), view.scored(strange, texts).amax(1).tolist(), seed=0).auroc
    return found | {"auroc": number(told, len(rows))}


def table(runs: Sequence[Mapping[str, Any]], *methods: str) -> str:
    """The base and every run of the methods, as Markdown."""
    return table_of(runs, COLUMNS, *methods)


def page_of(text: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """A page with its tables written anew."""
    return page_with(text, "runs", runs, COLUMNS)


def _add(folders: Sequence[str], epsilons: Sequence[int], parts: Sequence[str]) -> None:
    base = load_dual(phantom_clip(), name="phantom-clip")
    for folder in folders:
        told: dict[str, Any] = {"method": "none", "seed": 0, "set": {}}
        view = base
        if folder != "none":
            path, _, strength = folder.partition("@")
            mend = Mend.load(Path(path))
            if strength:
                mend = mend.scaled(float(strength))
            view, card = base.with_mend(mend), mend.card
            told = {"method": card.method, "seed": card.seed, "set": changed(card), "notes": list(card.notes)}
        values = measured(view, epsilons, parts)
        runs = json.loads(RUNS.read_text()) if RUNS.exists() else []
        same = next((run for run in runs if {name: run.get(name) for name in told} == told), None)
        if same is None:
            runs.append({**told, "values": values})
        else:
            same["values"] |= values
        RUNS.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "pages"))
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--epsilons", default="5")
    parser.add_argument("--parts", default=",".join(PARTS))
    asked = parser.parse_args()
    if asked.what == "measure":
        _add(asked.folders, [int(one) for one in asked.epsilons.split(",") if one], asked.parts.split(","))
    else:
        write_pages("runs", json.loads(RUNS.read_text()), COLUMNS)
