"""The contract of steps, law by law, over every registered one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmend import registry
from vlmend.testing import laws_of_step

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "law"), [(name, law) for name in registry.names("steps") for law in laws_of_step(name, DOCS)]
)
def test_a_step_keeps_the_law(name: str, law: str) -> None:
    laws_of_step(name, DOCS)[law]()
