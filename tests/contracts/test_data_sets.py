"""The contract of data adapters, law by law, over every set that is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmend.data.catalogue import adapters
from vlmend.testing import laws_of_adapter

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "law"), [(name, law) for name in adapters() for law in laws_of_adapter(name, DOCS)])
def test_an_adapter_keeps_the_law(name: str, law: str) -> None:
    laws_of_adapter(name, DOCS)[law]()
