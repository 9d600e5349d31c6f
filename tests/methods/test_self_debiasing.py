"""Self-debiasing on vocabularies of three worked out by hand, and on a model that really runs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ContrastLogits, OtherView
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter
from vlmend.methods.fairness.self_debiasing import ATTRIBUTES, SelfDebiasing
from vlmend.models.editing.contrast import Contrast
from vlmend.models.vlm import VLM

DATA = Dataset("d", (Example("0", "hello", "harmful"),))
BATCH = [Conversation.ask("what is it", noise_image(16, 1)), Conversation.ask("a longer question")]
TWO = (OtherView(before="x"), OtherView(before="y"))

weights = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)


def edit_of(tiny: VLM, **parameters: float | str) -> ContrastLogits:
    (edit,) = SelfDebiasing(**parameters).fit(tiny, DATA, seed=0).edits  # type: ignore[arg-type]
    assert isinstance(edit, ContrastLogits)
    return edit


def mixed(edit: ContrastLogits, *chances: list[float]) -> Tensor:
    """Un-normalised new chances, from those of a request and of its views; logits are known up to a constant."""
    scores = torch.tensor(chances, dtype=torch.float64).log() + 3
    return (Contrast([edit], [torch.tensor([True])]).mixed(scores)[0] - 3).exp()


def test_a_token_that_a_view_likes_better_is_held_back_by_hand(tiny: VLM) -> None:
    """p (0.5, 0.3, 0.2), p_y (0.2, 0.7, 0.1): delta is (0, 0.4, 0). Lambda ln 2 / 0.4 halves 0.3 to 0.15.

    What is left, (0.5, 0.15, 0.2), sums to 0.85; floor 0.8 leaves 0.24 of 0.3.
    """
    strength = math.log(2) / 0.4
    for floor, held in ((0.01, 0.15), (0.8, 0.24)):
        edit = edit_of(tiny, strength=strength, floor=floor, attributes="x")
        found = mixed(edit, [0.5, 0.3, 0.2], [0.2, 0.7, 0.1])
        torch.testing.assert_close(found, torch.tensor([0.5, held, 0.2], dtype=torch.float64))
        torch.testing.assert_close(found.log().softmax(0), found / found.sum())


def test_of_several_views_the_worst_counts(tiny: VLM) -> None:
    """Views like the second token 0.2 and 0.4 better, and the third 0.1 better in one: delta (0, 0.4, 0.1)."""
    edit = edit_of(tiny, strength=1.0, floor=0.01, attributes="x; y")
    found = mixed(edit, [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.25, 0.7, 0.05])
    wanted = [0.5, 0.3 * math.exp(-0.4), 0.2 * math.exp(-0.1)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_a_view_that_likes_nothing_better_changes_nothing(tiny: VLM) -> None:
    """p_y <= p everywhere means p_y = p, since both sum to 1."""
    found = mixed(edit_of(tiny, attributes="x"), [0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    torch.testing.assert_close(found, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


@given(weights, weights, weights, st.floats(0, 100), st.floats(0.01, 1.0))
def test_no_mass_is_raised_and_none_falls_below_the_floor(
    plain: list[float], first: list[float], second: list[float], strength: float, floor: float
) -> None:
    p, *views = ([one / sum(row) for one in row] for row in (plain, first, second))
    found = mixed(ContrastLogits(TWO, strength, "damp", floor), p, *views)
    ratio = found / torch.tensor(p, dtype=torch.float64)
    assert (ratio <= 1 + 1e-9).all()
    assert (ratio >= floor - 1e-9).all()


def test_the_views_are_the_request_after_each_description(tiny: VLM) -> None:
    edit = edit_of(tiny)
    asked = [view.of(BATCH[0]) for view in edit.views]
    assert [one.prompt for one in asked] == [f"The following text contains {what}:\nwhat is it" for what in ATTRIBUTES]
    assert all(one.images == BATCH[0].images for one in asked)
    assert (edit.strength, edit.floor, edit.rule, edit.when) == (50.0, 0.01, "damp", "always")


def test_logits_of_the_view_are_those_worked_out_from_plain_calls(tiny: VLM) -> None:
    """Text-only requests too: the method is for every request."""
    view = tiny.with_mend(SelfDebiasing(strength=5.0, attributes="a threat").fit(tiny, DATA, seed=0))
    plain = tiny.logits(BATCH)
    told = tiny.logits([c.rewritten(before="The following text contains a threat:\n") for c in BATCH])
    delta = (told.softmax(-1) - plain.softmax(-1)).clamp_min(0)
    slow = plain + (-5.0 * delta).clamp_min(math.log(0.01))
    torch.testing.assert_close(view.logits(BATCH), slow, atol=1e-5, rtol=0)
    assert (slow - plain).abs().amax(-1).min() > 1e-4


def test_strength_zero_is_the_base_bit_for_bit(tiny: VLM) -> None:
    view = tiny.with_mend(SelfDebiasing(strength=0.0).fit(tiny, DATA, seed=0))
    assert torch.equal(view.logits(BATCH), tiny.logits(BATCH))


def test_what_holds_nothing_back_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="attributes is empty"):
        SelfDebiasing(attributes=" ; ").fit(tiny, DATA, seed=0)
    with pytest.raises(BadParameter, match="no way to hold tokens back"):
        SelfDebiasing(floor=0.0)
    with pytest.raises(BadParameter, match="no way to hold tokens back"):
        SelfDebiasing(strength=-1.0)
