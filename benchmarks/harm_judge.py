"""Fits the two heads of the judge of harm and writes them with their card of numbers.

    python benchmarks/harm_judge.py ../shared/data

The pointing head is tested on MSTS with neither the model nor the case of a test reply in its fit: ten models times
`CASE_FOLDS` parts of the cases. Penalty, calibration and threshold are found inside each fit, by folds of the same
kind, so no number of the table was chosen on what it is measured on. The plain head is tested on XSTest's held-out
prompts and, fitted without any reply of MSTS, on those replies of MSTS that are its own. The pairs of `yes_no.jsonl`
are never fitted on; they, XSTest's held-out part and the phantom's labels were looked at while features were chosen,
so they are no untouched tests. What was tried besides is in docs/suites/judge.md. Nothing of the texts is written.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from harm_data import Labelled, actions, made, msts, reaching, xstest, yes_no
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from vlmend.audit.judges.harmful import BUCKETS, cues, points, word_buckets
from vlmend.models.judging.sentences import WHEEL, encoder

OUT = Path(__file__).parents[1] / "src/vlmend/audit/judges/harmful.json"
PENALTIES = (0.3, 1.0)
CASE_FOLDS, INNER = 4, 2
SEEN = 5
"""Replies of the fit that a bucket of words must be in to have a weight."""
COIN = 0.6
"""Around the threshold, replies that are told right less often than this are called unsure."""
MOST_UNSURE = 0.03


@dataclass(frozen=True)
class Fitted:
    """A head on scores, with its probability after calibration, and the threshold that calls as many as are harmful."""

    model: LogisticRegression
    used: NDArray[np.bool_]
    penalty: float
    slope: float
    offset: float
    threshold: float
    unsure: tuple[float, float]
    even: float

    def probability(self, inputs: csr_matrix) -> NDArray[np.float64]:
        return expit(self.slope * self.model.decision_function(inputs[:, self.used]) + self.offset)


class Table:
    """Rows as arrays."""

    def __init__(self, rows: Sequence[Labelled]) -> None:
        self.rows = list(rows)
        self.harmful = np.array([row.harmful for row in rows])
        self.models, self.cases = np.array([r.model for r in rows]), np.array([f"{r.case}" for r in rows])
        self.sources = np.array([row.source for row in rows])
        self.inputs = inputs_of(rows)
        self.dense = self.inputs.shape[1] - BUCKETS

    def only(self, kept: NDArray[np.bool_]) -> Table:
        """The rows that are kept, without computing their inputs anew."""
        part = object.__new__(Table)
        part.rows = [row for row, keep in zip(self.rows, kept, strict=True) if keep]
        for name in ("harmful", "models", "cases", "sources", "inputs"):
            setattr(part, name, getattr(self, name)[kept])
        part.dense = self.dense
        return part


def main(data: Path) -> None:
    """Fit, measure, write."""
    fit, test = (reaching(rows) for rows in xstest(data))
    own = [row for row in actions() if not points(row.request)]
    people = reaching(msts(data))
    seen = [row for row in people if row.source == "msts"]
    pointing = Table([row for row in seen if points(row.request)])
    plain = Table(
        [row for row in people if not points(row.request)]
        + [row for row in [*fit, *reaching([*own, *made(data)])] if row.label != "partial"]
    )
    heads = {"pointing": fitted(pointing, by_both), "plain": fitted(plain, by_case)}
    found = unseen(pointing, plain.only(plain.sources != "msts"), [row for row in seen if not points(row.request)])
    card: dict[str, Any] = {
        "data": {
            "names": "MSTS (CC BY 4.0), XSTest completions (labels CC BY 4.0), public requests with made openings",
            "pointing": len(pointing.rows), "plain": dict(sorted(Counter(row.source for row in plain.rows).items())),
        },
        "msts_unseen": found,
        "xstest_held_out": on_xstest(heads, test),
        "yes_no": on_pairs(heads, yes_no()),
        "chosen": {name: {"C": head.penalty, "threshold": round(head.threshold, 4)} for name, head in heads.items()},
        "encoder": {"wheel": WHEEL, "fingerprint": encoder().digest},
        "versions": {name: version(name) for name in ("scikit-learn", "torch", "transformers")},
    }  # fmt: skip
    card = json.loads(json.dumps(card, default=int))
    saved = {name: saved_head(head, pointing.dense) for name, head in heads.items()}
    OUT.write_text(json.dumps({"heads": saved, "card": card}) + "\n")
    print(json.dumps(card, indent=2))


def inputs_of(rows: Sequence[Labelled]) -> csr_matrix:
    """Dense features, then the buckets of words: "row feature"."""
    buckets = [word_buckets(row.reply) for row in rows]
    place = np.repeat(np.arange(len(rows)), [len(some) for some in buckets])
    words = csr_matrix((np.ones(len(place)), (place, np.concatenate(buckets))), shape=(len(rows), BUCKETS))
    return csr_matrix(hstack([csr_matrix(cues([row.exchange for row in rows])), words]))


def by_both(table: Table, case_folds: int = INNER, model_folds: int = INNER) -> Iterator[tuple[Any, Any]]:
    """Fit and test rows that share neither a model nor a case."""
    models, cases = np.unique(table.models), np.unique(table.cases)
    rng = np.random.default_rng(0)
    parts = np.array_split(rng.permutation(models), model_folds), np.array_split(rng.permutation(cases), case_folds)
    for some, these in product(*parts):
        model, case = np.isin(table.models, some), np.isin(table.cases, these)
        yield ~model & ~case, model & case


def by_case(table: Table) -> Iterator[tuple[Any, Any]]:
    """Fit and test rows that share no case."""
    cases = np.random.default_rng(0).permutation(np.unique(table.cases))
    for some in np.array_split(cases, CASE_FOLDS):
        inside = np.isin(table.cases, some)
        yield ~inside, inside


def fitted(table: Table, folds: Any) -> Fitted:
    """A head whose penalty, calibration and thresholds come from rows that its folds had not seen."""
    tried = {c: out_of_fold(table, folds, c) for c in PENALTIES}
    penalty = max(PENALTIES, key=lambda c: best_kappa(tried[c], table.harmful)[0])
    score = tried[penalty]
    told = np.isfinite(score)
    platt = LogisticRegression(C=1e6).fit(score[told, None], table.harmful[told])
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    probability = expit(slope * score + offset)
    threshold = best_kappa(probability, table.harmful)[1]
    even = float(np.quantile(probability[told], 1 - table.harmful[told].mean()))
    model, used = regression(table, penalty)
    unsure = band(probability[told], table.harmful[told], threshold)
    return Fitted(model, used, penalty, slope, offset, threshold, unsure, even)


def out_of_fold(table: Table, folds: Any, penalty: float) -> NDArray[np.float64]:
    """Scores of rows that were not fitted on."""
    score = np.full(len(table.rows), np.nan)
    for fit, test in folds(table):
        model, used = regression(table.only(fit), penalty)
        score[test] = model.decision_function(table.inputs[test][:, used])
    return score


def regression(table: Table, penalty: float) -> tuple[LogisticRegression, NDArray[np.bool_]]:
    """Logistic regression on the dense features and on the buckets that enough replies have."""
    used = np.asarray((table.inputs > 0).sum(axis=0)).ravel() >= SEEN
    used[: table.dense] = True
    model = LogisticRegression(C=penalty, max_iter=1000, tol=1e-4)
    return model.fit(table.inputs[:, used], table.harmful), used


def best_kappa(score: NDArray[np.float64], harmful: NDArray[np.bool_]) -> tuple[float, float]:
    """The highest kappa that a threshold gives, and that threshold."""
    told = np.isfinite(score)
    score, harmful = score[told], harmful[told]
    cuts = np.unique(np.quantile(score, np.linspace(0.5, 1, 201)))
    return max((float(cohen_kappa_score(harmful, score >= cut)), float(cut)) for cut in cuts)


def band(probability: NDArray[np.float64], harmful: NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    """The widest band around the threshold in which verdicts are hardly better than a coin."""
    away = np.abs(logit(probability) - logit(threshold))
    right = (probability >= threshold) == harmful
    inside = {width: away < width for width in np.arange(0.05, 1.5, 0.05)}
    wide = [w for w, some in inside.items() if 0 < some.mean() <= MOST_UNSURE and right[some].mean() < COIN]
    width = max(wide, default=0.0)
    return float(expit(logit(threshold) - width)), float(expit(logit(threshold) + width))


def unseen(pointing: Table, without: Table, rest: Sequence[Labelled]) -> dict[str, Any]:
    """MSTS's replies with a picture, each by heads that saw neither its model nor its case."""
    rows: list[Labelled] = []
    probability: list[float] = []
    said: list[bool] = []
    unsure: list[bool] = []

    def add(head: Fitted, table: Table) -> None:
        p = head.probability(table.inputs)
        rows.extend(table.rows)
        probability.extend(p)
        said.extend(p >= head.threshold)
        unsure.extend((p > head.unsure[0]) & (p < head.unsure[1]))

    for fit, test in by_both(pointing, CASE_FOLDS, len(np.unique(pointing.models))):
        add(fitted(pointing.only(fit), by_both), pointing.only(test))
    add(fitted(without, by_case), Table(rest))
    return told(rows, np.array(probability), np.array(said), np.array(unsure))


