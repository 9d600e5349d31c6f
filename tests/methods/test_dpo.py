"""DPO: the loss by hand, preferences out of pairs, and a tiny model that comes to prefer what it is shown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.dpo import DPO, preferences
from vlmend.models.vlm import VLM
from vlmend.training.losses import preference_loss


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


def test_a_model_comes_to_prefer_what_it_is_shown(tiny: VLM) -> None:
    mend = DPO(anchor=0.0, steps=8, batch=4, rank=4, rate=3e-2).fit(tiny, PAIRS, seed=0)
    assert lead(tiny.with_mend(mend)) > lead(tiny) + 0.5


def test_at_beta_0_and_without_an_anchor_nothing_is_learnt(tiny: VLM) -> None:
    mend = DPO(beta=0.0, anchor=0.0, steps=3, batch=2, rank=2, rate=1e-2).fit(tiny, PAIRS, seed=0)
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
