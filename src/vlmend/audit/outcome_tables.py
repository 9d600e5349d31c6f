"""Decisions by group as `fairlearn` tells them: the one home of that library (extra `fairness`)."""

from __future__ import annotations

from typing import Any, NamedTuple

from vlmend.core.metrics.outcomes import Decided
from vlmend.errors import MissingExtra

__all__ = ["Frame", "outcome_frame"]


class Frame(NamedTuple):
    """What `fairlearn.metrics.MetricFrame` gives.

    Attributes:
        by_group: Of each group "selection_rate", "true_positive_rate", "false_positive_rate".
        parity: Its demographic parity difference.
        odds: Its equalised odds difference, the worse of both rates.
    """

    by_group: dict[str, dict[str, float]]
    parity: float
    odds: float


def outcome_frame(decided: Decided) -> Frame:
    """The rates of each group and how far they lie apart.

    Raises:
        MissingExtra: fairlearn is not installed.
    """
    try:
        from fairlearn import metrics
    except ImportError as problem:
        raise MissingExtra(
            "Decisions by group are told with fairlearn, which is not installed.", "pip install 'vlmend[fairness]'"
        ) from problem
    library: Any = metrics
    names = ("selection_rate", "true_positive_rate", "false_positive_rate")
    frame = library.MetricFrame(
        metrics={name: getattr(library, name) for name in names},
        y_true=[int(true) for true in decided.truth], y_pred=[int(yes) for yes in decided.yes],
        sensitive_features=list(decided.groups),
    )  # fmt: skip
    apart = frame.difference()
    rows = {group: {name: float(row[name]) for name in names} for group, row in frame.by_group.iterrows()}
    odds = max(apart["true_positive_rate"], apart["false_positive_rate"])
    return Frame(rows, float(apart["selection_rate"]), float(odds))
