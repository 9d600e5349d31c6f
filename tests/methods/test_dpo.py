"""DPO: the loss by hand, preferences out of pairs, and a tiny model that comes to prefer what it is shown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.dpo import DPO, preferences, reply_scores
from vlmend.models.vlm import VLM
from vlmend.training.batches import changed
from vlmend.training.losses import preference_loss, reply_logprobs


def person(k: int, group: str, answer: str, **told: str) -> Example:
    image = noise_image(16, 2 * k + (group == "woman"))
    return Example(f"{k}{group}", "who is this?", None, group, image, answers=(answer,), attributes=told)


PAIRS = Dataset(
    "pairs",
    tuple(person(k, group, f"a {group}", of=str(k)) for k in range(2) for group in ("man", "woman")),
)
LEADS = st.lists(st.floats(-20, 20), min_size=1, max_size=5)


def test_the_loss_by_hand() -> None:
    """Leads 3 and -1, before 1 and -1, beta 0.5: -log sigmoid(1) and ln 2."""
    found = preference_loss(torch.tensor([3.0, -1.0]), torch.tensor([1.0, -1.0]), 0.5)
    assert found.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


@given(LEADS, st.floats(0.01, 2))
def test_where_nothing_moved_it_is_ln_2_and_swapping_the_replies_turns_the_gradient(
    now: list[float], beta: float
) -> None:
    leads = torch.tensor(now, dtype=torch.float64)
    assert preference_loss(leads, leads, beta).item() == pytest.approx(math.log(2))
    zero = torch.zeros(len(now), dtype=torch.float64)
    slopes = []
    for sign in (1, -1):
        free = zero.clone().requires_grad_()
        preference_loss(sign * free, zero, beta).backward()
        slopes.append(free.grad)
    torch.testing.assert_close(slopes[0], -slopes[1])
    assert (slopes[0] < 0).all()


def two_replies() -> tuple[Tensor, Tensor]:
    """Replies "0 1" and "0 2": logits whose log-softmax is ln of .5 .25 .25 first, then of .2 .5 .3; 2 is cheap."""
    first, then = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.2, 0.5, 0.3]).log()
    return torch.stack([first, then]).expand(2, 2, 3), torch.tensor([[0, 1], [0, 2]])


def test_dense_scores_by_hand() -> None:
    """ln .5 is shared and counts once, ln .5 of "1" and ln .3 of "2" count gamma = 3 times; N = 1 + 3."""
    logits, labels = two_replies()
    better, worse = math.log(0.5) + 3 * math.log(0.5), math.log(0.5) + 3 * math.log(0.3)
    assert reply_scores(logits, labels, 3.0, normalise=False).tolist() == pytest.approx([better, worse])
    assert reply_scores(logits, labels, 3.0, normalise=True).tolist() == pytest.approx([better / 4, worse / 4])


def test_at_gamma_1_scores_are_those_of_dpo_and_normalised_ones_their_means_over_tokens() -> None:
    """Bit for bit: so RLHF-V at gamma 1 is DPO on mean log-probabilities, and DPO itself is without the division."""
    logits = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 3, 4, 0], [1, 2, -100, -100, -100], [1, 5, 3, 0, -100], [6, -100, -100, -100, -100]])
    plain = reply_logprobs(logits, labels)
    assert torch.equal(reply_scores(logits, labels, 1.0, normalise=False), plain)
    assert torch.equal(reply_scores(logits, labels, 1.0, normalise=True), plain / torch.tensor([5.0, 2.0, 4.0, 1.0]))


def test_what_both_replies_share_pulls_neither_way_and_the_rest_gamma_times() -> None:
    """Of the lead's gradient: 0 at shared tokens in the same place, gamma times that of DPO at the others."""
    logits, labels = two_replies()
    slopes: list[Tensor] = []
    for gamma in (1.0, 5.0):
        free = logits[0].clone().requires_grad_()
        better, worse = reply_scores(free.expand(2, 2, 3), labels, gamma, normalise=False)
        (better - worse).backward()
        assert free.grad is not None
        slopes.append(free.grad)
    assert slopes[0][0].abs().max() == 0
    torch.testing.assert_close(slopes[1], 5 * slopes[0])


REPLIES = st.lists(st.integers(0, 3), max_size=12)


