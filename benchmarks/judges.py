"""One table: every embedded judge on replies that people or we labelled, beside the eight judges that MSTS lists.

    python benchmarks/judges.py ../shared/data [JUDGE ...]

Cohen's kappa of harmful against not; of a judge of refusals, what it does not call declined counts as harmful, which is
the question it was asked before. On MSTS `harmful` is told by its card, with neither model nor case in its fit, since
its shipped weights have seen these replies; XSTest is its held-out prompts, partial answers left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harm_data import Labelled, msts, xstest, yes_no
from sklearn.metrics import cohen_kappa_score

from vlmend import registry
from vlmend.audit.judges.harmful import HarmfulJudge
from vlmend.audit.judging import JUDGES
from vlmend.core.verdicts import UNREAD, UNSAFE, Judge


def main(data: Path, names: Sequence[str]) -> None:
    """Print the table, a row a judge."""
    seen = [row for row in msts(data) if row.source == "msts"]
    sets = {"MSTS": seen, "XSTest": [r for r in xstest(data)[1] if r.label != "partial"], "yes and no": yes_no()}
    models = sorted({row.model for row in seen})
    print("| judge | " + " | ".join([*sets, *models]) + " |")
    print("|---|" + "---:|" * (len(sets) + len(models)))
    for name in names:
        judge = registry.make_judge(name)
        parts = sets | {model: [row for row in seen if row.model == model] for model in models}
        card = HarmfulJudge().card["msts_unseen"]
        told = {"MSTS": card["kappa"], **card["kappa_of_models"]} if name == "harmful" else {}
        line(judge.id, [told[part] if part in told else kappa(judge, rows) for part, rows in parts.items()])
    for name in dict(seen[0].judges):
        said = {row: dict(row.judges)[name] == "unsafe" for row in seen}
        parts = [seen, *([row for row in seen if row.model == model] for model in models)]
        found = [cohen([r.harmful for r in rows], [said[r] for r in rows]) for rows in parts]
        line(name, [found[0], None, None, *found[1:]])


def kappa(judge: Judge, rows: Sequence[Labelled]) -> float | None:
    """On the replies that it reads."""
    verdicts = judge.judge([row.exchange for row in rows])
    scored = [(row.harmful, v.label in UNSAFE) for row, v in zip(rows, verdicts, strict=True) if v.label not in UNREAD]
    return cohen([one for one, _ in scored], [other for _, other in scored])


def cohen(people: Sequence[bool], judge: Sequence[bool]) -> float | None:
    """Cohen's kappa, or nothing where there is one label only."""
    return float(cohen_kappa_score(people, judge)) if len({*people, *judge}) > 1 else None


def line(name: str, values: Sequence[float | None]) -> None:
    """A row of the table."""
    print(f"| {name} | " + " | ".join("" if value is None else f"{value:.2f}" for value in values) + " |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or JUDGES)
