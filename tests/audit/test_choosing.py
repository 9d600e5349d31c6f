"""Which replies are chosen for people: worth by hand, the random slice, and rates that chosen labels do not touch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.audit.test_labelling import ANSWER, DECLINE, sample, written

from vlmend.audit.labels.choosing import as_choice, audit_slice
from vlmend.audit.labels.labelling import Item, labels_in, queue_of
from vlmend.audit.labels.report import label_report
from vlmend.audit.labels.session import Session, label_file
from vlmend.errors import BadParameter


def said(label: str, **scores: float) -> dict[str, Any]:
    return {"label": label, "reason": "", "scores": scores}


def read_by(prompt: str, condition: str = "query", **verdicts: dict[str, Any]) -> dict[str, Any]:
    return sample(prompt, ANSWER, condition, verdicts=verdicts)


def chosen(items: list[Item]) -> set[str]:
    return {item.prompt for item in items if item.chosen}


def test_least_sure_judges_come_first(tmp_path: Path) -> None:
    """Judges at 0.55, 0.6, 0.65, ...: of 4 replies one is drawn and the three least sure of the rest are chosen."""
    rows = [read_by(f"loaf {k}", a=said("harmful", harmful=0.5 + k / 20, harmless=0.5 - k / 20)) for k in range(1, 9)]
    items = queue_of(written(tmp_path, rows), 4, 0, choose="uncertainty")
    drawn = {item.prompt for item in items if not item.chosen}
    wanted = [f"loaf {k}" for k in range(1, 9) if f"loaf {k}" not in drawn][:3]
    assert len(drawn) == 1
    assert chosen(items) == set(wanted)


def test_judges_who_part_come_first_and_kinds_of_safe_are_one(tmp_path: Path) -> None:
    both = [read_by(f"agree {k}", a=said("compliance"), b=said("harmful")) for k in range(6)]
    safe = [read_by(f"safe {k}", a=said("refusal"), b=said("off_topic")) for k in range(6)]
    part = [read_by(f"part {k}", a=said("compliance"), b=said("refusal")) for k in range(6)]
    items = queue_of(written(tmp_path, [*both, *safe, *part]), 4, 0, choose="disagreement")
    assert {name.split()[0] for name in chosen(items)} == {"part"}


def test_replies_of_the_worst_row_come_first(tmp_path: Path) -> None:
    fine = [read_by(f"fine {k}", "query", a=said("refusal")) for k in range(12)]
    worse = [read_by(f"worse {k}", "blank", a=said("compliance" if k % 2 else "refusal")) for k in range(12)]
    items = queue_of(written(tmp_path, [*fine, *worse]), 8, 0, choose="worst_group")
    assert {name.split()[0] for name in chosen(items)} == {"worse"}
    assert len(items) == 8


@pytest.mark.parametrize("choose", ["uncertainty", "disagreement", "worst_group"])
def test_a_quarter_stays_a_random_sample_the_same_as_without_choosing(choose: str, tmp_path: Path) -> None:
    rows = [sample(f"loaf {k}", ANSWER if k % 3 else DECLINE) for k in range(40)]
    run = written(tmp_path, rows)
    items = queue_of(run, 20, 3, choose=as_choice(choose))
    drawn = {item.digest for item in items if not item.chosen}
    assert drawn == {item.digest for item in queue_of(run, audit_slice(20), 3)}
    assert Counter(bool(item.chosen) for item in items) == {False: 5, True: 15}
    assert items == queue_of(run, 20, 3, choose=as_choice(choose))


def test_chosen_labels_put_no_rate_right(tmp_path: Path) -> None:
    """40 of 80 labels are random: all say compliance. The 40 chosen ones say refusal, and change nothing."""
    run = written(tmp_path, [sample(f"loaf {k}", ANSWER) for k in range(200)])
    session = Session(queue_of(run, 160, 0, choose="worst_group"), label_file(run, "ann"))
    for place, item in enumerate(session.queue):
        session.label(place, "refusal" if item.chosen else "compliance", 1.0)
    (rate,) = label_report(run)["corrected"]
    assert rate["labels"] == 40
    assert rate["ppi"]["value"] == pytest.approx(1.0)
    kept = labels_in(label_file(run, "ann")).values()
    assert Counter(row.chosen for row in kept) == {"": 40, "worst_group": 120}


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    run = written(tmp_path, [sample("loaf", ANSWER)])
    with pytest.raises(BadParameter, match="Leave one of the two out"):
        queue_of(run, 5, 0, per_condition=True, choose="uncertainty")
    with pytest.raises(BadParameter, match="random, uncertainty"):
        as_choice("best")
