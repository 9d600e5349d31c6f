"""The tables of measured runs on the pages of methods are those that the committed runs give."""

from __future__ import annotations

import json
import re

from tools.robustness import ROOT, RUNS, page_of, table

BASE = {
    "method": "none",
    "seed": 0,
    "set": {},
    "values": {"accuracy clean": [0.9, 0.85, 0.95, 100], "auroc": [0.5, 0.4, 0.6, 9]},
}
RUN = {"method": "some", "seed": 1, "set": {"steps": 3}, "values": {"accuracy clean": [0.5, 0.4, 0.6, 100]}}


def test_a_table_has_the_base_first_and_only_columns_in_which_the_method_has_numbers() -> None:
    assert table([RUN, BASE], "some").splitlines() == [
        "|  | clean |", "| --- | --- |", "| base | 0.90 [0.85, 0.95] |", "| steps 3, seed 1 | 0.50 [0.40, 0.60] |",
    ]  # fmt: skip


def test_a_table_of_several_methods_names_all_but_the_last() -> None:
    """The page is that of the last; the others stand there to be compared with."""
    plain = {**RUN, "method": "plain"}
    assert table([RUN, BASE, plain], "plain", "some").splitlines()[2:] == [
        "| base | 0.90 [0.85, 0.95] |", "| plain, steps 3, seed 1 | 0.50 [0.40, 0.60] |",
        "| steps 3, seed 1 | 0.50 [0.40, 0.60] |",
    ]  # fmt: skip


def test_only_what_stands_between_the_marks_is_written_anew() -> None:
    page = "before\n<!-- runs: some -->\nold\n<!-- end -->\nafter\n"
    written = page_of(page, [BASE, RUN])
    assert written == f"before\n<!-- runs: some -->\n{table([BASE, RUN], 'some')}\n<!-- end -->\nafter\n"
    assert page_of(written, [BASE, RUN]) == written


def test_every_page_shows_the_committed_runs() -> None:
    """`python -m tools.robustness pages` writes them anew."""
    runs = json.loads(RUNS.read_text())
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert [name for name, text in pages.items() if page_of(text, runs) != text] == []
    shown = {run["method"] for run in runs} - {"none"}
    assert [name for name in sorted(shown) if not re.search(rf"<!-- runs: ([\w ]+ )?{name} -->", pages[name])] == []
