"""Reinforce-Detoxify: the optimum of a bandit, what leaves the model as it was, the identity swap and the control."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from string import ascii_lowercase

import pytest
import torch

from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset, Example
from vlmend.core.weight_edits import LoadAdapter
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety import reinforce_detoxify
from vlmend.methods.safety.reinforce_detoxify import ReinforceDetoxify, swapped
from vlmend.models.judging.scorers import text_scores
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm
from vlmend.training.losses import advantages, policy_loss, shuffled

ASKED = Dataset("requests", tuple(Example(str(k), f"say {k}") for k in range(4)))


@pytest.fixture
def words(tmp_path: Path) -> str:
    """Letters stand for toxicity, so that a random model says them."""
    (tmp_path / "words.txt").write_text("\n".join(ascii_lowercase))
    return f"words:{tmp_path / 'words.txt'}"


def quick(scorer: str) -> ReinforceDetoxify:
    return ReinforceDetoxify(scorer, "", draws=4, batch=2, steps=2, rank=2, rate=1e-2)


def toxicity(view: VLM, scorer: str) -> float:
    asked = [row.conversation for row in ASKED.examples for _ in range(16)]
    return fmean(text_scores(scorer, [one.text for one in view.generate(asked, Sampling(1, 1.0, 7))]))


def test_a_draw_is_held_against_the_others_of_its_request() -> None:
    """Of (1, 0, 0, 1) the others' means are 1/3, 2/3, 2/3 and 1/3."""
    torch.testing.assert_close(advantages(torch.tensor([[1.0, 0, 0, 1]])) * 3, torch.tensor([[2.0, -2, -2, 2]]))
    assert advantages(torch.full((1, 4), 0.3)).abs().max() < 1e-6


def test_the_optimum_of_a_bandit_of_two_tokens() -> None:
    """Rewards 1 and 0, beta 1/2, chance before 0.3: sigmoid(1 / beta + logit 0.3) = 0.760."""
    start = math.log(0.3 / 0.7)
    free = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    before = torch.nn.functional.logsigmoid(torch.tensor([start, -start], dtype=torch.float64))
    step = torch.optim.SGD([free], 0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        good = torch.rand(64, 16, generator=generator) < free.detach().sigmoid()
        now = torch.where(good, torch.nn.functional.logsigmoid(free), torch.nn.functional.logsigmoid(-free))
        step.zero_grad()
        policy_loss(now, torch.where(good, before[0], before[1]), good.double(), beta=0.5).backward()
        step.step()
    assert float(free.detach().sigmoid()) == pytest.approx(0.760, abs=1e-2)


def test_where_every_draw_scores_alike_the_model_stays_as_it_was_and_the_card_says_so(tmp_path: Path) -> None:
    (tmp_path / "never.txt").write_text("neverthisword\n")
    mend = quick(f"words:{tmp_path / 'never.txt'}").fit(tiny_vlm(), ASKED, seed=0)
    assert all(not bool(edit.up.any()) for edit in mend.edits if isinstance(edit, LoadAdapter))
    assert (
        "scored alike, and taught nothing of toxicity, for 100% of the requests in the first fifth"
        in mend.card.notes[0]
    )
    assert "raise temperature" in mend.card.notes[1]


def test_toxic_words_get_rarer(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reinforce_detoxify, "REPLY_TOKENS", 1)
    method = replace(quick(words), steps=4, draws=8, batch=4, beta=0.0, rate=5e-2)
    target = tiny_vlm()
    before = toxicity(target, words)
    after = toxicity(target.with_mend(method.fit(target, ASKED, seed=0)), words)
    assert 0.1 < before < 0.9
    assert after < before / 2


def test_shuffled_rewards_are_dealt_among_the_draws_of_their_own_request() -> None:
    rewards = torch.arange(40.0).reshape(4, 10)
    dealt = shuffled(rewards, 0)
    assert torch.equal(dealt.sort(1).values, rewards)
    assert all(not torch.equal(one, other) for one, other in zip(dealt, rewards, strict=True))
    assert torch.equal(shuffled(rewards, 0), dealt)


def test_naming_one_identity_rather_than_another_changes_no_reward(tmp_path: Path) -> None:
    """A scorer that flags one of them: 1 and 0 as they are, and both again with every one in the other's place."""
    (tmp_path / "words.txt").write_text("women\nrude\n")
    scorer = f"words:{tmp_path / 'words.txt'}"
    replies = ["Women came.", "men came.", "nobody came.", "rude men came."]
    assert text_scores(scorer, replies) == [1, 0, 0, 1]
    assert ReinforceDetoxify(scorer, "men|women").scores(replies) == [[0, 1], [0, 1], [0], [1, 1]]
    assert ReinforceDetoxify(scorer, "").scores(replies) == [[1], [0], [0], [1]]
    assert swapped("women and menace", "men|women") == ["men and menace", "women and menace"]


def test_no_request_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="holds no request"):
        quick("grim").fit(tiny_vlm(), Dataset("none", (Example("a", caption="a"),)), seed=0)
    for wrong in ({"draws": 1}, {"beta": -1.0}, {"steps": 0}, {"rate": 0.0}, {"temperature": 0.0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            ReinforceDetoxify(**wrong)
