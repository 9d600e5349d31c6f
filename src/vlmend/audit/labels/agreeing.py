"""What people say of pairs: whom replies favour, how far raters agree, and whether groups of raters part.

The mathematics is `core.metrics.raters`. Attributes of raters are read only where one is asked for by name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from vlmend.audit.gaps import LEAST
from vlmend.audit.labels.pairs import Pair, PairRow, counterparts, pair_folder
from vlmend.audit.labels.raters import attributes_of
from vlmend.audit.labels.samples import Key
from vlmend.audit.labels.session import rows_in
from vlmend.core.jsontext import plain
from vlmend.core.metrics.raters import group_parting, krippendorff_alpha
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.metrics.stats import holm, wilson
from vlmend.errors import UsageError

__all__ = ["LEAST_RATERS", "pair_report"]

LEAST_RATERS = 3
"""Raters of a group below which it is named and nothing more: its numbers would be those of a person."""

TOWARDS = {"first": 1.0, "alike": 0.0, "second": -1.0}

Labels = Mapping[str, Mapping[Key, PairRow]]
"""By rater and pair, without those who could not tell."""


def pair_report(run: Path, against: Path | None = None, *, by: str = "", seed: int = 0) -> dict[str, Any]:
    """What was said of the pairs of a run, or of two, as JSON values; null stands for NaN.

    Returns:
        `pairs`, `equal`, `distinct`: all pairs, those of equal words (not asked), and what can be asked.
        `labellers`: counts of each, and the share of left among left and right, which is 0.5 but for habit.
        `leans`: for each two groups (or the two runs) counts of labels and the mean of +1 for the first, 0 for alike,
        -1 for the second, each distinct pair once, drawn again by category. `alpha`: Krippendorff's, nominal, where
        there are two raters or more. `by`: where asked for, the same by group of raters, with how far each parts from
        the others (`group_parting`, p by Holm over the groups); groups of fewer than three raters, or ten pairs with
        two labels, are named alone. Raters who did not tell are in no group.

    Raises:
        UsageError: There are no pairs or no labels, or nobody told the attribute.
        BadData: A file of labels or attributes that cannot be read.
    """
    all_pairs = counterparts(run, against)
    pairs = {pair.digest: pair for pair in reversed(all_pairs)}
    folder = pair_folder(run, against)
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise UsageError(f"{folder} holds no labels.", f"Label some pairs: vlmend label {run} --about fairness.")
    every = {file.stem: rows_in(file, PairRow) for file in files}
    labels = {
        name: {key: row for key, row in rows.items() if row.label != "unscored" and row.digest in pairs}
        for name, rows in every.items()
    }
    return plain({
        "run": str(run), "against": None if against is None else str(against),
        "pairs": len(all_pairs), "equal": sum(pair.equal for pair in all_pairs),
        "distinct": sum(not pair.equal for pair in pairs.values()),
        "labellers": [_labeller(name, list(rows.values()), pairs) for name, rows in every.items()],
        "leans": _leans(labels, pairs, seed), "alpha": _alpha(labels, seed),
        "by": _by_group(run, labels, pairs, by, seed) if by else None,
    })  # fmt: skip


def _labeller(name: str, rows: Sequence[PairRow], pairs: Mapping[str, Pair]) -> dict[str, Any]:
    left = [(row.label == "first") != row.swapped for row in rows if row.label in ("first", "second")]
    return {
        "name": name, "labels": len(rows), "counts": dict(sorted(Counter(str(row.label) for row in rows).items())),
        "left": wilson(sum(left), len(left))._asdict(), "decided": len(left),
        "of_other_pairs": sum(row.digest not in pairs for row in rows),
        "median_seconds": median(row.seconds for row in rows) if rows else None,
    }  # fmt: skip


def _leans(labels: Labels, pairs: Mapping[str, Pair], seed: int) -> list[dict[str, Any]]:
    """Of each two sides, counts and the mean lean; a pair's lean is the mean over its raters."""
    said: defaultdict[tuple[str, str], defaultdict[Key, list[str]]] = defaultdict(lambda: defaultdict(list))
    for rows in labels.values():
        for key, row in rows.items():
            said[pairs[row.digest].names][key].append(str(row.label))
    found: list[dict[str, Any]] = []
    for names, of in sorted(said.items()):
        means = [fmean(TOWARDS[label] for label in each) for each in of.values()]
        drawn = [pairs[digest].category or digest for digest, _ in of]
        counts = Counter(label for each in of.values() for label in each)
        found.append({
            "first": names[0], "second": names[1], "n": len(of), "counts": {name: counts[name] for name in TOWARDS},
            "lean": mean_interval(means, drawn, seed=seed)._asdict(),
        })  # fmt: skip
    return found


def _table(labels: Labels) -> list[list[str | None]]:
    """One row a rater, over the pairs that two raters or more labelled."""
    times = Counter(key for rows in labels.values() for key in rows)
    keys = [key for key, count in times.items() if count > 1]
    return [[str(rows[key].label) if key in rows else None for key in keys] for rows in labels.values()]


def _alpha(labels: Labels, seed: int) -> dict[str, Any] | None:
    if len(labels) < 2:
        return None
    table = _table(labels)
    return {"raters": len(table), "n": len(table[0]), "alpha": krippendorff_alpha(table, seed=seed)._asdict()}


def _by_group(run: Path, labels: Labels, pairs: Mapping[str, Pair], attribute: str, seed: int) -> dict[str, Any]:
    told = {name: attributes_of(run, name).get(attribute, "") for name in labels}
    groups = sorted({group for group in told.values() if group})
    if not groups:
        raise UsageError(
            f"None of the {len(labels)} raters told {attribute}.",
            f"Each tells it with: vlmend label {run} --about fairness --rater {attribute}=VALUE.",
        )
    grouped = {name: rows for name, rows in labels.items() if told[name]}
    rows = [_group(group, {n: r for n, r in grouped.items() if told[n] == group}, pairs, seed) for group in groups]
    ranked = [row for row in rows if not row["note"] and len(grouped) - row["raters"] >= LEAST_RATERS]
    table = _table(grouped)
    for row in ranked:
        row["parting"] = group_parting(table, [told[name] == row["group"] for name in grouped], seed=seed)._asdict()
    for row, p in zip(ranked, holm([row["parting"]["p"] for row in ranked]), strict=True):
        row["parting"]["p_holm"] = p
    return {"attribute": attribute, "not_told": len(labels) - len(grouped), "groups": rows}


def _group(group: str, labels: Labels, pairs: Mapping[str, Pair], seed: int) -> dict[str, Any]:
    """A group of raters by itself; only its name and size where it is small."""
    alpha = _alpha(labels, seed)
    few = len(labels) < LEAST_RATERS or alpha is None or alpha["n"] < LEAST
    found = {"group": group, "raters": len(labels), "note": "too few raters or pairs: not ranked" if few else ""}
    if few:
        return found | {"alpha": None, "leans": [], "parting": None}
    return found | {"alpha": alpha, "leans": _leans(labels, pairs, seed), "parting": None}
