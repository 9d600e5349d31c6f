"""Counterfactual inference on vocabularies of two and three by hand, and on models that really run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ContrastLogits, OtherView
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blurred_image, noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.counterfactual_inference import (
    BLURS,
    CounterfactualInference,
    fitted_constant,
)
from vlmend.models.editing.contrast import Contrast
from vlmend.models.vlm import VLM
from vlmend.registry import make_method
from vlmend.testing import ScriptedTarget

DATA = CounterfactualInference().sample_data()
BATCH = [Conversation.ask("what is it", noise_image(16, 1)), Conversation.ask("a longer question", noise_image(16, 2))]

weights = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)


def mixed(edit: ContrastLogits, plain: Sequence[float], view: Sequence[float]) -> Tensor:
    """New logits, from the chances of a request and of its other view; logits are known up to a constant."""
    scores = torch.tensor([list(plain), list(view)], dtype=torch.float64).log() + 3
    return Contrast([edit], [torch.tensor([True])]).mixed(scores)[0] - 3


def effect(strength: float = 1.0, floor: float = 0.01, constant: float = 0.0) -> ContrastLogits:
    return ContrastLogits((OtherView(blur=0.1),), strength, "effect", floor, constant=constant)


def test_the_effect_by_hand() -> None:
    """p (0.8, 0.2), p_d (0.9, 0.1), c 0: sigma(log p) = p / (1 + p).

    TIE = log (0.8/1.8) - log (0.9/1.9) = -0.0637, log (0.2/1.2) - log (0.1/1.1) = 0.6061: the order turns round.
    """
    found = mixed(effect(), [0.8, 0.2], [0.9, 0.1])
    wanted = [math.log(0.8 / 1.8) - math.log(0.9 / 1.9), math.log(0.2 / 1.2) - math.log(0.1 / 1.1)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert found[1] > found[0]
    half = mixed(effect(0.5), [0.8, 0.2], [0.9, 0.1])
    torch.testing.assert_close(
        half, 0.5 * torch.tensor(wanted, dtype=torch.float64) + 0.5 * torch.tensor([0.8, 0.2]).log()
    )


def test_a_direct_path_that_is_the_same_for_all_answers_leaves_their_order() -> None:
    found = mixed(effect(), [0.5, 0.3, 0.2], [1 / 3] * 3)
    assert found.argsort(descending=True).tolist() == [0, 1, 2]


def test_an_answer_that_is_all_direct_carries_no_evidence() -> None:
    found = mixed(effect(), [0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    torch.testing.assert_close(found, torch.zeros(3, dtype=torch.float64))


def test_an_unlikely_token_is_raised_no_further_than_the_likeliest() -> None:
    """The third token is 500 times likelier than its direct path says, and has a hundredth of the largest chance."""
    plain, view = [0.6, 0.394, 0.006], [0.5, 0.499988, 0.000012]
    free, held = mixed(effect(floor=0.001), plain, view), mixed(effect(floor=0.1), plain, view)
    assert int(free.argmax()) == 2
    assert int(held.argmax()) == 0
    torch.testing.assert_close(held[2] - held[0], torch.tensor(math.log(0.006 / 0.6), dtype=torch.float64))


@given(weights, weights, st.floats(0.01, 1.0), st.floats(0, 2))
def test_below_the_floor_no_odds_against_the_likeliest_are_raised(
    plain: list[float], view: list[float], floor: float, strength: float
) -> None:
    p, d = (torch.tensor(row, dtype=torch.float64) / sum(row) for row in (plain, view))
    found, likeliest = mixed(effect(strength, floor), p.tolist(), d.tolist()), int(p.argmax())
    for k in range(3):
        if p[k] < floor * p.max() * (1 - 1e-9):  # a tie falls either way
            assert found[k] - found[likeliest] <= (p[k] / p[likeliest]).log() + 1e-9


logs = st.lists(st.floats(-6, -0.01), min_size=4, max_size=4)


@given(st.lists(logs, min_size=1, max_size=5))
def test_the_constant_is_the_least_of_a_grid(rows: list[list[float]]) -> None:
    plain, direct = torch.tensor(rows, dtype=torch.float64).split(2, dim=1)

    def apart(constant: float) -> float:
        alone, fused = (logsigmoid(x).log_softmax(-1) for x in (direct + constant, plain))
        return float((alone.exp() * (alone - fused)).sum(-1).mean())

    found = fitted_constant(plain, direct)
    assert -10 <= found <= 10
    assert apart(found) <= min(apart(float(c)) for c in range(-10, 11)) + 1e-9


ROWS = tuple(
    Example(
        f"{k}{seen}", "who?", None, seen, Image(noise_image(16, 9 * k + len(seen)).source, f"{scene} {seen}"),
        answers=(seen,), attributes={"of": str(k)},
    )
    for k, scene in enumerate(("man", "woman", "man", "woman"))
    for seen in ("man", "woman")
)  # fmt: skip
"""Pictures whose names tell which group the scene is a cue for, and who is seen."""
SHARP = {row.image.digest for row in ROWS if row.image is not None}


@dataclass(frozen=True)
class Model(ScriptedTarget):
    """Answers by a cue in the scene: 0.8 to 0.2 where another person is seen, 0.9 to 0.1 once nobody can be told.

    Its honest twin answers by who is seen, and does not know once nobody can be told.
    """

    biased: bool = True

    def logprobs(self, batch: Sequence[Conversation], replies: Sequence[str]) -> list[Tensor]:
        return [torch.tensor([self._chance(*pair)]).log() for pair in zip(batch, replies, strict=True)]

    def _chance(self, asked: Conversation, reply: str) -> float:
        scene, seen = asked.images[0].name.split()
        sharp = asked.images[0].digest in SHARP
        if not self.biased:
            return (0.99 if reply == seen else 0.01) if sharp else 0.5
        by_cue = (0.98 if scene == seen else 0.8) if sharp else 0.9
        return by_cue if reply == scene else 1 - by_cue


def test_a_planted_cue_in_the_scene_is_taken_out_and_an_honest_model_stays_right() -> None:
    """Who does not fit the cue: 0.2 to 0.8 with the person, 0.1 to 0.9 without; the effect turns it round."""
    for biased, told in ((True, "50% come out right before and 100%"), (False, "100% come out right before and 100%")):
        model: Any = Model(lambda *_: "", biased=biased)
        mend = CounterfactualInference(blur=0.1).fit(model, Dataset("named", ROWS), seed=0)
        assert told in mend.card.notes[0]


def test_logits_of_the_view_are_those_worked_out_from_plain_calls(tiny: VLM) -> None:
    mend = CounterfactualInference(floor=1e-9).fit(tiny, DATA, seed=0)
    (edit,) = mend.edits
    assert isinstance(edit, ContrastLogits)
    assert edit.views[0].blur in BLURS
    blurred = [c.with_images(blurred_image(c.images[0], edit.views[0].blur)) for c in BATCH]
    plain, direct = (tiny.logits(batch).log_softmax(-1) for batch in (BATCH, blurred))
    slow = logsigmoid(plain) - logsigmoid(direct + edit.constant)
    torch.testing.assert_close(
        tiny.with_mend(mend).logits(BATCH).log_softmax(-1), slow.log_softmax(-1), atol=1e-5, rtol=0
    )
    assert (slow.log_softmax(-1) - plain).abs().amax() > 1e-4


def test_paths_of_words_alone_and_of_a_wrong_picture(tiny: VLM) -> None:
    (words,) = CounterfactualInference(direct="words").fit(tiny, DATA, seed=0).edits
    (other,) = CounterfactualInference(direct="other").fit(tiny, DATA, seed=0).edits
    assert isinstance(words, ContrastLogits)
    assert isinstance(other, ContrastLogits)
    assert not words.views[0].of(BATCH[0]).has_image
    wrong = [other.views[0].of(one).images[0].digest for one in BATCH]
    assert wrong[0] == wrong[1] in {row.image.digest for row in DATA.examples if row.image}


def test_requests_without_a_picture_and_strength_zero_are_the_base_bit_for_bit(tiny: VLM) -> None:
    view = tiny.with_mend(CounterfactualInference().fit(tiny, DATA, seed=0))
    text = [Conversation.ask("hello")]
    assert torch.equal(view.logits(text), tiny.logits(text))
    idle = tiny.with_mend(CounterfactualInference(strength=0.0).fit(tiny, DATA, seed=0))
    assert torch.equal(idle.logits(BATCH), tiny.logits(BATCH))


def test_what_cannot_be_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="direct"):
        make_method("counterfactual_inference", {"direct": "person"})
    with pytest.raises(BadParameter, match="blur=2"):
        CounterfactualInference(blur=2.0)
    with pytest.raises(BadParameter, match="share of a picture"):
        OtherView(blur=-0.1)
    text = tuple(Example(str(k), "who?", None, str(k), answers=(str(k),), attributes={"of": "a"}) for k in range(2))
    with pytest.raises(BadData, match="no preference with a picture"):
        CounterfactualInference().fit(tiny, Dataset("words", text), seed=0)
