"""The guide's table of runtimes and edits is what the exporters say of themselves."""

from __future__ import annotations

from tools.export_table import PAGE, page, table


def test_the_table_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "write it anew: python -m tools.export_table"


def test_every_kind_of_edit_has_a_line_and_every_no_its_reason() -> None:
    lines = [line.strip("| ").split(" | ") for line in table().splitlines()]
    assert all(len(line) == len(lines[0]) for line in lines)
    told = " ".join(line[0] for line in lines)
    assert all(f"`{kind}`" in told for kind in ("ProjectOut", "LoadAdapter", "AlignReply"))
    cells = [cell for line in lines[2:-1] for cell in line[1:]]
    assert {cell.partition(":")[0] for cell in cells} == {"yes", "no", "`--always`"}
    assert all(len(cell) > 15 for cell in cells if cell.startswith("no"))
