"""The contract of exporters, law by law, over every registered one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmend import registry
from vlmend.testing import laws_of_exporter

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "law"), [(name, law) for name in registry.names("exporters") for law in laws_of_exporter(name, DOCS)]
)
def test_an_exporter_keeps_the_law(name: str, law: str) -> None:
    laws_of_exporter(name, DOCS)[law]()
