"""Writes the tables of docs/suites/judge.md from committed numbers.

    python benchmarks/judge_page.py

`judges.py`, `harm_judge.py` and `refusal_judge.py` make the numbers; a test holds the page to them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
JUDGES = HERE.parent / "src/vlmend/audit/judges"
PAGE = HERE.parent / "docs/suites/judge.md"
BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
AIM = 0.65
"""Kappa on MSTS that issue 16 asks for."""

Held = Mapping[str, Any]


def held() -> dict[str, Any]:
    """The numbers of all judges, and the cards of the two that are fitted."""
    cards = {name: json.loads((JUDGES / f"{name}.json").read_text())["card"] for name in ("harmful", "refusal")}
    return cards | {"judges": json.loads((HERE / "judges.json").read_text())}


def written(page: str, found: Held) -> str:
    """The page with every table as the numbers have it."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block['name']](found)}\n{block[3]}", page)


def on_msts(found: Held) -> str:
    """Every judge's kappa on MSTS."""
    judges = found["judges"]["judges"] + found["judges"]["listed_by_msts"]
    rows = sorted(((row["judge"], row["sets"]["MSTS"]) for row in judges), key=lambda pair: -pair[1]["kappa"])
    return table(
        ("judge", "n", "kappa", "95 %", "recall", "precision"),
        [(name, one["n"], f"{one['kappa']:.3f}", interval(one), *shares(one)) for name, one in rows],
    )


def of_harmful(found: Held) -> str:
    """How the judge of harm does on MSTS, in words."""
    one = found["harmful"]["msts_unseen"]
    met = "met" if one["kappa"] >= AIM else "missed"
    low, high = (one[name] for name in ("low", "high"))
    return (
        f"The aim was {AIM}, and is {met}: {one['kappa']:.3f} [{low:.3f}, {high:.3f}]. AUC {one['auc']:.3f}, expected "
        f"calibration error {one['ece']:.3f} (ten bins). It calls {percent(one['rate']['judge'])} harmful, people "
        f"{percent(one['rate']['people'])}; {one['within_3_points']} of the ten models are within 3 points of people's."
    )


def by_model(found: Held) -> str:
    """People's and the judge's rate of each model, and every embedded judge's kappa."""
    models = found["harmful"]["msts_unseen"]["models"]
    judges = found["judges"]["judges"]
    return table(
        ("model", "people", judges[0]["judge"], *(f"kappa of {row['judge']}" for row in judges)),
        [
            (
                name.replace("--", "/"),
                percent(one["people"]),
                percent(one["judge"]),
                *(number(row["models"][name]["kappa"]) for row in judges),
            )
            for name, one in models.items()
        ],
    )


def classes(found: Held) -> str:
    """Which of people's classes the judge of harm tells wrong."""
    rows = found["harmful"]["msts_unseen"]["classes"]
    return table(
        ("people say", "replies", "told wrong", ""),
        [
            (name.partition(" - ")[2], one["n"], one["wrong"], percent(one["wrong"] / one["n"]))
            for name, one in rows.items()
        ],
    )


def elsewhere(found: Held) -> str:
    """Every embedded judge on the other sets."""
    sets = {name: of for name, of in found["judges"]["sets"].items() if name != "MSTS"}
    return table(
        ("kappa on", "n", "harmful", *(row["judge"] for row in found["judges"]["judges"])),
        [
            (name, of["n"], of["harmful"], *(told(row["sets"][name]) for row in found["judges"]["judges"]))
            for name, of in sets.items()
        ],
    )


def pairs(found: Held) -> str:
    """The judge of harm on pairs of a yes and a no."""
    one = found["harmful"]["yes_no"]
    names = sorted({kind.partition(": ")[0] for kind in one["kinds"]})
    said = f"\n{percent(one['right'])} of {one['n']} are told right, kappa {one['kappa']:.2f}."
    rows = [(name, *(percent(one["kinds"][f"{name}: {word}"]) for word in ("yes", "no"))) for name in names]
    return table(("kind", "yes told right", "no told right"), rows) + "\n" + said


def one_question(found: Held) -> str:
    """Two judges on the same replies and question."""
    return table(
        ("set", "over", "judges", "n", "right", "only the first is", "only the second is", "p"),
        [
            (
                row["set"],
                row["over"],
                " and ".join(row["judges"]),
                row["n"],
                " and ".join(map(percent, row["right"])),
                row["only_first"],
                row["only_second"],
                "< 0.001" if row["p"] < 0.001 else f"{row['p']:.2g}",
            )
            for row in found["judges"]["paired"]
        ],
    )


def speeds(found: Held) -> str:
    """Milliseconds of one core a reply."""
    kinds = list(found["judges"]["judges"][0]["ms"])
    rows = [(row["judge"], *(f"{row['ms'][kind]:.1f}" for kind in kinds)) for row in found["judges"]["judges"]]
    return table(("ms a reply, median", *kinds), rows)


def refusals(found: Held) -> str:
    """The judge of refusals on XSTest's held-out prompts, beside the phrase list and people."""
    one = found["refusal"]
    rows = {
        "refusal-1": one["held_out"], "refusal-1, replies cut to 40 words (full ones only)": one["held_out_cut"],
        "rules-2 (phrase list)": one["rules_held_out"], "one annotator against the other": one["humans"],
        "refusal-1, on a model that was not fitted on (fitting part)": one["new_model"],
    }  # fmt: skip
    names = ("accuracy", "kappa", "accuracy_answered", "kappa_answered")
    return table(
        ("", "n", "three classes: accuracy", "kappa", "answered in full or not: accuracy", "kappa"),
        [(name, of["n"], *(f"{of[key]:.3f}" for key in names)) for name, of in rows.items()],
    )


def confusion(found: Held) -> str:
    """What the judge of refusals calls what."""
    one = found["refusal"]["held_out"]["confusion"]
    rows = [(f"people: {name}", *counts) for name, counts in zip(one["labels"], one["counts"], strict=True)]
    return table(("refusal-1 says", *one["labels"]), [row for row in rows if any(row[1:])])


def hand_labels(found: Held) -> str:
    """The judges of refusals on the phantom's labels."""
    return table(
        ("", "n", "agreement with the hand labels", "kappa", "told wrong"),
        [
            (
                row["judge"],
                row["n"],
                f"{row['agreement']:.3f}",
                f"{row['kappa']:.3f}",
                "; ".join(f"{count} {what}" for what, count in row["wrong"].items()),
            )
            for row in found["judges"]["hand_labels"]
        ],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; all but the first column to the right."""
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def told(one: Held) -> str:
    """Kappa with its interval, and how many replies it leaves out."""
    left = f", {one['unscored']} unscored" if one["unscored"] else ""
    return f"{one['kappa']:.2f} {interval(one, 2)}{left}"


def interval(one: Held, digits: int = 3) -> str:
    """Its limits."""
    return f"[{one['low']:.{digits}f}, {one['high']:.{digits}f}]"


def shares(one: Held) -> tuple[str, str]:
    """Recall and precision."""
    return percent(one["recall"]), percent(one["precision"])


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """A kappa, or nothing."""
    return "" if value is None else f"{value:.2f}"


TABLES: dict[str, Callable[[Held], str]] = {
    "msts": on_msts, "harmful": of_harmful, "models": by_model, "classes": classes, "elsewhere": elsewhere,
    "pairs": pairs, "one question": one_question, "speed": speeds, "refusals": refusals, "confusion": confusion,
    "hand labels": hand_labels,
}  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), held()))
