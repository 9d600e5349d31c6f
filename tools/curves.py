"""The curves of a suite as a picture for the docs: `python -m tools.curves RUN [RUN ...] --suite SUITE --out FILE.png`.

The same lines as in the report of these runs. A suite with curves of several titles needs `--title`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vlmend.core.measures import Curve, Scorecard
from vlmend.errors import UsageError
from vlmend.report.charts import lines_figure

__all__ = ["series_of"]


def series_of(runs: Sequence[Path], suite: str, title: str = "") -> list[tuple[str, list[Curve]]]:
    """The curves of one picture, by the name of the run's folder; one run needs no name.

    Raises:
        UsageError: There are none, or those of several pictures.
    """
    every = {run: [one for one in Scorecard.load(run / "scorecard.json").curves if one.suite == suite] for run in runs}
    titles = {curve.title for curves in every.values() for curve in curves if title in ("", curve.title)}
    if len(titles) != 1:
        raise UsageError(f"{suite} has curves of {len(titles)} pictures here.", f"Name one: {sorted(titles)}.")
    return [
        (run.name if len(runs) > 1 else "", [curve for curve in curves if curve.title in titles])
        for run, curves in every.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--title", default="")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    lines_figure(series_of(asked.runs, asked.suite, asked.title)).savefig(asked.out, dpi=150)
