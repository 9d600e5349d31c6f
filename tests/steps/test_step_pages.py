"""The tables of trained runs on the pages of steps are those that the committed runs give."""

from __future__ import annotations

import json

import pytest
from tools import steps
from tools.steps import ROOT, RUNS, STUDIES, page_of, table, trained

from vlmend.phantom.mini.pairs import scene_pairs
from vlmend.phantom.mini.scenes import Scene, Thing


def run(arm: str, seed: int, first: float, second: float) -> dict[str, object]:
    values = {"caption found": [first, 0.1, 0.9, 500], "picture found": [second, 0.2, 0.8, 500]}
    return {"study": "mixgen", "arm": arm, "seed": seed, "values": values}


def test_a_table_has_arms_in_order_with_what_each_gains_on_the_first() -> None:
    runs = [run("mixgen", 0, 0.5, 0.25), run("pairs as they are", 0, 0.375, 0.5), run("mixgen", 1, 0.5, 0.5)]
    assert table(runs, "mixgen").splitlines() == [
        "|  | seed | caption found | picture found |", "| --- | --- | --- | --- |",
        "| pairs as they are | 0 | 0.38 [0.10, 0.90] | 0.50 [0.20, 0.80] |",
        "| mixgen | 0 | 0.50 [0.10, 0.90] | 0.25 [0.20, 0.80] |",
        "| mixgen | 1 | 0.50 [0.10, 0.90] | 0.50 [0.20, 0.80] |", "| chance |  | 0.002 | 0.002 |",
        "| **mixgen** less pairs as they are | each | +0.12 | -0.25 |",
    ]  # fmt: skip


def test_every_page_shows_the_committed_runs() -> None:
    """`python -m tools.steps pages` writes them anew."""
    runs = json.loads(RUNS.read_text())
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "steps").glob("*.md")}
    assert [name for name, text in pages.items() if page_of(text, runs) != text] == []
    shown = {one["study"] for one in runs}
    assert [one for one in sorted(shown) if f"<!-- runs: {one} -->" not in pages[STUDIES[one].step]] == []
    assert {one["arm"] for one in runs} <= {arm for study in STUDIES.values() for arm in study.arms}


@pytest.mark.parametrize("parameters", [None, {}])
def test_arms_are_trained_on_what_the_step_makes_of_the_rows(
    parameters: dict[str, object] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 scenes and one step: without the step each caption is of the rows, with biaug hard negatives are read too."""
    scenes = [Scene((Thing("red", "square", k % 4),), "white") for k in range(63)]
    rows = scene_pairs("few", [*scenes, Scene((Thing("blue", "ring", 0),), "white")], 0)
    read: list[int] = []

    def counted(images: object, texts: object, negatives: object, scale: object) -> object:
        read.append(len(negatives))  # type: ignore[arg-type]
        return 0.0

    monkeypatch.setattr(steps, "counterpart_loss", counted)
    study = steps.Study("biaug", lambda seed: rows, {}, lambda encoder: {}, {}, steps=1)
    encoder = trained(study, parameters, 0)
    assert read == ([] if parameters is None else [64])
    assert encoder.logits(rows.examples[:2], ["a red square", "a blue ring"]).shape == (2, 2)
