"""What labels buy on XSTest's completions: `python -m tools.active_labels [COMPLETIONS] [--seeds 20] [--most 400]`.

Replies of five models with people's labels; half of the prompts are the pool, the other half is held out. Counted is
what declines, in full or in part; groups are the models that wrote the replies; the first judge is the list of
phrases. Lines of a Markdown table go to stdout. The texts are not shipped: without them there is nothing to run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlmend.audit.judges.refusal import features
from vlmend.core.declining import declines
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import word_fraction
from vlmend.errors import UsageError
from vlmend.studies.active_labels import CHOICES, Point, Pool, learning_curve

COMPLETIONS = Path(__file__).parents[2] / "shared" / "data" / "xstest_completions" / "completions.jsonl"
SHOWN = (100, 200, 400)
HEADS = ("right", "worst group", "error, plain", "in its interval", "error, corrected", "in its interval")
BAR = 0.6
"""Share of the random labels within which a choice is to get as far (card F32)."""


def pools(file: Path) -> tuple[Pool, Pool]:
    """The pool and what is held out, by prompt.

    Raises:
        UsageError: The file is not here.
    """
    if not file.exists():
        raise UsageError(f"{file} is not here.", "Name XSTest's completions with people's labels.")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    parts = [[row for row in rows if (word_fraction(row["id"]) < 0.5) == side] for side in (True, False)]
    pool, held_out = (
        Pool(
            features([row["completion"] for row in part]),
            np.array([row["label"] != "1_full_compliance" for row in part]),
            tuple(row["model"] for row in part),
            np.array([declines(row["completion"]) is not None for row in part]),
        )
        for part in parts
    )
    return pool, held_out


def main(argv: Sequence[str] | None = None) -> None:
    """The table, and how soon each choice gets as far as random labels do in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=COMPLETIONS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--most", type=int, default=SHOWN[-1])
    given = parser.parse_args(argv)
    pool, held_out = pools(given.file)
    print(f"{len(pool.labels)} in the pool, {len(held_out.labels)} held out, rate {pool.labels.mean():.3f}")
    first = float((held_out.first == held_out.labels).mean())
    print(f"the list of phrases alone: {first:.3f} of the held-out replies right")
    print(f"| choice | labels | {' | '.join(HEADS)} |")
    print("|" + "---|" * (2 + len(HEADS)))
    curves = {
        choose: [learning_curve(pool, held_out, choose, seed, most=given.most) for seed in range(given.seeds)]
        for choose in CHOICES
    }
    for choose, runs in curves.items():
        for shown in (n for n in SHOWN if n <= given.most):
            print(_row(choose, [point for run in runs for point in run if point.labels == shown]))
    wanted = float(np.mean([run[-1].worst for run in curves["random"]]))
    for choose, runs in curves.items():
        mean = [_mean_point(run, runs) for run in range(len(runs[0]))]
        reached = next((n for n, worst in mean if worst >= wanted), None)
        share = "never" if reached is None else f"after {reached} labels ({reached / given.most:.0%}; bar {BAR:.0%})"
        print(f"{choose}: worst group as good as with {given.most} random labels ({wanted:.3f}) {share}")


def _mean_point(place: int, runs: Sequence[Sequence[Point]]) -> tuple[int, float]:
    """Labels at one place of the curve, and the worst group's accuracy there, mean over seeds."""
    return runs[0][place].labels, float(np.mean([run[place].worst for run in runs]))


def _row(choose: str, points: Sequence[Point]) -> str:
    rate = points[0].rate
    cells = [choose, str(points[0].labels)]
    cells += [_told([getattr(point, name) for point in points]) for name in ("accuracy", "worst")]
    for name in ("naive", "corrected"):
        found: list[Interval] = [getattr(point, name) for point in points]
        cells.append(_told([abs(one.value - rate) for one in found]))
        cells.append(f"{sum(one.low <= rate <= one.high for one in found)} of {len(found)}")
    return "| " + " | ".join(cells) + " |"


def _told(values: Sequence[float]) -> str:
    found = mean_interval(values, [str(k) for k in range(len(values))], seed=0)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    main()
