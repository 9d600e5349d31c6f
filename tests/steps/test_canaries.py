"""canaries: planted as often as told, the control never; the manifest asks for each once; deduplicate leaves one."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from vlmend.core.examples import Dataset, Example
from vlmend.errors import BadData, BadParameter
from vlmend.steps.privacy.canaries import Canaries
from vlmend.steps.privacy.deduplicate import Deduplicate

BASE = Dataset("rows", (Example("a", "what is it?", answers=("a cat",)), Example("b", caption="a dog")), "MIT")
FEW = {"each": 3, "repeats": "0 1 4", "side": 64}


def manifest_of(step: Canaries, seed: int = 0) -> tuple[Example, ...]:
    return Canaries(**{**step.parameters, "emit": "manifest"}).apply(BASE, seed=seed).data.examples


def test_each_canary_is_planted_as_often_as_its_number_and_the_control_never() -> None:
    step = Canaries(**FEW)
    edit = step.apply(BASE, seed=0)
    assert edit.data.examples[:2] == BASE.examples
    planted = Counter(row.prompt for row in edit.data.examples[2:])
    asked = {row.prompt: int(row.attributes["repeats"]) for row in manifest_of(step)}
    assert Counter(asked.values()) == {0: 3, 1: 3, 4: 3}
    assert planted == {prompt: count for prompt, count in asked.items() if count}
    words = " ".join(f"{row.prompt} {row.caption} {row.answers}" for row in edit.data.examples)
    control = [row for row in manifest_of(step) if row.attributes["repeats"] == "0"]
    assert not [row for row in control if row.prompt in words or f"'{row.answers[0]}'" in words]


def test_the_manifest_has_the_codes_that_were_planted_and_another_seed_has_others() -> None:
    step = Canaries(**FEW)
    planted = {row.prompt: row.answers for row in step.apply(BASE, seed=3).data.examples[2:]}
    told = {row.prompt: row.answers for row in manifest_of(step, seed=3)}
    assert planted.items() <= told.items()
    assert all(re.fullmatch(r"\d{4}", code) for (code,) in told.values())
    assert not told.keys() & {row.prompt for row in manifest_of(step, seed=4)}


@pytest.mark.parametrize(
    ("carrier", "said", "drawn"), [("text", True, False), ("picture", False, True), ("both", True, True)]
)
def test_the_code_stands_where_the_carrier_says(carrier: str, said: bool, drawn: bool) -> None:
    step = Canaries(**FEW, carrier=carrier)  # pyright: ignore[reportArgumentType]
    asked = {row.id: row for row in manifest_of(step)}
    for row in step.apply(BASE, seed=0).data.examples[2:]:
        known = asked[row.id.rpartition("-")[0]]
        assert (known.answers[0] in f"{row.caption} {row.answers}") == said
        assert row.image is not None
        assert known.image is not None
        assert (row.image.digest != known.image.digest) == drawn  # the manifest shows the card without its code


def test_planted_rows_do_not_say_that_they_are_canaries() -> None:
    planted = Canaries(**FEW).apply(BASE, seed=0).data.examples[2:]
    assert all(not row.attributes for row in planted)


def test_deduplicate_leaves_one_copy_of_each_canary() -> None:
    planted = Canaries(**FEW).apply(BASE, seed=0).data
    once = Counter(row.prompt for row in Deduplicate(near=False).apply(planted, seed=0).data.examples[2:])
    assert set(once.values()) == {1}
    assert len(once) == 6


def test_what_cannot_be_planted_is_told_together() -> None:
    with pytest.raises(BadParameter, match=r'each=0: 1 or more; digits=0: 1 to 12; repeats="1 x": different whole'):
        Canaries(each=0, digits=0, repeats="1 x")
    with pytest.raises(BadParameter, match="repeats"):
        Canaries(repeats="4 4")
    taken = Dataset("rows", (Example("canary-3-0", "taken"),))
    with pytest.raises(BadData, match="ids that occur twice"):
        Canaries(**FEW).apply(taken, seed=0)