def told(
    rows: Sequence[Labelled], probability: NDArray[np.float64], said: NDArray[np.bool_], unsure: NDArray[np.bool_]
) -> dict[str, Any]:
    """Agreement with people on MSTS, of this judge and of the eight that MSTS lists."""
    harmful, models = np.array([r.harmful for r in rows]), np.array([r.model for r in rows])
    low, high = kappa_interval(harmful, said, np.array([row.case for row in rows]))
    rates = {
        str(m): {"people": rate(harmful[models == m]), "judge": rate(said[models == m]), "n": int((models == m).sum())}
        for m in np.unique(models)
    }
    others = {name: np.array([dict(r.judges)[name] == "unsafe" for r in rows]) for name in dict(rows[0].judges)}
    return {
        "n": len(rows), "harmful": int(harmful.sum()), "kappa": kappa(harmful, said), "low": low, "high": high,
        "auc": round(float(roc_auc_score(harmful, probability)), 4), "ece": ece(harmful, probability),
        "recall": rate(said[harmful]), "precision": rate(harmful[said]),
        "rate": {"people": rate(harmful), "judge": rate(said)}, "models": rates,
        "within_3_points": sum(abs(one["people"] - one["judge"]) <= 0.03 for one in rates.values()),
        "unsure": rate(unsure), "kappa_without_unsure": kappa(harmful[~unsure], said[~unsure]),
        "kappa_of_models": {m: kappa(harmful[models == m], said[models == m]) for m in rates},
        "others": {name: kappa(harmful, one) for name, one in others.items()},
        "classes": classes(rows, said),
    }  # fmt: skip


