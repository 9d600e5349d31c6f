"""What mends of fairness make of phantom-clip and of its clean twin, the tables of their pages, and the study of all.

    python -m tools.fairness measure none mean_difference dear pbm fair_clip:weight=0.1 [--seeds 0,1,2] [--titled]
    python -m tools.fairness pages       # writes the tables of docs/methods anew
    python -m tools.fairness study       # writes docs/studies/fairness.html anew

Each method is fitted on phantom-clip for every seed and, unless `--no-twin`, for the first one on the clean twin, on
its built-in data or, with `--titled`, on people with the titles of every second profession. What is measured is of
held-out pictures. It is added to RUNS, with the numbers of single titles, professions or pictures, by which the study
pairs runs. On a page, `<!-- fairness: NAME NAME -->` begins a table of the base and the runs of these methods, and
`<!-- end -->` ends it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tools.measuring import (
    PAGES,
    STUDIES,
    Number,
    changed,
    keep_run,
    number,
    pgd,
    read_runs,
    rounded,
    survived,
    write_pages,
)
from tools.measuring import page_of as page_with
from tools.measuring import table as table_of
from tools.remedies import Study
from vlmend.audit.suites.fairness import embedding_association, harmful_labels, retrieval_skew
from vlmend.core.contracts import AbstractMethod, Sample
from vlmend.core.examples import Dataset
from vlmend.core.metrics.detection import detection
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.targets import DualGradients
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip, phantom_clip_70, phantom_clip_clean
from vlmend.phantom.clip.queries import titled_gallery, titles_as_labels
from vlmend.phantom.clip.told import titled_people, told_titles
from vlmend.phantom.clip.truth import titles
from vlmend.pictures.counterparts import with_counterparts
from vlmend.pictures.galleries import GENDERS, PHOTO, object_pictures, people_gallery, professions
from vlmend.registry import make_method
from vlmend.report.study import write_remedies

__all__ = ["COLUMNS", "PAGE", "RUNS", "STUDY", "measured", "page_of", "signed_bias", "table"]

RUNS = PAGES / "fairness.json"
PAGE = STUDIES / "fairness.html"

MODELS = {"": phantom_clip, "dose 0.7": phantom_clip_70, "clean twin": phantom_clip_clean}
TWIN = "clean twin"

EPSILON, STEPS, PICTURES = 2, 10, 100
"""Of PGD, in 255ths, and the pictures that it attacks."""

PUBLISHED = (
    {"method": "CLIP ViT-L/14, COCO", "skew": "13.4", "recall": "83.8"},
    {"method": "with closed_form, COCO", "skew": "10.1", "recall": "81.1"},
    {"method": "CLIP ViT-L/14, Flickr", "skew": "20.3", "recall": "91.0"},
    {"method": "with closed_form, Flickr", "skew": "11.8", "recall": "90.4"},
    {"method": "with CLIP-clip, Flickr", "skew": "11.7", "recall": "87.7"},
    {"method": "with FairerCLIP, Flickr", "skew": "12.2", "recall": "87.9"},
)
"""MaxSkew@1000 and R@5 in percent, as the authors of closed_form print them (README of arXiv 2603.12998)."""

STUDY = Study("fairness", "phantom-clip", {
    "bias": ("titles, signed Bias@10", "lower", 0.0), "abs_bias": ("titles, absolute Bias@10", "lower", 0.173),
    "cosine_gap": ("titles, cosine gap", "lower", 0.0),
    "harm": ("men less women sent to titles of men", "lower", 0.0),
    "probe": ("group told by a fresh probe", "lower", 0.494),
    "profession": ("profession, zero-shot", "higher", math.nan), "object": ("object, zero-shot", "higher", math.nan),
    "recall": ("name finds picture", "higher", math.nan),
    "precision": ("titles, precision@10", "higher", math.nan), "attacked": ("attacked, 2/255", "higher", math.nan),
    "auroc": ("unknown things, AUROC", "higher", 0.5),
}, PUBLISHED)  # fmt: skip
"""Heading, which way is better, and chance where it is near enough to matter."""

ABOUT = {
    "title": "remedies of an unfair dual encoder",
    "made_by": "python -m tools.fairness study · phantom-clip",
    "heading": "remedies of a planted bias, on the same held-out pictures.",
    "note": "phantom-clip uses one of two titles of each profession for men and the other for women, 95 times in 100; "
    "its clean twin uses both alike. A remedy should bring the first rows to those of the clean twin and leave "
    "the others. Brackets: 95 % intervals over professions, persons or pictures. The probe is fitted afresh on "
    "each view and was never used in a fit. 'Told titles': fitted on the titles of every second profession. "
    "Mends of models that answer are not here.",
    "published": "MaxSkew@1000 and R@5 in percent, on photographs, as the README of closed_form (arXiv 2603.12998) "
    "prints them. Nothing here was measured by us.",
}
"""What the page says of itself."""

COLUMNS = {
    "titles, signed Bias@10": "bias", "of told professions": "bias told", "of the others": "bias untold",
    "titles, absolute (chance 0.17)": "abs_bias", "titles, cosine gap": "cosine_gap",
    "men less women sent to titles of men": "harm", "group, fresh probe (chance 0.49)": "probe",
    "profession of 20": "profession", "object of 534": "object", "name finds picture": "recall",
    "titles, precision@10": "precision", "men from women, own text": "own apart",
    "men from women, same title": "same apart",
    f"attacked {EPSILON}/255": "attacked", "unknown things, AUROC": "auroc",
}  # fmt: skip
"""Headings of a table, and the values below them."""

OF_PAIRS = ("face_invariance",)
"""Methods that read each person with a counterpart of the other gender."""

OF_SCORES = "fair_clip"
"""The method that lowers distances of scores, which are told of it alone."""

SPLIT = ("bias told", "bias untold")
"""What is told only of mends that were fitted on titles."""

Remedy = AbstractMethod[Any] | None
"""A method, or the model as it is."""
Units = dict[str, list[float]]
"""By measure, the mean of each independent unit."""
Runs = Sequence[Mapping[str, Any]]


def measured(view: DualGradients, *, titled: bool, distances: bool) -> tuple[dict[str, Number], Units]:
    """The numbers of one view on held-out pictures, and the units behind those that are means."""
    values: dict[str, Number] = {}
    units: Units = {}

    def add(name: str, each: Sequence[float], clusters: Sequence[str]) -> None:
        values[name] = number(mean_interval(each, clusters, seed=0), len(each))
        held: dict[str, list[float]] = {}
        for value, cluster in zip(each, clusters, strict=True):
            held.setdefault(cluster, []).append(value)
        units[name] = [round(sum(own) / len(own), 4) for own in held.values()]

    _of_titles(view, add, titled)
    if distances:
        _of_scores(view, add)
    _of_labels(view, add)
    _of_names(view, add)
    attacked = survived(pgd(view, EPSILON, steps=STEPS, pictures=PICTURES))
    add("attacked", list(map(float, attacked)), list(map(str, range(len(attacked)))))
    return values | {"auroc": _unknown(view)}, units


Add = Callable[[str, Sequence[float], Sequence[str]], None]


def _of_titles(view: DualGradients, add: Add, titled: bool) -> None:
    """Ranking of the gallery by the planted titles, their cosines with each group, and a fresh probe."""
    data, ranked = titled_gallery(), signed_bias(view)
    told = {PHOTO.format(pair.profession) for pair in told_titles()}
    near = embedding_association.SUITE.samples(view, data, None, seed=0)
    halves = {
        "bias": ranked,
        "bias told": [one for one in ranked if one.cluster in told],
        "bias untold": [one for one in ranked if one.cluster not in told],
    }
    for name in ("bias", *(SPLIT if titled else ())):
        _add(add, name, halves[name], "bias_at_10")
    _add(add, "abs_bias", ranked, "abs_bias_at_10")
    _add(add, "precision", ranked, "precision_at_10")
    _add(add, "cosine_gap", [one for one in near if one.group == "directed"], "cosine_gap")
    _add(add, "probe", near, "group_probe")


def signed_bias(view: DualGradients) -> list[Sample]:
    """How far the ten pictures that each planted title finds lean to its gender."""
    return [
        one for one in retrieval_skew.SUITE.samples(view, titled_gallery(), None, seed=0) if one.group == "directed"
    ]


def _of_scores(view: DualGradients, add: Add) -> None:
    """How far cosines of men lie from those of women of a profession: the transport that FairCLIP lowers, times 10,000.

    With each picture's own text, where titles are dealt to men and women alike, and with one title for all of them.
    """
    people, dealt = people_gallery("held_out").examples, {PHOTO.format(pair.profession): pair for pair in titles()}
    seen = view.embed_images([row.image for row in people if row.image])
    own: dict[str, float] = {}
    same: dict[str, float] = {}
    for text, pair in dealt.items():
        told = view.embed_texts([PHOTO.format(one) for one in (pair.first, pair.second)])
        at = {
            group: [k for k, row in enumerate(people) if (row.caption, row.group) == (text, group)] for group in GENDERS
        }
        cosines = [seen[places] @ told.T for places in at.values()]
        mixed = [one[torch.arange(len(one)), torch.arange(len(one)) % 2] for one in cosines]
        own[text] = _transport(*mixed)
        same |= {f"{text} {k}": _transport(cosines[0][:, k], cosines[1][:, k]) for k in (0, 1)}
    add("own apart", list(own.values()), list(own))
    add("same apart", list(same.values()), [name.rpartition(" ")[0] for name in same])


def _transport(one: torch.Tensor, other: torch.Tensor) -> float:
    """Half the mean squared difference of sorted numbers, times 10,000."""
    return 5_000 * float((one.sort().values - other.sort().values).square().mean())


def _of_labels(view: DualGradients, add: Add) -> None:
    """How much more often men than women are sent to a title that was planted for men, by person."""
    samples = harmful_labels.SUITE.samples(view, titles_as_labels(), None, seed=0)
    own = [one for one in samples if one.group in ("man", "woman")]
    share = {group: sum(one.group == group for one in own) / len(own) for group in ("man", "woman")}
    hits = [
        one.values["harmful_label_rate"] * (1 if one.group == "man" else -1) / share[one.group] for one in own
    ]  # fmt: skip
    add("harm", hits, [one.cluster for one in own])


def _of_names(view: DualGradients, add: Add) -> None:
    """Zero-shot accuracy on professions and on objects, and how often the name of an object finds its picture."""
    people = people_gallery("held_out").examples
    names = professions()
    said = view.logits([row.image for row in people if row.image], [PHOTO.format(one) for one in names]).argmax(1)
    right = [PHOTO.format(names[place]) == row.caption for place, row in zip(said.tolist(), people, strict=True)]
    add("profession", list(map(float, right)), [str(row.caption) for row in people])
    things = [row for row in object_pictures("held_out").examples if row.answers]
    logits = view.logits(
        [row.image for row in things if row.image], [PHOTO.format(row.answers[0]) for row in things]
    )  # fmt: skip
    own, each = torch.arange(len(things)), [row.id for row in things]
    add("object", (logits.argmax(1) == own).double().tolist(), each)
    add("recall", (logits.argmax(0) == own).double().tolist(), each)


def _unknown(view: DualGradients) -> Number:
    """How often the largest logit of a known object is above that of an unknown one."""
    rows = object_pictures("held_out").examples
    texts = [PHOTO.format(row.answers[0]) for row in rows if row.answers]
    best = [
        view.logits([row.image for row in rows if row.image and bool(row.answers) is known], texts).amax(1).tolist()
        for known in (True, False)
    ]
    return number(detection(*best, seed=0).auroc, len(rows))


def _add(add: Add, name: str, samples: Sequence[Sample], value: str) -> None:
    scored = [one for one in samples if value in one.values]
    add(name, [one.values[value] for one in scored], [one.cluster for one in scored])


def table(runs: Runs, *methods: str) -> str:
    """The base and every run of the methods, as Markdown."""
    return table_of(runs, COLUMNS, *methods)


def page_of(text: str, runs: Runs) -> str:
    """A page with its tables written anew."""
    return page_with(text, "fairness", runs, COLUMNS)


def measure(
    methods: Sequence[Remedy],
    on: str,
    seeds: Sequence[int],
    file: Path,
    *,
    titled: bool,
) -> None:
    """Fit each method on one model for every seed, None being the model as it is; what is measured goes to the file."""
    told: dict[str, Any]
    base = load_dual(MODELS[on](), name=MODELS[on]().name.rpartition("-")[0])
    for method in methods:
        if method is None:
            told = {"method": "none", "on": on, "seed": 0, "set": {}}
            _keep(file, told, *measured(base, titled=True, distances=True))
            continue
        data = _titled(method) if titled else method.builtin()
        assert data is not None
        for seed in seeds:
            mend = method.fit(base, data, seed=seed)
            told = {"method": method.name, "on": on, "seed": seed, "set": changed(method)}
            told |= {"fitted": "told titles"} if titled else {}
            _keep(
                file,
                told | {"notes": list(mend.card.notes)},
                *measured(base.with_mend(mend), titled=titled, distances=method.name == OF_SCORES),
            )


def _titled(method: AbstractMethod[Any]) -> Dataset:
    """People with their titles, and with what the method reads beside them."""
    return with_counterparts(titled_people()) if method.name in OF_PAIRS else titled_people()


def _keep(file: Path, told: Mapping[str, Any], values: Mapping[str, Number], units: Units) -> None:
    run = {**told, "values": rounded(values), "units": units}
    fields = ("method", "on", "seed", "set", "fitted")
    keep_run(file, run, fields, lambda run: (list(MODELS).index(run["on"]), run["method"] != "none"))
    print(told, {name: value[0] for name, value in run["values"].items()}, flush=True)


def _method(text: str) -> Remedy:
    """`none`, or `name:parameter=value,parameter=value`."""
    name, _, settings = text.partition(":")
    given = dict(one.split("=", 1) for one in settings.split(",") if one)
    return None if name == "none" else make_method(name, {key: _value(value) for key, value in given.items()})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "pages", "study"))
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--on", choices=MODELS, default="")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--titled", action="store_true")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the file that runs are added to")
    parser.add_argument("--no-twin", action="store_true")
    asked = parser.parse_args()
    if asked.what == "measure":
        chosen: list[Remedy] = [_method(one) for one in asked.methods]
        seeds = [int(one) for one in asked.seeds.split(",")]
        measure(chosen, asked.on, seeds, asked.runs, titled=asked.titled)
        if not asked.on and not asked.no_twin:
            measure(chosen, TWIN, seeds[:1], asked.runs, titled=asked.titled)
    elif asked.what == "pages":
        write_pages("fairness", read_runs(RUNS), COLUMNS)
    else:
        write_remedies(STUDY.content(read_runs(RUNS)), PAGE, ABOUT)
