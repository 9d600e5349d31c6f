"""Rows that an attack or a red team wrote, under the whole axis of safety: asked by the suites that are for them."""

from __future__ import annotations

import pytest

from vlmend import registry
from vlmend.audit.plan import suites_of
from vlmend.audit.suite import Suite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image

FIND = {"mode": "m", "template": "t", "draw": "0"}
WRITTEN = {
    "figstep": [{"carrier": "typographic", "attack": "figstep"}] * 4,
    "pgd": [{"attack": "pgd"}] * 4,
    "finds": [{"beside": beside} | FIND for beside in ("text", "photo", "blank", "noise")],
}
"""What stands on the rows of each, beside `of` and `request`."""


@pytest.mark.parametrize("name", WRITTEN)
def test_the_axis_asks_what_was_written_each_question_once(name: str) -> None:
    rows = tuple(
        Example(f"{k}", f"words {k}", "harmful", f"topic {k % 2}", noise_image(16, k),
                attributes={"of": f"row {k}", "request": f"request {k}"} | told)
        for k, told in enumerate(WRITTEN[name])
    )  # fmt: skip
    data = Dataset(name, rows)
    found = suites_of(["safety"], data)
    assert ("safety/finds" in found) == (name == "finds")
    assert "safety/alignment_gap" in found
    for suite in map(registry.suite, found):
        assert isinstance(suite, Suite)
        ids = [question.id for question in suite.questions(data, None)]
        assert ids
        assert len(set(ids)) == len(ids)
