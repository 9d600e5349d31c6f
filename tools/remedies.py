"""What the study of fairness tells, from the runs of `tools.fairness`: every remedy by every measure, against the base.

Of several seeds a unit (a profession, a person, a picture) counts with its mean over the seeds. Tests are paired by
unit. Those of one remedy are one family, as in a comparison of two runs: Holm's adjustment is over its measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tools.measuring import named, settings
from vlmend.core.measures import Better, Measure
from vlmend.core.metrics.paired import Evidence, Paired, paired_tests
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.metrics.stats import Interval

__all__ = ["MEASURES", "PUBLISHED", "content"]

MEASURES: dict[str, tuple[str, Better, float]] = {
    "bias": ("titles, signed Bias@10", "lower", 0.0), "abs_bias": ("titles, absolute Bias@10", "lower", 0.173),
    "cosine_gap": ("titles, cosine gap", "lower", 0.0),
    "harm": ("men less women sent to titles of men", "lower", 0.0),
    "probe": ("group told by a fresh probe", "lower", 0.494),
    "profession": ("profession, zero-shot", "higher", math.nan), "object": ("object, zero-shot", "higher", math.nan),
    "recall": ("name finds picture", "higher", math.nan),
    "precision": ("titles, precision@10", "higher", math.nan), "attacked": ("attacked, 2/255", "higher", math.nan),
    "auroc": ("unknown things, AUROC", "higher", 0.5),
}  # fmt: skip
"""Heading, which way is better, and chance where it is near enough to matter."""

PUBLISHED = (
    {"method": "CLIP ViT-L/14, COCO", "skew": "13.4", "recall": "83.8"},
    {"method": "with closed_form, COCO", "skew": "10.1", "recall": "81.1"},
    {"method": "CLIP ViT-L/14, Flickr", "skew": "20.3", "recall": "91.0"},
    {"method": "with closed_form, Flickr", "skew": "11.8", "recall": "90.4"},
    {"method": "with CLIP-clip, Flickr", "skew": "11.7", "recall": "87.7"},
    {"method": "with FairerCLIP, Flickr", "skew": "12.2", "recall": "87.9"},
)
"""MaxSkew@1000 and R@5 in percent, as the authors of closed_form print them (README of arXiv 2603.12998)."""

Run = Mapping[str, Any]


def content(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page shows: models as they are, and each remedy on phantom-clip and on the clean twin, with tests."""
    bases = [run for run in runs if run["method"] == "none"]
    (base,) = (run for run in bases if not run["on"])
    remedies = _by_remedy(run for run in runs if run["method"] != "none" and not run["on"])
    tests = {name: _tests(name, base, own) for name, own in remedies.items()}
    twins = _by_remedy(run for run in runs if run["method"] != "none" and run["on"] == "clean twin")
    return {
        "measures": {name: {"heading": heading, "chance": chance} for name, (heading, _, chance) in MEASURES.items()},
        "bases": [{"name": named(run) if run["on"] else "phantom-clip", "cells": _cells([run])} for run in bases],
        "remedies": [
            {
                "name": name, "seeds": len(own), "cells": _cells(own),
                "tests": {measure: tests[name].get(measure) for measure in MEASURES},
                "twin": _cells(twins[name]) if name in twins else None,
            }
            for name, own in remedies.items()
        ],
        "figure": _figure(base, bases, remedies, twins),
        "published": PUBLISHED,
    }  # fmt: skip


def _figure(
    base: Run, bases: Sequence[Run], remedies: Mapping[str, Sequence[Run]], twins: Mapping[str, Sequence[Run]]
) -> list[tuple[str, list[Measure]]]:
    """Two series of the same lines: on phantom-clip, and on its clean twin."""
    clean = [run for run in bases if run["on"] == "clean twin"]
    return [
        (title, [row for name, own in {"none": first, **each}.items() for row in _dots(own, name)])
        for title, first, each in (("phantom-clip", [base], remedies), ("clean twin", clean, twins))
        if first
    ]


def _dots(runs: Sequence[Run], group: str) -> list[Measure]:
    """Named as people read them."""
    return [replace(row, name=MEASURES[name][0]) for name, row in _cells(runs, group).items()]


def _by_remedy(runs: Any) -> dict[str, list[Run]]:
    """Runs by what tells them apart but for the seed; the order is that of the runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        told = settings(run)
        found.setdefault(f"{run['method']} ({told})" if told else run["method"], []).append(run)
    return found


def _cells(runs: Sequence[Run], group: str = "") -> dict[str, Measure]:
    """The mean over seeds of each measure, by its name."""
    return {name: _measure(group, name, runs) for name in MEASURES if all(name in run["values"] for run in runs)}


def _measure(remedy: str, name: str, runs: Sequence[Run]) -> Measure:
    """With the interval over units; of one that is no mean, the mean of values and of limits."""
    heading, better, chance = MEASURES[name]
    n = runs[0]["values"][name][3]
    if name in runs[0]["units"]:
        units = _units(name, runs)
        told = mean_interval(units, range(len(units)), seed=0)
    else:
        told = Interval(*(sum(run["values"][name][k] for run in runs) / len(runs) for k in range(3)))
    return Measure(
        "fairness", remedy, name, remedy or heading, *told, n, 0, better, unit="number", floor=chance, compared="mean",
    )  # fmt: skip


def _tests(remedy: str, base: Run, runs: Sequence[Run]) -> dict[str, Paired]:
    """The tests of one remedy by measure, one family."""
    names = [name for name in MEASURES if name in base["units"] and name in runs[0]["units"]]
    before, after = ([_evidence(remedy, name, own) for name in names] for own in ([base], runs))
    return {test.after.name: test for test in paired_tests(before, after, seed=0)}


def _units(name: str, runs: Sequence[Run]) -> list[float]:
    return [sum(values) / len(runs) for values in zip(*(run["units"][name] for run in runs), strict=True)]


def _evidence(remedy: str, name: str, runs: Sequence[Run]) -> Evidence:
    """The units of one measure, named so that those of base and remedy meet."""
    units = {str(place): value for place, value in enumerate(_units(name, runs))}
    return Evidence(_measure(remedy, name, runs), units)
