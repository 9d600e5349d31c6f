"""Fits the head of the refusal judge and writes it with its card of numbers.

    python benchmarks/refusal_judge.py ../shared/data/xstest_completions/completions.jsonl

30 % of the prompts (by the digest of their id) are kept out of everything but the last table; penalty and
class weights are chosen in the other 70 %, by the mean of two cross-validated kappas: over prompts, and over
the models that wrote the completions, since a judge meets models it was not fitted on. Each full answer and each full
refusal of the fitting part is also given cut to its first 40 words, since audits cut replies; partial
refusals are not cut, because the cut may remove what makes them so. Nothing of the texts is written.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from vlmend.audit.judges.refusal import features
from vlmend.audit.judges.rules import RuleJudge
from vlmend.core.verdicts import Exchange
from vlmend.models.judging.sentences import WHEEL, encoder

LABELS = {"1_full_compliance": "compliance", "3_partial_refusal": "partial", "2_full_refusal": "refusal"}
NAMES = list(LABELS.values())
OUT = Path(__file__).parents[1] / "src/vlmend/audit/judges/refusal.json"
Setting = tuple[float, str | None]
SETTINGS: list[Setting] = [(c, weight) for c in (0.3, 1.0, 3.0, 10.0) for weight in ("balanced", None)]
CUT_WORDS = 40


def main(file: Path) -> None:
    """Fit, measure, write."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    fit, test = [r for r in rows if not held_out(r)], [r for r in rows if held_out(r)]
    data = Table(fit)
    scores = {
        setting: {
            "new_prompts": data.cross_validated(setting, GroupKFold(5), data.prompts),
            "new_model": data.cross_validated(setting, LeaveOneGroupOut(), data.models),
        }
        for setting in SETTINGS
    }
    best = max(SETTINGS, key=lambda setting: sum(table["kappa"] for table in scores[setting].values()))
    model = classifier(best).fit(data.inputs, data.labels)
    said = predicted(model, [r["completion"] for r in test])
    card: dict[str, Any] = {
        "data": {
            "name": "XSTest completions with human labels (Röttger et al., NAACL 2024), labels CC BY 4.0",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "fitted_on": len(fit), "cut_copies": len(data.labels) - len(fit), "held_out": len(test),
        },
        "chosen": {"C": best[0], "class_weight": best[1]},
        "tried": [
            {"C": c, "class_weight": weight, **{kind: t["kappa"] for kind, t in scores[c, weight].items()}}
            for c, weight in SETTINGS
        ],
        **scores[best],
        "held_out": agreement([LABELS[r["label"]] for r in test], said),
        "held_out_said": "".join(label[0] for label in said),
        "held_out_cut": cut_table(model, test),
        "rules_held_out": agreement(
            [LABELS[r["label"]] for r in test],
            [v.label for v in RuleJudge().judge([Exchange(r["prompt"], r["completion"]) for r in test])],
        ),
        "humans": agreement(*([LABELS[r["annotations"][k]] for r in test] for k in (0, 1))),
        "encoder": {"wheel": WHEEL, "fingerprint": encoder().digest},
        "versions": {name: version(name) for name in ("scikit-learn", "torch", "transformers")},
    }  # fmt: skip
    head = {
        "labels": list(model.classes_), "weights": np.round(model.coef_, 5).tolist(),
        "bias": np.round(model.intercept_, 5).tolist(), "card": card,
    }  # fmt: skip
    OUT.write_text(json.dumps(head) + "\n")
    print(json.dumps(card, indent=2))


class Table:
    """The fitting part with its cut copies, as arrays."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        whole = [(r["completion"], LABELS[r["label"]], r["id"], r["model"]) for r in rows]
        cut = [(first_words(text), *rest) for text, *rest in whole if rest[0] != "partial"]
        texts, labels, prompts, models = zip(*whole, *cut, strict=True)
        self.whole = len(whole)
        self.inputs = features(texts)
        self.labels, self.prompts, self.models = np.array(labels), np.array(prompts), np.array(models)

    def cross_validated(self, setting: Setting, folds: Any, groups: np.ndarray) -> dict[str, Any]:
        """Agreement on the whole texts of folds that the model has not seen."""
        said = cross_val_predict(classifier(setting), self.inputs, self.labels, groups=groups, cv=folds)
        return agreement(list(self.labels[: self.whole]), list(said[: self.whole]))


def classifier(setting: Setting) -> LogisticRegression:
    """Multinomial logistic regression."""
    return LogisticRegression(C=setting[0], class_weight=setting[1], max_iter=5000)


def predicted(model: LogisticRegression, texts: list[str]) -> list[str]:
    """Classes of whole texts."""
    return list(model.predict(features(texts)))


def cut_table(model: LogisticRegression, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Held-out full answers and refusals, cut to their first words."""
    kept = [r for r in rows if LABELS[r["label"]] != "partial"]
    return agreement([LABELS[r["label"]] for r in kept], predicted(model, [first_words(r["completion"]) for r in kept]))


def agreement(human: list[str], said: list[str]) -> dict[str, Any]:
    """Accuracy and kappa over three classes, and over answered in full or not; rows of the table are human labels."""
    full, judged = [h == "compliance" for h in human], [s == "compliance" for s in said]
    names = [*NAMES, *sorted(set(said) - set(NAMES))]
    return {
        "n": len(human),
        "accuracy": share(human, said),
        "kappa": round(float(cohen_kappa_score(human, said)), 4),
        "accuracy_answered": share(full, judged),
        "kappa_answered": round(float(cohen_kappa_score(full, judged)), 4),
        "confusion": {"labels": names, "counts": confusion_matrix(human, said, labels=names).tolist()},
    }


def share(first: list[Any], second: list[Any]) -> float:
    """Share of equal entries."""
    return round(float(np.mean([a == b for a, b in zip(first, second, strict=True)])), 4)


def first_words(text: str) -> str:
    """The beginning of a text."""
    return " ".join(text.split()[:CUT_WORDS])


def held_out(row: dict[str, Any]) -> bool:
    """30 % of the prompts, the same for every model's completion."""
    return int(hashlib.sha256(row["id"].encode()).hexdigest()[:8], 16) / 16**8 < 0.3


if __name__ == "__main__":
    main(Path(sys.argv[1]))
