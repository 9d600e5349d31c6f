"""privacy/answer_membership on scripted models: members are likely and sure, twins are not, shifted data void."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from vlmend.audit.suites.privacy.answer_membership import SUITE, TellsEntropies
from vlmend.core.contracts import Sample
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Measure
from vlmend.core.metrics.entropy import renyi
from vlmend.errors import BadData
from vlmend.models.decoding.forced import forced_logits, reply_tokens
from vlmend.testing import ScriptedTarget, tiny_vlm

Rows = dict[tuple[str, str], Measure]
WORDS = ("red", "blue", "lamp", "boat")


@dataclass(frozen=True, eq=False)
class Known(ScriptedTarget):
    """Finds some pictures' answers more likely than others, by that much, with noise by picture."""

    shift: Mapping[str, float] = field(default_factory=dict)

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[torch.Tensor]:
        return [torch.tensor([-3.0, -2.0, -1.0]) + self._of(asked) for asked in batch]

    def _of(self, asked: Conversation) -> float:
        picture = asked.turns[-1].images[0].digest
        return self.shift.get(picture, 0.0) + random.Random(f"of {picture}").gauss(0, 1)


@dataclass(frozen=True, eq=False)
class Telling(Known):
    """Tells its entropies as well: low where it finds an answer likely."""

    def entropies(self, batch: Sequence[Conversation], replies: Sequence[str], alpha: float) -> list[torch.Tensor]:
        return [-found for found in self.logprobs(batch, replies)]


def pool(count: int = 120) -> Dataset:
    members = set(random.Random("dealt").sample(range(count), count // 2))
    rows = (
        Example(str(k), "what is it?", image=noise_image(16, k), answers=(f"{WORDS[k % 4]} {WORDS[k // 4 % 4]}",),
                attributes={"member": "yes" if k in members else "no"})
        for k in range(count)
    )  # fmt: skip
    return Dataset("pool", tuple(rows))


def subject(data: Dataset, shift: float, kind: type[Known] = Telling) -> Any:
    known = {row.image.digest: shift for row in data.examples if row.image and row.attributes["member"] == "yes"}
    return kind(lambda asked, mended: "a lamp", shift=known)


def taken(target: Any, data: Dataset) -> list[Sample]:
    return SUITE.samples(target, data, None, seed=0)


def measured(target: Any, data: Dataset) -> Rows:
    return {(row.name, row.group): row for row in SUITE.measures(taken(target, data), 0)}


def test_planted_members_are_told_by_every_score_and_sets_tell_more() -> None:
    data = pool()
    found = measured(subject(data, 0.8), data)
    for score in ("likelihood", "min_k", "sureness", "own_sureness"):
        one, many = found["auroc", score], found["auroc_of_sets_of_20", score]
        assert 0.55 < one.low < one.value < 0.85
        assert many.value > 0.95
    assert found["auroc", "blind_words"].low < 0.5
    assert found["auroc", "likelihood"].judge == "likelihoods"


def test_the_twin_that_knows_nothing_is_at_chance_also_in_sets() -> None:
    data = pool()
    found = measured(subject(data, 0.0), data)
    for name in ("auroc", "auroc_of_sets_of_20"):
        assert found[name, "likelihood"].low < 0.5 < found[name, "likelihood"].high


def test_values_of_a_row_by_hand() -> None:
    """Three tokens of -3, -2, -1 and the noise of the picture: the mean is -2, the least likely of them -3."""
    data = pool(12)
    target = subject(data, 0.0)
    one = taken(target, data)[0]
    row = next(row for row in data.examples if row.id == one.id)
    noise = target._of(row.conversation)
    assert one.values["likelihood"] == pytest.approx(-2 + noise, abs=1e-5)
    assert one.values["min_k"] == one.values["sureness"] == pytest.approx(-3 + noise, abs=1e-5)


def test_words_that_tell_members_make_every_score_void() -> None:
    data = pool()
    rows = tuple(
        replace(row, answers=(("old " if row.attributes["member"] == "yes" else "new ") + row.answers[0],))
        for row in data.examples
    )
    found = measured(subject(data, 0.8), replace(data, examples=rows))
    assert found["auroc", "blind_words"].value > 0.9
    assert "void" in found["auroc", "blind_words"].says
    for name in ("auroc", "auroc_of_sets_of_20"):
        assert math.isnan(found[name, "likelihood"].value)


def test_without_whole_distributions_the_two_scores_of_likelihoods_stay() -> None:
    data = pool(60)
    target = subject(data, 0.8, Known)
    assert not isinstance(target, TellsEntropies)
    assert {group for name, group in measured(target, data) if name == "auroc"} == {
        "blind_words", "blind_pixels", "likelihood", "min_k",
    }  # fmt: skip


def test_entropies_of_a_model_are_those_of_its_logits_one_by_one() -> None:
    model = tiny_vlm()
    asked, replies = [Conversation.ask("what?"), Conversation.ask("who is it?")], ["abc", "no"]
    found = model.entropies(asked, replies, 0.5)
    assert not any(one.requires_grad for one in found)
    tokens = reply_tokens(model.reader, replies)
    for k, each in enumerate(found):
        (logits,) = forced_logits(model, asked[k : k + 1], tokens[k : k + 1])
        assert each.tolist() == pytest.approx(renyi(logits, 0.5).tolist(), abs=1e-4)


def test_a_broken_picture_is_unscored_and_data_that_do_not_say_are_refused() -> None:
    data = pool(12)
    target = subject(data, 0.0)
    broken = replace(data.examples[0], image=Image(b"none", "broken.png"))
    samples = taken(target, replace(data, examples=(broken, *data.examples[1:])))
    assert [one.id for one in samples if not one.values] == ["0"]
    members = tuple(row for row in data.examples if row.attributes["member"] == "yes")
    for bad in (Dataset("none", ()), replace(data, examples=members)):
        assert not SUITE.applies(bad)
        with pytest.raises(BadData, match="membership is told on answers"):
            taken(target, bad)
