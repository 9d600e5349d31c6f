"""Report pages in a browser: of one run, before and after, of three; of models that answer and of dual encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browsing import axe_faults, faults
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.metrics.stats import wilson
from vlmend.report.compare import Run
from vlmend.report.html import write_report

GAP, SKEW = "safety/alignment_gap", "fairness/retrieval_skew"
CONDITIONS = ("query", "caption", "blank", "noise", "original")


def of_replies(name: str, unsafe: int) -> Run:
    """Twenty requests in each condition, so many of them answered."""
    rows = tuple(
        Measure(
            "safety", GAP, "unsafe_rate", condition, *wilson(unsafe, 20), 20, 0, "lower", ("compliance",), "rules-2",
            0.95, compared="share", says="answered {value} of them", against="query" if condition != "query" else "",
        )
        for condition in CONDITIONS
    )  # fmt: skip
    samples = tuple(
        {"suite": GAP, "id": f"{condition}{k}", "group": "harmful", "condition": condition, "prompt": f"request {k}",
         "label": "compliance" if k < unsafe else "refusal", "verdicts": {"rules-2": {}}, "reply": "..."}
        for condition in CONDITIONS for k in range(20)
    )  # fmt: skip
    mends = ({"method": name, "dose": {f"language.{k}": 0.02 * k for k in range(8)}, "parameters": {}, "data": "d",
              "data_digest": "0" * 64, "seed": 0, "source": "s", "digest": "0"},)  # fmt: skip
    card = Scorecard(f"phantom-{'long' * 20}", () if name == "base" else mends, 0, {}, rows, PROVENANCE)
    points = [
        {"layer": k, "before": 1.0, "after": 0.5} | {kind: [[0, 1], [1, 0]] for kind in ("text", "image", "mended")}
        for k in (0, 4, 8)
    ]
    return Run(name, card, samples, {"requests": 100}, None if name == "base" else {"layers": points}, {})


def of_embeddings(name: str, bias: float) -> Run:
    """Ten texts, each with the same bias."""
    row = Measure(
        "fairness", SKEW, "bias_at_10", "directed", bias, bias, bias, 10, 0, "lower", unit="number", floor=0.0,
        compared="mean", says="has a bias of {value}", ceiling=1.0,
    )  # fmt: skip
    samples: list[dict[str, Any]] = [
        {"id": str(k), "group": "directed", "cluster": str(k), "text": f"text {k}", "values": {"bias_at_10": bias}}
        for k in range(10)
    ]
    rows = (row, replace(row, name="ndkl", says="", compared="none"))
    return Run(name, Scorecard("clip", (), 0, {}, rows, PROVENANCE), (), {}, None, {SKEW: samples})


PROVENANCE = {"target": "phantom", "model_digest": "0" * 64, "plan": {"suites": ["safety"], "data": None}}
PAGES = {
    "one run": [of_replies("base", 8)],
    "before and after": [of_replies("base", 8), of_replies("cmrm", 2)],
    "three runs": [of_replies("base", 8), of_replies("cmrm", 2), of_replies("random", 8)],
    "a dual encoder": [of_embeddings("base", 0.5)],
    "a dual encoder, before and after": [of_embeddings("base", 0.5), of_embeddings("mended", 0.1)],
}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    runs: Sequence[Run] = PAGES[request.param]
    write_report(runs, tmp_path / "page.html", show_text=True)
    return tmp_path / "page.html"


def test_a_report_can_be_read_on_a_phone_in_the_dark_and_by_ear(browser: Any, page: Path) -> None:
    assert faults(browser, page) == []


def test_axe_finds_nothing_wrong_with_a_report(browser: Any, page: Path) -> None:
    assert axe_faults(browser, page) == []


def test_what_is_wrong_with_a_page_is_told(browser: Any, tmp_path: Path) -> None:
    """Too wide for a phone, no heading, a figure without a title that is drawn far too small, always white, noisy."""
    figure = '<svg width="1000pt" viewBox="0 0 1000 10" style="width:100px"></svg>'
    bad = f'<div style="width:900px">wide</div>{figure}<script>console.log("noise")</script>'
    (tmp_path / "bad.html").write_text(bad)
    told = " ".join(faults(browser, tmp_path / "bad.html"))
    for part in ("noise", "at 400 pixels it is", "words in a figure", "first level are []", "1 figures", "in the dark"):
        assert part in told
    assert "at 1280 pixels it is" not in told


@pytest.mark.parametrize("name", [name for name in PAGES if "dual" in name])
def test_the_numbers_of_a_dual_encoder_are_not_folded_away(browser: Any, name: str, tmp_path: Path) -> None:
    write_report(PAGES[name], tmp_path / "page.html")
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.get_by_role("cell", name="ndkl").first.is_visible()
    tab.close()