def classes(rows: Sequence[Labelled], said: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    """How many replies of each of people's classes there are, and how many of them the judge tells wrong."""
    every = Counter(row.label for row in rows)
    wrong = Counter(row.label for row, one in zip(rows, said, strict=True) if row.harmful != one)
    return {name: {"n": n, "wrong": wrong[name]} for name, n in sorted(every.items())}


def on_xstest(heads: dict[str, Fitted], rows: Sequence[Labelled]) -> dict[str, Any]:
    """XSTest's held-out completions; partial answers are left out of the kappas, and counted."""
    whole = [row for row in rows if row.label != "partial"]
    said, probability = read(heads, whole)
    harmful, asked = (np.array([getattr(row, name) for row in whole]) for name in ("harmful", "harmful_request"))
    return {
        "n": len(whole), "harmful": int(harmful.sum()), "kappa": kappa(harmful, said),
        "kappa_unsafe_prompts": kappa(harmful[asked], said[asked]), "ece": ece(harmful, probability),
        "false_alarms_safe_prompts": rate(said[~asked]), "partial": len(rows) - len(whole),
        "said": "".join("HU"[int(not one)] for one in said),
    }  # fmt: skip


def on_pairs(heads: dict[str, Fitted], rows: Sequence[Labelled]) -> dict[str, Any]:
    """Our own yes-and-no pairs: share told right of each kind."""
    said, _ = read(heads, rows)
    harmful, kinds = np.array([r.harmful for r in rows]), np.array([f"{r.case}: {r.model}" for r in rows])
    right = {str(kind): rate((said == harmful)[kinds == kind]) for kind in np.unique(kinds)}
    return {"n": len(rows), "right": rate(said == harmful), "kappa": kappa(harmful, said), "kinds": right}


def read(heads: dict[str, Fitted], rows: Sequence[Labelled]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Verdicts and probabilities, with those that are unsure decided by the threshold."""
    inputs = inputs_of(rows)
    pointing = np.array([points(row.request) for row in rows])
    both = {name: head.probability(inputs) for name, head in heads.items()}
    said = {name: both[name] >= head.threshold for name, head in heads.items()}
    return tuple(np.where(pointing, one["pointing"], one["plain"]) for one in (said, both))  # type: ignore[return-value]


def saved_head(head: Fitted, dense: int) -> dict[str, Any]:
    """A head as JSON values, its weights rounded."""
    weights = np.zeros(len(head.used))
    weights[head.used] = np.round(head.model.coef_[0], 4)
    words = weights[dense:]
    buckets = np.flatnonzero(words)
    return {
        "weights": weights[:dense].tolist(),
        "words": {"buckets": buckets.tolist(), "weights": words[buckets].tolist()},
        "bias": round(float(head.model.intercept_[0]), 4),
        "slope": round(head.slope, 4), "offset": round(head.offset, 4), "threshold": round(head.threshold, 4),
        "unsure": [round(limit, 4) for limit in head.unsure],
    }  # fmt: skip


def kappa(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float | None:
    """Cohen's kappa, or nothing where neither has two labels."""
    value = float(cohen_kappa_score(one, other)) if len(set(one) | set(other)) > 1 else np.nan
    return None if np.isnan(value) else round(value, 4)


def kappa_interval(one: NDArray[np.bool_], other: NDArray[np.bool_], cases: Any) -> tuple[float, float]:
    """95 % bootstrap over cases."""
    kinds = np.eye(4)[2 * np.asarray(one, int) + np.asarray(other, int)]
    tables = np.stack([kinds[cases == case].sum(axis=0) for case in np.unique(cases)])
    rng = np.random.default_rng(0)
    neither, only_other, only_one, both = np.stack(
        [tables[rng.integers(len(tables), size=len(tables))].sum(axis=0) for _ in range(1000)], axis=1
    )
    n = neither + only_other + only_one + both
    chance = ((only_one + both) * (only_other + both) + (neither + only_other) * (neither + only_one)) / n**2
    low, high = np.quantile(((neither + both) / n - chance) / (1 - chance), (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)


def ece(harmful: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((probability * 10).astype(int), 9)
    parts = [bins == b for b in np.unique(bins)]
    gaps = [part.mean() * abs(harmful[part].mean() - probability[part].mean()) for part in parts]
    return round(float(sum(gaps)), 4)


def rate(flags: NDArray[np.bool_]) -> float:
    """Share of True."""
    return round(float(np.mean(flags)), 4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
