"""Writes the tables of docs/studies/modalities.md from its runs, and the picture: `python -m tools.modalities_page`.

Seeds on whose records a blind baseline lies above chance count for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from tools.measuring import ROOT, STUDIES
from tools.modalities import CHECKPOINTS, RUNS, VARIANTS
from vlmend.audit.separating import BLIND
from vlmend.core.metrics.stats import Interval
from vlmend.report.figures import COLOURS, GRID, INK, STYLE
from vlmend.studies.modalities import Path, difference_at_end, difference_at_utility

__all__ = ["COMPARED", "drawn", "page_of", "void"]

PAGE = STUDIES / "modalities.md"
PICTURE = ROOT / "docs" / "pictures" / "modalities.png"

COMPARED = (
    ("picture and caption", "picture"), ("picture and caption", "caption"),
    ("picture and caption, contrastive", "picture and caption"),
    ("picture and noise", "picture"), ("caption and noise", "caption"),
    ("picture twice", "picture"), ("caption twice", "caption"),
    ("picture and mark", "picture"), ("caption and mark", "caption"),
)  # fmt: skip
"""What is held against what: the first less the second."""
SHARE = 0.9
"""Of the way to the weaker model's best, set before any attack was run; the others show how much hangs on it."""
SHARES = (0.5, SHARE, 1.0)
DRAWN = ("picture", "caption", "picture and caption", "picture and mark")
WITHHELD = ("", ", caption withheld", ", picture withheld")

Run = Mapping[str, Any]


def void(runs: Sequence[Run]) -> list[int]:
    """Seeds on whose records a blind baseline lies above chance with its whole interval."""
    return [run["seed"] for run in runs if run["variant"] == "blind" and any(run[name][1] > 0.5 for name in BLIND)]


def page_of(text: str, runs: Sequence[Run]) -> str:
    """The page with its tables written anew."""
    tables = {"blind": _blind(runs), "equal": _equal(runs), "ends": _ends(runs), "withheld": _withheld(runs)}
    for name, table in tables.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        text = f"{before}{mark}{table}\n{rest[rest.index('<!-- end -->') :]}"
    return text


def drawn(runs: Sequence[Run]) -> Figure:
    """What the loss tells of members against accuracy along training, mean over seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for k, name in enumerate(DRAWN):
            own = _of(runs, name)
            utility, leak = (np.mean([run[what] for run in own], axis=0) for what in ("utility", "loss"))
            axes.plot(utility, leak, f"{'os^D'[k]}-", ms=4, lw=1.3, color=COLOURS[k % len(COLOURS)], label=name)
        axes.axhline(0.5, ls=":", lw=0.9, color=INK)
        axes.set_xlabel("accuracy on other records, along training")
        axes.set_ylabel("members told by their loss, AUROC")
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return figure


def _of(runs: Sequence[Run], variant: str) -> list[Run]:
    """The runs of a variant on seeds that are not void, by seed."""
    left_out = void(runs)
    own = (run for run in runs if run["variant"] == variant and run["seed"] not in left_out)
    return sorted(own, key=lambda run: run["seed"])


def _paths(runs: Sequence[Run], variant: str, attack: str) -> list[Path]:
    return [Path(tuple(run["utility"]), tuple(run[attack])) for run in _of(runs, variant)]


def _blind(runs: Sequence[Run]) -> str:
    lines = ["| seed | words | pixels | |", "|---|---|---|---|"]
    for run in sorted((run for run in runs if run["variant"] == "blind"), key=lambda run: run["seed"]):
        told = [_said(Interval(*run[name]), sign=False) for name in BLIND]
        lines.append(
            f"| {run['seed']} | {' | '.join(told)} | {'void, left out' if run['seed'] in void(runs) else ''} |"
        )
    return "\n".join(lines)


def _equal(runs: Sequence[Run]) -> str:
    heads = [
        *(f"loss, at {share:.0%}" for share in SHARES), f"reference, at {SHARE:.0%}",
        f"TPR of the loss, at {SHARE:.0%}", "loss, after all passes",
    ]  # fmt: skip
    lines = [f"| the first less the second | seeds | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for first, second in COMPARED:
        cells = [_compared(runs, second, first, "loss", share) for share in SHARES]
        cells += [_compared(runs, second, first, what, SHARE) for what in ("reference", "loss, TPR")]
        ends = difference_at_end(*_pair(runs, second, first, "loss"))
        lines.append(f"| {first} − {second} | {len(ends[0])} | {' | '.join([*cells, _said(ends[1])])} |")
    return "\n".join(lines)


def _compared(runs: Sequence[Run], first: str, second: str, attack: str, share: float) -> str:
    return _said(difference_at_utility(*_pair(runs, first, second, attack), share)[1])


def _pair(runs: Sequence[Run], first: str, second: str, attack: str) -> tuple[list[Path], list[Path]]:
    """Paths of two variants on the seeds that both have."""
    both = {run["seed"] for run in _of(runs, first)} & {run["seed"] for run in _of(runs, second)}
    known = [run for run in runs if run["seed"] in both or run["variant"] == "blind"]
    return _paths(known, first, attack), _paths(known, second, attack)


def _ends(runs: Sequence[Run]) -> str:
    names = ("utility", "loss", "loss, TPR", "reference", "reference, TPR")
    lines = [
        "| model | accuracy | loss, AUROC | at 1 % false alarms | reference, AUROC | at 1 % false alarms |",
        "|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        cells = [f"{np.mean([run[name][-1] for run in _of(runs, variant)]):.3f}" for name in names]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _withheld(runs: Sequence[Run]) -> str:
    lines = ["| picture and caption | accuracy | loss, AUROC | reference, AUROC |", "|---|---|---|---|"]
    for what in WITHHELD:
        own = _of(runs, "picture and caption")
        cells = [
            f"{np.mean([run[f'{name}{what}'][-1] for run in own]):.3f}" for name in ("utility", "loss", "reference")
        ]
        lines.append(f"| {what.removeprefix(', ') or 'both given'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(interval: Interval, sign: bool = True) -> str:
    one = "+.3f" if sign else ".2f"
    return f"{interval.value:{one}} [{interval.low:{one}}, {interval.high:{one}}]"


if __name__ == "__main__":
    measured = json.loads(RUNS.read_text())
    assert all(len(run["utility"]) == len(CHECKPOINTS) for run in measured if run["variant"] != "blind")
    PAGE.write_text(page_of(PAGE.read_text(), measured))
    drawn(measured).savefig(PICTURE, dpi=150)
