"""A row that fails alone never ends a fit, and where it must, the message counts such rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import RewritePrompt
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatStates
from vlmend.errors import BadData
from vlmend.models.vlm import VLM

BAD = Example("bad", "say <image> now", "harmful")
GOOD = (Example("one", "one", "benign"), Example("two", "two", "benign"))


@dataclass(frozen=True)
class Picky(AbstractMethod[ChatStates]):
    """Raises over the bad row, and, where it must have harmful rows, without them too."""

    name = "picky"
    source = "none"
    needs = "states"
    passes = "0"
    data = "rows"
    raised: ClassVar[Exception] = KeyError("pixel_values")

    harmful: bool = False

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        if any(row.id == "bad" for row in data.examples):
            raise self.raised
        if self.harmful and not data.labelled("harmful"):
            raise BadData("No row is harmful.", "Label some.")
        return self.made(target, data, seed, [RewritePrompt("x")], {})


@pytest.mark.parametrize("raised", [KeyError("k"), AttributeError("a"), ZeroDivisionError("z"), OSError("o")])
def test_whatever_a_row_raises_it_is_left_out(raised: Exception, tiny: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Picky, "raised", raised)
    mend = Picky().fit(tiny, Dataset("set", (BAD, *GOOD)), seed=0)
    assert mend.card.notes[-1].startswith("1 of 3 rows were left out of the fit (bad: ")


def test_without_any_row_of_a_kind_the_message_counts_the_bad_ones(tiny: VLM) -> None:
    with pytest.raises(BadData, match=r"No row is harmful\. 1 of 3 rows cannot be put to the model at all") as problem:
        Picky(harmful=True).fit(tiny, Dataset("set", (BAD, *GOOD)), seed=0)
    assert problem.value.hint == "Label some."
