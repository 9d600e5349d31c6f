"""What models, endpoints and users wrote reaches the terminal and build systems as plain words."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from vlmend import printing
from vlmend.core.measures import Scorecard
from vlmend.core.printable import printable
from vlmend.report.gates import write_junit

HOSTILE = "cmrm[v2] [/b] :smile: \x1b]0;title\x07\x1b[2J \x9b31m \u202egnp.exe"


@pytest.mark.parametrize("terminal", [True, False])
def test_markup_stays_as_it_is_and_control_characters_go(terminal: bool) -> None:
    out = io.StringIO()
    console = printing._Console(file=out, force_terminal=terminal, width=200, color_system=None)
    table = Table("name", box=None)
    table.add_row(HOSTILE)
    console.print(HOSTILE, soft_wrap=True)
    console.print(table)
    shown = out.getvalue()
    assert shown.count("cmrm[v2] [/b] :smile:") == 2
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


@given(st.text(alphabet=st.characters()))
def test_what_is_printable_stays_and_what_is_not_never_passes(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert printable(shown) == shown
    ElementTree.fromstring(ElementTree.tostring(ElementTree.Element("a", name=shown), encoding="unicode"))


def test_junit_is_xml_whatever_a_model_is_called(tmp_path: Path) -> None:
    write_junit(Scorecard("model\x00", (), 0, {}, (), {}, complete=True), [], tmp_path / "junit.xml")
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("name") == "vlmend model\ufffd"