@given(REPLIES, REPLIES)
def test_without_what_changed_two_replies_are_the_same(one: list[int], other: list[int]) -> None:
    left, right = changed(one, other)
    assert (len(left), len(right)) == (len(one), len(other))
    shared = [[token for token, new in zip(*pair, strict=True) if not new] for pair in ((one, left), (other, right))]
    assert shared[0] == shared[1]
    assert any(left) or any(right) or one == other
    assert bool(shared[0]) == bool(set(one) & set(other))


@given(REPLIES)
def test_of_the_same_reply_nothing_changed(one: list[int]) -> None:
    assert not any(flag for flags in changed(one, one) for flag in flags)


def test_what_is_right_of_one_is_to_be_left_of_the_other() -> None:
    found = preferences(PAIRS)
    assert [(one.chosen, one.rejected) for one in found] == [("a man", "a woman"), ("a woman", "a man")] * 2
    assert found[0].asked.images == PAIRS.examples[0].images


def test_a_row_may_name_what_it_is_not_to_get() -> None:
    named = replace(person(0, "", "she is a smith", rejected="he is a smith"), group="")
    (found,) = preferences(Dataset("d", (named,)))
    assert (found.chosen, found.rejected) == ("she is a smith", "he is a smith")


def test_rows_without_a_counterpart_give_none() -> None:
    alone = [person(0, "man", "a man", of="0"), person(1, "man", "a man", of="1")]
    alike = [person(2, "man", "a cook", of="2"), person(2, "woman", "a cook", of="2")]
    with pytest.raises(BadData, match="holds no preference"):
        preferences(Dataset("d", (*alone, *alike)))


def lead(target: VLM) -> float:
    """Mean log-probability of the right reply less that of the other one."""
    rows = preferences(PAIRS)
    asked = [row.asked for row in rows]
    right, wrong = (
        target.logprobs(asked, replies) for replies in ([r.chosen for r in rows], [r.rejected for r in rows])
    )
    return sum(float(a.sum() - b.sum()) for a, b in zip(right, wrong, strict=True)) / len(rows)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_a_model_comes_to_prefer_what_it_is_shown(tiny: VLM, gamma: float) -> None:
    mend = DPO(anchor=0.0, gamma=gamma, normalise=gamma > 1, steps=8, batch=4, rank=4, rate=3e-2).fit(
        tiny, PAIRS, seed=0
    )
    assert lead(tiny.with_mend(mend)) > lead(tiny) + 0.5


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_at_beta_0_and_without_an_anchor_nothing_is_learnt(tiny: VLM, gamma: float) -> None:
    mend = DPO(beta=0.0, anchor=0.0, gamma=gamma, normalise=gamma > 1, steps=3, batch=2, rank=2, rate=1e-2).fit(
        tiny, PAIRS, seed=0
    )
    asked = [Conversation.ask("who is this?", noise_image(16, 0))]
    torch.testing.assert_close(tiny.with_mend(mend).logits(asked), tiny.logits(asked), atol=1e-5, rtol=0)


def test_the_anchor_keeps_the_preferred_reply_likely(tiny: VLM) -> None:
    """Without it both replies may fall, as long as the wrong one falls more."""
    rows = preferences(PAIRS)
    asked, replies = [row.asked for row in rows], [row.chosen for row in rows]

    def likely(anchor: float) -> float:
        mend = DPO(anchor=anchor, steps=6, batch=4, rank=4, rate=3e-2).fit(tiny, PAIRS, seed=0)
        return sum(float(one.sum()) for one in tiny.with_mend(mend).logprobs(asked, replies))

    assert likely(1.0) > likely(0.0)


def test_built_in_pairs_are_of_every_profession() -> None:
    found = preferences(DPO().builtin())
    assert len(found) == 400
    assert {row.chosen.split()[4] for row in found} == {"man", "woman"}
    assert all(row.chosen != row.rejected for row in found)


def test_numbers_out_of_range_say_so(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match=r"beta=-1\.0"):
        DPO(beta=-1.0).fit(tiny, PAIRS, seed=0)
    with pytest.raises(BadParameter, match=r"gamma=0\.0"):
        DPO(gamma=0.0).fit(tiny, PAIRS, seed=0)
