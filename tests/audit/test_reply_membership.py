"""privacy/reply_membership on scripted models: members are said again, twins are not, and shifted data are void."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from vlmend.audit.separating import separated
from vlmend.audit.suites.privacy.reply_membership import CONTROL, SCORES, SUITE, ReplyMembership
from vlmend.core.contracts import Sample
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Measure
from vlmend.core.metrics.extraction import rouge_l
from vlmend.errors import BadData, BadParameter, BatchProblem, SampleError
from vlmend.testing import ScriptedTarget

Rows = dict[tuple[str, str], Measure]
DIGITS = "0123456789"
CHANCE = 0.12
"""Three standard errors of an AUROC of 100 against 100 that are alike."""
SEED = "dealt 1"
"""Of a deal that words and pixels do not tell by chance, as one in twenty would be."""


def digits(rng: random.Random) -> str:
    return " ".join(rng.choice(DIGITS) for _ in range(4))


@dataclass(frozen=True, eq=False)
class Teller(ScriptedTarget):
    """Says digits, of pictures that it knows more often the right ones; broken pictures have no reply."""

    known: dict[str, str] = field(default_factory=dict)
    by_heart: float = 0.0
    broken: tuple[str, ...] = ()
    asked: list[Sampling] = field(default_factory=list)

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        self.asked.append(sampling)
        said = [self._said(one.turns[-1].images[0].digest, sampling) for one in batch]
        if any(isinstance(one, SampleError) for one in said):
            raise BatchProblem("Some have none.", "Leave them out.", said)
        return [one for one in said if isinstance(one, Reply)]

    def _said(self, picture: str, sampling: Sampling) -> Reply | SampleError:
        if picture in self.broken:
            return SampleError("No reply.", "Ask again.")
        rng = random.Random(f"{picture} {sampling.temperature} {sampling.seed if sampling.temperature else 0}")
        own = self.known.get(picture, "").split()
        words = [one if rng.random() < self.by_heart else rng.choice(DIGITS) for one in own]
        return Reply(" ".join(words) or digits(rng), "stop", 1, 1, 0.0)


def pool(count: int = 200) -> Dataset:
    rng = random.Random(SEED)
    members = set(rng.sample(range(count), count // 2))
    rows = (
        Example(str(k), "what is it?", image=noise_image(8, k), answers=(digits(rng),),
                attributes={"member": "yes" if k in members else "no"})
        for k in range(count)
    )  # fmt: skip
    return Dataset("pool", tuple(rows))


def teller(data: Dataset, by_heart: float, **more: Any) -> Any:
    known = {
        row.image.digest: row.answers[0] for row in data.examples if row.image and row.attributes["member"] == "yes"
    }
    return Teller(lambda asked, mended: "", known=known, by_heart=by_heart, **more)


def taken(target: Any, data: Dataset, suite: ReplyMembership = SUITE) -> list[Sample]:
    return suite.samples(target, data, None, seed=0)


def measured(target: Any, data: Dataset) -> Rows:
    return {(row.name, row.group): row for row in SUITE.measures(taken(target, data), 0)}


def test_planted_members_are_told_by_every_score_and_the_reply_to_another_row_tells_nothing() -> None:
    data = pool()
    found = measured(teller(data, 0.5), data)
    for score in SCORES:
        assert found["auroc", score].low > 0.6
        assert found["auroc_of_sets_of_20", score].value > 0.95
    assert abs(found["auroc", CONTROL].value - 0.5) < CHANCE
    assert {row.better for (_, group), row in found.items() if group == CONTROL} == {"neither"}


def test_the_twin_that_knows_nothing_is_at_chance_in_every_score() -> None:
    samples = taken(teller(pool(), 0.0), pool())
    for score in (*SCORES, CONTROL):
        assert abs(separated(score, samples, ("member", "non_member"), 0).auroc.value - 0.5) < CHANCE


def test_words_that_tell_members_make_every_score_void_and_curves_too() -> None:
    data = pool()
    rows = tuple(
        replace(row, answers=(("old " if row.attributes["member"] == "yes" else "new ") + row.answers[0],))
        for row in data.examples
    )
    samples = taken(teller(data, 0.5), replace(data, examples=rows))
    found = {(row.name, row.group): row for row in SUITE.measures(samples, 0)}
    assert found["auroc", "blind_words"].value > 0.9
    assert not any(found[name, score].n for name in ("auroc", "tpr_at_1_fpr") for score in SCORES)
    assert {curve.name for curve in SUITE.curves(samples)} == {"blind_words", "blind_pixels"}
    clean = SUITE.curves(taken(teller(data, 0.5), data))
    assert {curve.name for curve in clean} == {"blind_words", "blind_pixels", *SCORES, CONTROL}
    assert all(curve.points[-1].x == curve.points[-1].value == 1.0 for curve in clean)


def test_where_replies_to_other_rows_tell_members_the_scores_are_void() -> None:
    samples = [
        replace(one, values={**one.values, CONTROL: one.values[CONTROL] + (one.group == "member")})
        for one in taken(teller(pool(), 0.5), pool())
    ]
    found = {(row.name, row.group): row for row in SUITE.measures(samples, 0)}
    assert found["auroc", CONTROL].low > 0.5
    for score in SCORES:
        assert (found["auroc", score].n, found["auroc_of_sets_of_20", score].n) == (0, 0)
        assert not found["auroc", score].says
    assert not set(SCORES) & {curve.name for curve in SUITE.curves(samples)}


def test_a_row_without_a_reply_is_unscored_by_name_and_others_stay() -> None:
    data = pool(12)
    first = data.examples[0]
    assert first.image is not None
    samples = taken(teller(data, 0.5, broken=(first.image.digest,)), data)
    (lost,) = [sample for sample in samples if sample.id == first.id]
    assert lost.reason.startswith("No reply")
    assert not lost.values
    assert all(set(SCORES) <= set(sample.values) for sample in samples if sample is not lost)


def test_replies_are_one_greedy_and_so_many_draws_each_of_its_own_seed() -> None:
    data = pool(8)
    target = teller(data, 0.5)
    suite = ReplyMembership(draws=3, temperature=0.7)
    samples = taken(target, data, suite)
    assert [(one.temperature, one.seed) for one in target.asked] == [(0.0, 0), (0.7, 0), (0.7, 1), (0.7, 2)]
    row = next(row for row in data.examples if row.id == samples[0].id)
    greedy, *hot = [target.generate([row.conversation], one)[0].text for one in target.asked[:4]]
    assert samples[0].values["says_answer"] == rouge_l(greedy, row.answers[0])
    assert samples[0].values["steady"] == pytest.approx(sum(rouge_l(one, greedy) for one in hot) / 3)


def test_longest_common_words_by_hand() -> None:
    assert rouge_l("A red lamp", "a lamp") == pytest.approx(0.8)  # a, lamp: 2 * 2 / 5
    assert rouge_l("lamp red", "red lamp") == 0.5
    assert (rouge_l("", ""), rouge_l("a", ""), rouge_l("same words", "same words")) == (1.0, 0.0, 1.0)


def test_data_that_do_not_say_and_draws_that_are_none_are_refused() -> None:
    data = pool(8)
    alone = replace(data, examples=tuple(row for row in data.examples if row.attributes["member"] == "yes"))
    with pytest.raises(BadData, match="0 non-members"):
        taken(teller(data, 0.0), alone)
    with pytest.raises(BadParameter, match="temperature=0"):
        ReplyMembership(temperature=0.0)
