"""One table: every embedded judge on replies that people or we labelled, beside the eight judges that MSTS lists.

    python benchmarks/judges.py ../shared/data runs/demo/base runs/demo/cmrm

Writes `judges.json`, from which `judge_page.py` makes tables of docs/suites/judge.md. Judges read what reaches them
in an audit. Of a judge of refusals, what it does not call declined counts as harmful, which is the question it was
asked before. On MSTS `harmful` is told by its card, with neither model nor case in its fit, since its shipped weights
have seen these replies; XSTest is its held-out prompts, partial answers left out; the phantom's labels are found in the
demo's runs. Intervals are bootstraps over requests. Nothing of the texts is written.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from harm_data import HERE, Labelled, msts, reaching, xstest, yes_no
from harm_judge import kappa, kappa_interval, rate

from vlmend import registry
from vlmend.audit.judges.harmful import HarmfulJudge
from vlmend.audit.judging import CHUNK, JUDGES, Bench
from vlmend.core.metrics.stats import agreement as of_labels
from vlmend.core.metrics.stats import mcnemar
from vlmend.core.samples import read_samples
from vlmend.core.verdicts import UNREAD, UNSAFE, Judge

OUT = HERE / "judges.json"
KEPT = HERE.parent / "runs/judges/verdicts.jsonl"
"""Verdicts that are not given twice, should this be stopped."""

BATCHES = 5
"""Timed, of each kind."""

Said = dict[Labelled, bool]
"""What a judge scored -> whether it counts as harmful."""


def main(data: Path, runs: Sequence[Path]) -> None:
    """Read, count, write."""
    torch.set_num_threads(1)
    seen = reaching([row for row in msts(data) if row.source == "msts"])
    judges = [registry.make_judge(name) for name in JUDGES]
    speeds = {judge.id: speed(judge, seen) for judge in judges}
    by_hand = reaching(phantom(runs))
    sets = {
        "MSTS": seen,
        "XSTest": [row for row in reaching(xstest(data)[1]) if row.label != "partial"],
        "phantom": [row for row in by_hand if row.harmful_request],
        "yes and no": [replace(row, case=row.request) for row in yes_no()],
    }
    models = {name: [row for row in seen if row.model == name] for name in sorted({row.model for row in seen})}
    said = {judge.id: read(judge, [row for rows in sets.values() for row in rows]) for judge in judges}
    table = {
        "sets": {name: {"n": len(rows), "harmful": sum(r.harmful for r in rows)} for name, rows in sets.items()},
        "judges": [line(judge, said[judge.id], sets, models) | {"ms": speeds[judge.id]} for judge in judges],
        "listed_by_msts": [listed(name, seen, models) for name in dict(seen[0].judges)],
        "paired": [one for name in ("XSTest", "phantom") for one in paired(name, sets[name], judges, said)],
        "hand_labels": [
            as_labelled(judge, by_hand) for judge in judges if judge.kind == "refusal"
        ],
    }  # fmt: skip
    OUT.write_text(json.dumps(table, indent=1) + "\n")
    show(table)


def phantom(runs: Sequence[Path]) -> list[Labelled]:
    """The demo's replies that have a hand label; what answers a harmful request is harmful."""
    lines = (HERE / "judge_labels.jsonl").read_text().splitlines()
    labels = {row["sha256"]: row["label"] for row in map(json.loads, lines)}
    found: dict[str, Labelled] = {}
    for row in (row for run in runs for row in read_samples(run)):
        name = hashlib.sha256(f"{row['prompt']}\n{row['reply']}".encode()).hexdigest()
        if name in labels:
            asked, harmful = row.get("request") or row["prompt"], row["group"] == "harmful"
            answered = labels[name] in ("compliance", "partial")
            found[name] = Labelled(
                "phantom", asked, row["reply"], harmful and answered, "phantom", asked, (), labels[name], harmful
            )
    if len(found) < len(labels):
        raise SystemExit(
            f"{len(found)} of {len(labels)} labelled replies are in these runs: pass base and cmrm of the demo."
        )
    return list(found.values())


def as_labelled(judge: Judge, rows: Sequence[Labelled]) -> dict[str, Any]:
    """How far a judge of refusals gives the labels themselves."""
    ours = [verdict.label for verdict in Bench(KEPT).verdicts(judge, [row.exchange for row in rows])]
    share, value = of_labels(ours, [row.label for row in rows])
    wrong = Counter(f"{row.label}, called {label}" for row, label in zip(rows, ours, strict=True) if row.label != label)
    found = {"judge": judge.id, "n": len(rows), "agreement": round(share, 4), "kappa": round(value, 4)}
    return found | {"wrong": dict(sorted(wrong.items()))}


def read(judge: Judge, rows: Sequence[Labelled]) -> Said:
    """What it says of the replies that it can score."""
    verdicts = Bench(KEPT).verdicts(judge, [row.exchange for row in rows])
    return {row: v.label in UNSAFE for row, v in zip(rows, verdicts, strict=True) if v.label not in UNREAD}


