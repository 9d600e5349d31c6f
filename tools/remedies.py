"""What a study of remedies tells, from its runs: every remedy by every measure, against the model without any.

Of several seeds a unit (a profession, a person, a picture) counts with its mean over the seeds. Tests are paired by
unit. Those of one remedy are one family, as in a comparison of two runs: Holm's adjustment is over its measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tools.measuring import Number, keep_run, rounded, settings
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.metrics.paired import Evidence, Paired, paired_tests
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.metrics.stats import Interval

__all__ = ["Study", "keep_remedy", "measure_or_study"]

TWIN = "clean twin"
REFERENCE = "not "
"""How the name of a model begins that was not trained at all: no remedy, and shown beside them."""

Run = Mapping[str, Any]


def keep_remedy(
    file: Path, names: Iterable[str], name: str, seed: int,
    values: Mapping[str, Number], units: Mapping[str, Sequence[float]],
) -> None:  # fmt: skip
    """Keep what a remedy of these names gave with a seed, in their order."""
    own = {measure: [round(one, 4) for one in each] for measure, each in units.items()}
    told = rounded(values)
    run = {"method": name, "on": "", "seed": seed, "set": {}, "values": told, "units": own}
    order = list(names)
    keep_run(file, run, ("method", "seed"), lambda one: (order.index(one["method"]), one["seed"]))
    print(name, seed, {measure: value[0] for measure, value in told.items()}, flush=True)


def measure_or_study(
    doc: str | None, remedies: Collection[str],
    measure: Callable[[Sequence[str], Sequence[int]], None], study: Callable[[], None],
) -> None:  # fmt: skip
    """A tool's command line: measure some remedies, or all, with some seeds; or write the page of what is kept."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "study"))
    parser.add_argument("remedies", nargs="*", help=f"of: {'; '.join(remedies)}")
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "measure":
        measure(asked.remedies or list(remedies), [int(one) for one in asked.seeds.split(",")])
    else:
        study()


@dataclass(frozen=True)
class Study:
    """What is told of runs, each with `method` (`none`: without any), `on`, `seed`, `set`, `values` and `units`.

    Attributes:
        axis: Of the measures.
        subject: What the model is called that remedies are for.
        measures: By name: heading, which way is better, and chance where it is near enough to matter.
        published: Rows of the authors' own numbers.
    """

    axis: Axis
    subject: str
    measures: Mapping[str, tuple[str, Better, float]]
    published: Sequence[Mapping[str, str]] = ()

    def content(self, runs: Sequence[Run]) -> dict[str, Any]:
        """What the page shows: models as they are, and each remedy on the subject and on its clean twin, with tests."""
        bases = _by_model(run for run in runs if run["method"] == "none")
        remedies = _by_remedy(run for run in runs if run["method"] != "none" and not run["on"])
        tests = {name: self._tests(name, bases[""], own) for name, own in remedies.items()}
        twins = _by_remedy(run for run in runs if run["method"] != "none" and run["on"] == TWIN)
        return {
            "subject": self.subject,
            "count": sum(not name.startswith(REFERENCE) for name in remedies),
            "measures": {
                name: {"heading": heading, "chance": chance} for name, (heading, _, chance) in self.measures.items()
            },
            "bases": [
                {"name": on or self.subject, "seeds": len(own), "cells": self._cells(own)} for on, own in bases.items()
            ],
            "remedies": [
                {
                    "name": name, "seeds": len(own), "cells": self._cells(own),
                    "tests": {measure: tests[name].get(measure) for measure in self.measures},
                    "twin": self._cells(twins[name]) if name in twins else None,
                }
                for name, own in remedies.items()
            ],
            "figure": self._figure(bases, {self.subject: remedies, TWIN: twins}),
            "published": self.published,
        }  # fmt: skip

    def _figure(
        self, bases: Mapping[str, Sequence[Run]], remedies: Mapping[str, Mapping[str, Sequence[Run]]]
    ) -> list[tuple[str, list[Measure]]]:
        """Series of the same lines: on the subject, and on its clean twin where that was measured."""
        first = {self.subject: bases[""], TWIN: bases.get(TWIN, ())}
        return [
            (title, [row for name, own in {"none": first[title], **each}.items() for row in self._dots(own, name)])
            for title, each in remedies.items()
            if first[title]
        ]

    def _dots(self, runs: Sequence[Run], group: str) -> list[Measure]:
        """Named as people read them."""
        return [replace(row, name=self.measures[name][0]) for name, row in self._cells(runs, group).items()]

    def _cells(self, runs: Sequence[Run], group: str = "") -> dict[str, Measure]:
        """The mean over the seeds that have it of each measure, by its name."""
        of = {name: [run for run in runs if name in run["values"]] for name in self.measures}
        return {name: self._measure(group, name, own) for name, own in of.items() if own}

    def _measure(self, remedy: str, name: str, runs: Sequence[Run]) -> Measure:
        """With the interval over units; of one that is no mean, the mean of values and of limits."""
        heading, better, chance = self.measures[name]
        n = runs[0]["values"][name][3]
        if name in runs[0]["units"]:
            units = _units(name, runs)
            told = mean_interval(units, range(len(units)), seed=0)
        else:
            told = Interval(*(sum(run["values"][name][k] for run in runs) / len(runs) for k in range(3)))
        return Measure(
            self.axis, remedy, name, remedy or heading, *told, n, 0, better, unit="number", floor=chance,
            compared="mean",
        )  # fmt: skip

    def _tests(self, remedy: str, base: Sequence[Run], runs: Sequence[Run]) -> dict[str, Paired]:
        """The tests of one remedy by measure, one family."""
        names = [name for name in self.measures if name in base[0]["units"] and name in runs[0]["units"]]
        before, after = ([self._evidence(remedy, name, own) for name in names] for own in (base, runs))
        return {test.after.name: test for test in paired_tests(before, after, seed=0)}

    def _evidence(self, remedy: str, name: str, runs: Sequence[Run]) -> Evidence:
        """The units of one measure, named so that those of base and remedy meet."""
        units = {str(place): value for place, value in enumerate(_units(name, runs))}
        return Evidence(self._measure(remedy, name, runs), units)


def _by_model(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["on"], []).append(run)
    return found


def _by_remedy(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by what tells them apart but for the seed; the order is that of the runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        told = settings(run)
        found.setdefault(f"{run['method']} ({told})" if told else run["method"], []).append(run)
    return found


def _units(name: str, runs: Sequence[Run]) -> list[float]:
    return [sum(values) / len(runs) for values in zip(*(run["units"][name] for run in runs), strict=True)]
