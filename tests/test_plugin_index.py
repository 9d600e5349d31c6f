"""The list of everything that plugs in is what the registry says."""

from __future__ import annotations

from tools.plugin_index import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tools.plugin_index"


def test_every_line_leads_to_a_page_or_says_what_it_is() -> None:
    lines = [line for line in page().splitlines() if line.startswith("| [")]
    assert len(lines) > 80
    assert all(len(line.split(" | ")) == 3 and line.split(" | ")[2].removesuffix(" |") for line in lines)