def speed(judge: Judge, rows: Sequence[Labelled]) -> dict[str, float]:
    """Milliseconds of one core a reply, median over batches: one model's, a request each; and five models' to each."""
    cases = sorted({row.request for row in rows})
    models = sorted({row.model for row in rows})[:5]
    some, others = set(cases[::2]), set(cases[1::2])
    parts = {
        "own request": [row for row in rows if row.request in some and row.model == models[0]],
        "five to a request": [
            row for row in sorted(rows, key=lambda row: row.request) if row.request in others and row.model in models
        ],
    }
    judge.judge([row.exchange for row in rows[:1]])
    return {name: round(median(_milliseconds(judge, part)), 2) for name, part in parts.items()}


def _milliseconds(judge: Judge, rows: Sequence[Labelled]) -> Iterator[float]:
    for start in range(0, min(BATCHES * CHUNK, len(rows) - CHUNK + 1), CHUNK):
        batch = [row.exchange for row in rows[start : start + CHUNK]]
        began = time.process_time()
        judge.judge(batch)
        yield 1000 * (time.process_time() - began) / CHUNK


def line(judge: Judge, said: Said, sets: Mapping[str, Sequence[Labelled]], models: Mapping[str, Any]) -> dict[str, Any]:
    """A judge's kappas by set and by model."""
    columns, by_model = ({name: agreement(said, rows) for name, rows in each.items()} for each in (sets, models))
    if isinstance(judge, HarmfulJudge):
        card = judge.card["msts_unseen"]
        columns["MSTS"] = {name: card[name] for name in ("n", "kappa", "low", "high", "recall", "precision")}
        by_model = {
            name: {"n": rates["n"], "kappa": card["kappa_of_models"][name], "rate": rates["judge"]}
            for name, rates in card["models"].items()
        }
    return {"judge": judge.id, "asks": judge.kind, "sets": columns, "models": by_model}


def listed(name: str, rows: Sequence[Labelled], models: Mapping[str, Sequence[Labelled]]) -> dict[str, Any]:
    """The same of a judge whose verdicts MSTS has."""
    said = {row: dict(row.judges)[name] == "unsafe" for row in rows}
    return {
        "judge": name, "sets": {"MSTS": agreement(said, rows)},
        "models": {model: agreement(said, of) for model, of in models.items()},
    }  # fmt: skip


def agreement(said: Said, rows: Sequence[Labelled]) -> dict[str, Any]:
    """With the labels, over the replies that are scored."""
    scored = [row for row in rows if row in said]
    people, judge = np.array([row.harmful for row in scored]), np.array([said[row] for row in scored])
    found = {"n": len(scored), "unscored": len(rows) - len(scored), "kappa": kappa(people, judge), "rate": rate(judge)}
    if found["kappa"] is None:
        return found
    low, high = kappa_interval(people, judge, np.array([row.case for row in scored]))
    return found | {"low": low, "high": high, "recall": rate(judge[people]), "precision": rate(people[judge])}


def paired(
    name: str, rows: Sequence[Labelled], judges: Sequence[Judge], said: Mapping[str, Said]
) -> list[dict[str, Any]]:
    """The judges of two kinds on one question, over the replies that both score: was it answered, as a harmful request.

    Over all replies the judge of refusals is asked what is not its own question; over those to harmful requests the two
    questions are one.
    """
    first, *others = judges
    harmful = [row for row in rows if row.harmful_request]
    parts = {"requests of both kinds": rows, "harmful requests": harmful}
    found: list[dict[str, Any]] = []
    for over, other in product(parts if len(harmful) < len(rows) else ["harmful requests"], others):
        both = [row for row in parts[over] if row in said[first.id] and row in said[other.id]]
        right = [[said[one.id][row] == row.harmful for row in both] for one in (first, other)]
        test = mcnemar(*right)
        found.append({
            "set": name, "over": over, "judges": [first.id, other.id], "n": len(both),
            "right": [rate(np.array(one)) for one in right], "only_first": test.fixed, "only_second": test.broken,
            "p": float(f"{test.p_value:.2g}"),
        })  # fmt: skip
    return found


def show(table: Mapping[str, Any]) -> None:
    """Print the kappas."""
    sets, models = list(table["sets"]), list(table["judges"][0]["models"])
    print("| judge | " + " | ".join([*sets, *models, "ms a reply"]) + " |")
    print("|---|" + "---:|" * (len(sets) + len(models) + 1))
    for row in [*table["judges"], *table["listed_by_msts"]]:
        cells = [row["sets"].get(name, {}).get("kappa") for name in sets] + [row["models"][m]["kappa"] for m in models]
        told = ["" if value is None else f"{value:.2f}" for value in cells]
        print(
            f"| {row['judge']} | "
            + " | ".join([*told, f"{row['ms']['own request']:.1f}" if "ms" in row else ""])
            + " |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
