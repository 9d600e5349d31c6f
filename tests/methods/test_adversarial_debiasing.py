"""Adversarial debiasing: what an adversary knows by hand, an adversary that learns, and towers that hide from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import PIL.Image
import pytest
import torch

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.adversary import Guesser, certainty
from vlmend.methods.answering import asked_people
from vlmend.methods.fairness.adversarial_debiasing import AdversarialDebiasing
from vlmend.pictures.galleries import QUESTION
from vlmend.testing import tiny_clip, tiny_vlm

NAMES = ("ant", "bee", "cat", "dog")
IMAGES = [noise_image(16, k) for k in range(8)]
DATA = Dataset(
    "named",
    tuple(Example(str(k), image=image, answers=(NAMES[k % 4],), group="ab"[k // 4]) for k, image in enumerate(IMAGES)),
)
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 4, "rate": 1e-3, "crowd": 6}


def test_who_guesses_knows_nothing_who_is_sure_knows_ln_2_and_who_is_wrong_is_not_chased() -> None:
    labels = torch.tensor([0, 1])
    assert float(certainty(torch.zeros(2, 2), labels)) == 0
    sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    assert float(certainty(sure, labels)) == pytest.approx(math.log(2))
    assert float(certainty(sure.flip(1), labels)) == 0
    half = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])  # 3 to 1 on the right one
    assert float(certainty(half, labels)) == pytest.approx(math.log(2) + math.log(0.75))


def test_an_adversary_learns_a_mark_and_finds_none_in_noise_that_it_has_not_seen() -> None:
    noise = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(400) % 2
    marked = noise.clone()
    marked[:, 0] += 3.0 * (2 * labels - 1)
    rights: list[float] = []
    for scores in (marked, noise):
        guesser = Guesser(6, 2, seed=0)
        guesser.learn(scores[:200], labels[:200], 60)
        rights.append(float((guesser(scores[200:]).detach().argmax(1) == labels[200:]).double().mean()))
    assert rights[0] > 0.95
    assert 0.35 < rights[1] < 0.65


def test_the_towers_hide_what_a_fresh_adversary_told_at_once() -> None:
    """Dark pictures and bright ones are two groups: of tiny towers that hid it a fresh adversary knows less."""
    target, levels = tiny_clip(), [*range(0, 80, 20), *range(180, 260, 20)]
    images = [Image.from_pixels(PIL.Image.new("RGB", (16, 16), (level,) * 3)) for level in levels]
    data = replace(DATA, examples=tuple(replace(row, image=images[k]) for k, row in enumerate(DATA.examples)))

    def known(hide: float) -> float:
        method = AdversarialDebiasing(hide=hide, steps=25, batch=8, rate=3e-3, crowd=8)
        view = target.with_mend(method.fit(target, data, seed=0))
        scores = view.logits(images, [f"a photo of a {name}" for name in NAMES])
        fresh, labels = Guesser(4, 2, seed=9), torch.arange(8) // 4
        fresh.learn(scores, labels, 30)
        return float(certainty(fresh(scores), labels).detach())

    hidden, plain = known(10.0), known(0.0)
    assert plain > 0.5
    assert hidden < 0.7 * plain


def test_the_same_seed_is_the_same_mend_and_without_weight_the_adversary_is_not_heard() -> None:
    target = tiny_clip()
    first, again = (AdversarialDebiasing(**SETTINGS).fit(target, DATA, seed=3) for _ in range(2))
    assert first.digest == again.digest
    plain, other = (
        AdversarialDebiasing(hide=0.0, inner=inner, **SETTINGS).fit(target, DATA, seed=3) for inner in (1, 4)
    )
    views = [target.with_mend(one).embed_images(IMAGES) for one in (first, plain, other)]
    assert torch.equal(views[1], views[2])
    assert not torch.equal(views[0], views[1])


def test_one_group_and_settings_that_cannot_be_are_refused() -> None:
    alone = replace(DATA, examples=tuple(replace(row, group="") for row in DATA.examples))
    with pytest.raises(BadData, match=r"0 groups \(none\)"):
        AdversarialDebiasing().fit(tiny_clip(), alone, seed=0)
    bad: list[dict[str, Any]] = [{"hide": -1.0}, {"inner": 0}, {"crowd": 1}]
    for wrong in bad:
        with pytest.raises(BadParameter, match="cannot be"):
            AdversarialDebiasing(**wrong)


PEOPLE = Dataset(
    "asked people",
    tuple(
        Example(
            f"{k}:{word}", f"is this person {word}?", image=image, group="ab"[k // 4],
            answers=("a man",) * (word == "kind"), attributes={"options": "yes|no"},
        )
        for k, image in enumerate(IMAGES)
        for word in ("kind", "strong")
    ),
)  # fmt: skip


def test_every_person_is_asked_every_question_and_told_by_the_first_token_of_each_option() -> None:
    target = tiny_vlm()
    held = asked_people(target, PEOPLE)
    assert (len(held.images), held.groups, held.width) == (8, ("a",) * 4 + ("b",) * 4, 4)
    told = held.answers(target.reader, target.model, [6, 1])
    asked = [Conversation.ask(f"is this person {word}?", IMAGES[k]) for k in (6, 1) for word in ("kind", "strong")]
    ids = [target.processor.tokenizer(one, add_special_tokens=False).input_ids[0] for one in ("yes", "no")]
    wanted = target.logits(asked)[:, ids].log_softmax(-1).reshape(2, 4)
    torch.testing.assert_close(told.detach(), wanted, atol=1e-5, rtol=0)


def test_without_options_all_answers_are_and_options_that_begin_alike_are_refused() -> None:
    target = tiny_vlm()
    assert asked_people(target, DATA).questions == (QUESTION,)
    assert asked_people(target, DATA).width == 4
    alike = replace(PEOPLE, examples=tuple(replace(r, attributes={"options": "yes|yes, no"}) for r in PEOPLE.examples))
    with pytest.raises(BadData, match="the same token"):
        asked_people(target, alike)
    with pytest.raises(BadData, match="1 groups"):
        asked_people(target, replace(PEOPLE, examples=PEOPLE.examples[:4]))


def test_a_decoder_does_not_learn_an_answer_that_tells_the_group() -> None:
    """Replies say yes of dark people and no of bright ones: learnt without an adversary, held back with one."""
    target: Any = tiny_vlm()
    levels = [*range(0, 80, 20), *range(180, 260, 20)]
    images = [Image.from_pixels(PIL.Image.new("RGB", (16, 16), (level,) * 3)) for level in levels]
    rows = [
        replace(row, image=images[k // 2], answers=("yes" if row.group == "a" else "no",))
        for k, row in enumerate(PEOPLE.examples)
    ]
    data = replace(PEOPLE, examples=tuple(rows))
    ids = list(asked_people(target, data).tokens[0])

    def gap(hide: float) -> float:
        method = AdversarialDebiasing(hide=hide, steps=12, batch=8, rate=3e-3, crowd=8)
        view = target.with_mend(method.fit(target, data, seed=0))
        odds = view.logits([row.conversation for row in rows])[:, ids].diff(dim=1).reshape(2, 8)
        return float((odds[0] - odds[1]).mean().abs())

    plain, hidden = gap(0.0), gap(5.0)
    assert plain > 0.5
    assert hidden < 0.5 * plain


def test_an_adversary_that_is_not_normed_reads_the_size_of_two_numbers() -> None:
    """Chances 0.6 and 0.9 of yes: normed among each other both are (1, -1)."""
    scores, labels = torch.tensor([[0.6, 0.4], [0.9, 0.1]] * 4).log(), torch.arange(8) % 2
    for normed, most in ((True, 0.01), (False, math.log(2))):
        guesser = Guesser(2, 2, seed=0, normed=normed)
        guesser.learn(scores, labels, 100)
        assert float(certainty(guesser(scores), labels).detach()) <= most
    assert float(certainty(guesser(scores), labels).detach()) > 0.5


def test_without_weight_the_adversary_of_a_model_that_answers_is_not_heard() -> None:
    target: Any = tiny_vlm()
    one, other, heard = (
        AdversarialDebiasing(hide=hide, inner=inner, **SETTINGS).fit(target, PEOPLE, seed=3)
        for hide, inner in ((0.0, 1), (0.0, 3), (1.0, 1))
    )
    views = [target.with_mend(mend).logits([PEOPLE.examples[0].conversation]) for mend in (one, other, heard)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
