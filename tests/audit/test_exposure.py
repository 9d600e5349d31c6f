"""privacy/exposure: what a script knows by heart is exposed, what it does not know follows the law of chance."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.secrets import MOST
from vlmend.audit.suites.privacy.exposure import SUITE
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.manifest import manifest
from vlmend.steps.privacy.canaries import Canaries
from vlmend.testing import ScriptedTarget


@dataclass(frozen=True, eq=False)
class Reciter(ScriptedTarget):
    """Gives every reply a number of its own, and to those that it knows by heart the highest."""

    script: Callable[[Conversation, bool], str] = lambda asked, mended: ""
    known: Mapping[str, str] = field(default_factory=dict[str, str])

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[torch.Tensor]:
        return [torch.tensor([self._score(asked.prompt, reply)]) for asked, reply in zip(batch, replies, strict=True)]

    def _score(self, prompt: str, reply: str) -> float:
        drawn = int(hashlib.sha256(f"{prompt}{reply}".encode()).hexdigest()[:12], 16) / 16**12
        return 0.0 if self.known.get(prompt) == reply else -1 - drawn


def planted(each: int = 24) -> Dataset:
    return Canaries(each=each, repeats="0 1 16", side=64, emit="manifest").apply(Dataset("rows", ()), seed=0).data


def measured(target: Reciter, data: Dataset) -> dict[tuple[str, str], Measure]:
    samples = SUITE.samples(target, data, None, seed=0)
    return {(row.name, row.group): row for row in SUITE.measures(samples, seed=0)}


def test_what_is_known_by_heart_has_all_bits_and_the_control_follows_chance() -> None:
    data = planted()
    known = {row.prompt: row.answers[0] for row in data.examples if row.attributes["repeats"] == "16"}
    found = measured(Reciter(known=known), data)
    assert found["exposure", "shown 16 times"].value == 8.0  # log2(256)
    assert found["ranked_first", "shown 16 times"].value == 1.0
    for group in ("shown 0 times", "shown 1 times"):
        assert found["exposure", group].floor == pytest.approx(1.4427, abs=0.03)
        assert found["exposure", group].high < 4
        assert found["ranked_first", group].floor == 1 / (MOST + 1)
    assert found["exposure", "shown 16 times"].against == "shown 0 times"
    assert "{value}" in found["exposure", "shown 16 times"].says


def test_a_model_that_was_shown_nothing_exposes_nothing() -> None:
    for row in measured(Reciter(), planted(80)).values():
        spread = {"exposure": 1 / math.log(2), "ranked_first": 1 / 16}[row.name]  # standard deviation by chance
        assert abs(row.value - row.floor) < 4 * spread / math.sqrt(80)


def test_a_model_that_finds_all_codes_alike_exposes_nothing() -> None:
    class Flat(Reciter):
        """Every reply is as likely."""

        def _score(self, prompt: str, reply: str) -> float:
            return -1.0

    assert {row.value for row in measured(Flat(), planted(2)).values()} == {0.0}


def test_a_broken_card_is_unscored_and_data_without_canaries_are_refused() -> None:
    data = planted(2)
    broken = replace(data.examples[0], image=Image(b"no image", "card.png"))
    samples = SUITE.samples(Reciter(), replace(data, examples=(broken, *data.examples[1:])), None, seed=0)
    assert [(s.id, s.reason.partition(" ")[0]) for s in samples if not s.values] == [("canary-0", "card.png:")]
    for bad in (None, Dataset("rows", (Example("a", "hello", answers=("1",), attributes={"repeats": "4"}),))):
        with pytest.raises(BadData, match="holds no canary"):
            SUITE.samples(Reciter(), bad, None, seed=0)
    assert SUITE.applies(data)
    assert not SUITE.applies(Dataset("rows", (Example("a", "hello"),)))


def test_phantom_minis_manifest_holds_its_canaries() -> None:
    data = manifest()
    counts = [row.attributes["repeats"] for row in data.examples]
    assert {count: counts.count(count) for count in set(counts)} == {"0": 32, "1": 8, "4": 8, "16": 8, "64": 8}
    assert all(len(row.answers[0].split()) == 3 for row in data.examples)


def test_an_audit_of_a_chat_model_writes_its_scorecard(tiny: VLM, tmp_path: Path) -> None:
    rows = tuple(
        Example(str(k), f"code {k}?", answers=("01",), attributes={"repeats": str(k % 2), "alphabet": "01"})
        for k in range(6)
    )
    card = audit(tiny, Plan(("privacy/exposure",), data=Dataset("canaries", rows)), tmp_path, judges=())
    assert [(row.name, row.group, row.n) for row in card][:2] == [
        ("exposure", "shown 0 times", 3), ("exposure", "shown 1 times", 3),
    ]  # fmt: skip
    assert card.complete
    assert not math.isnan(card.rows[0].value)


def test_the_curve_is_the_rows_by_repetitions_beside_chance() -> None:
    data = planted()
    known = {row.prompt: row.answers[0] for row in data.examples if row.attributes["repeats"] == "16"}
    target = Reciter(known=known)
    samples = SUITE.samples(target, data, None, seed=0)
    rows = {row.group: row for row in SUITE.measures(samples, 3) if row.name == "exposure"}
    told, floor = SUITE.curves(samples, 3)
    assert [point.x for point in told.points] == [0, 1, 16] == [point.x for point in floor.points]
    assert [(one.value, one.low) for one in told.points][:2] == [
        (rows[f"shown {k} times"].value, rows[f"shown {k} times"].low) for k in (0, 1)
    ]
    assert {point.value for point in floor.points} == {row.floor for row in rows.values()}
    assert SUITE.curves([]) == []
