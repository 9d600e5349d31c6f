"""APGD: its checkpoints, a valley worked out by hand, a linear model, and its laws against pgd on a tiny CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attacks.test_pgd import TWO, WEIGHT, Linear, grey, levels, pictures, share_right
from torch import Tensor

from vlmend.attacks.robustness.apgd import APGD, checkpoints
from vlmend.attacks.robustness.pgd import PGD
from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.examples import Dataset, Example
from vlmend.errors import BadParameter
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_clip

EIGHT = Budget(8 / 255, 10)


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(1) == (1,)


@given(st.integers(1, 300))
def test_checkpoints_rise_and_lie_within_the_steps(steps: int) -> None:
    found = checkpoints(steps)
    assert list(found) == sorted(set(found))
    assert 1 <= found[0] <= found[-1] <= steps


def test_the_margin_of_a_linear_model_falls_by_epsilon_times_the_sum_of_absolute_weights() -> None:
    """A first step of 2 epsilon reaches every corner: 8/255 of the sum of |w|, as by pgd."""
    attacked = APGD().run(Linear(), TWO, Budget(8 / 255, 3), seed=0)
    for before, after, sign in zip(TWO.examples, attacked.examples, (-1, 1), strict=True):
        moved = torch.tensor((levels(after) - levels(before)).transpose(2, 0, 1).ravel() / 255) @ WEIGHT.double()
        assert float(moved) == pytest.approx(sign * 8 / 255 * float(WEIGHT.abs().sum()), rel=1e-6)


class Ridge(Linear):
    """The logit of `thing 0` is 1e4 times the squared distance of the mean grey from 150/255.

    So the loss of that answer has its top there, and signed steps of one size jump to and fro across it.
    """

    def scored(self, images: Tensor, texts: Tensor) -> Tensor:
        logit = 1e4 * (images.mean(1) - 150 / 255).square()
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def test_a_top_inside_the_ball_is_found_by_halving() -> None:
    """From 140 with epsilon 16, steps of 2 epsilon jump from edge to edge; the top at 150 lies 10 away."""
    data = Dataset("d", (Example("a", image=grey(140), answers=("thing 0",)), TWO.examples[1]))
    attack = APGD(random_start=False)
    attacked = attack.run(Ridge(), data, Budget(16 / 255, 40), seed=0)
    assert np.abs(levels(attacked.examples[0]) - 150).max() <= 1
    fixed = PGD(random_start=False, alpha=32 / 255).run(Ridge(), data, Budget(16 / 255, 40), seed=0)
    assert np.abs(levels(fixed.examples[0]) - 150).min() >= 6


def losses(run: Dataset, target: Any) -> Tensor:
    task = APGD().task(target, run)
    return task.loss(run.examples, task.pixels(run.examples)).detach()


def test_it_is_no_weaker_than_pgd_and_more_steps_and_restarts_are_no_weaker() -> None:
    """Mean loss at the saved files of 12 pictures; rounding to 8 bits can take a little."""
    data, target = pictures(8), tiny_clip()
    budget = Budget(4 / 255, 6)
    plain, ours = (losses(attack.run(target, data, budget, seed=0), target) for attack in (PGD(), APGD()))
    longer = losses(APGD().run(target, data, replace(budget, steps=18), seed=0), target)
    often = losses(APGD(restarts=2).run(target, data, budget, seed=0), target)
    assert ours.mean() >= plain.mean() - 1e-3
    assert longer.mean() >= ours.mean() - 1e-3
    assert (often >= ours - 2e-3).all()


def test_more_epsilon_never_gives_more_right_and_random_signs_do_less() -> None:
    data, target = pictures(12), tiny_clip()
    runs = [APGD().run(target, data, Budget(k / 255, 6), seed=0) for k in (1, 4, 32)]
    robust = [share_right(run, "attacked") for run in runs]
    assert robust == sorted(robust, reverse=True)
    assert robust[-1] < 0.2 < share_right(runs[-1], "noise")


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 60), st.integers(0, 255), st.integers(1, 6), st.integers(0, 9))
def test_saved_pictures_stay_within_epsilon_and_colours(most: int, level: int, steps: int, seed: int) -> None:
    data = Dataset("d", (Example("a", image=grey(level), answers=("thing 0",)), *TWO.examples[1:]))
    attacked = APGD().run(Linear(), data, Budget(most / 255, steps), seed=seed)
    assert np.abs(levels(attacked.examples[0]) - level).max() <= most


def test_it_agrees_with_pyautoattack() -> None:
    """The same loss from other random starts: robust accuracy and mean loss of 12 pictures after 10 steps."""
    theirs: Any = pytest.importorskip("pyautoattack.autopgd_base", reason="pyautoattack 0.2.0 is not installed")
    data, target = pictures(8, side=16), tiny_clip()
    task: Any = APGD().task(target, data)
    rows: Sequence[Example] = task.seen(data.examples)
    pixels = task.pixels(rows)

    def logits(values: Tensor) -> Tensor:
        return target.scored(target.embed_pixels(replace(pixels, values=values)), task.texts)

    labels = torch.tensor([task.names.index(row.answers[0]) for row in rows])
    other = theirs.APGDAttack(logits, n_iter=10, norm="Linf", eps=8 / 255, loss="ce", device="cpu")
    other.init_hyperparam(pixels.values)
    torch.manual_seed(0)
    (found, _, loss, _) = other.attack_single_run(pixels.values, labels)
    ours = APGD().propose(task, rows, EIGHT, list(range(len(rows))))
    stacked = torch.from_numpy(np.stack([one.pixels for one in ours if one.pixels is not None])).permute(0, 3, 1, 2)
    own = torch.nn.functional.cross_entropy(logits(stacked), labels, reduction="none")
    assert own.mean().item() == pytest.approx(loss.mean().item(), abs=1e-2)
    assert abs(int((logits(stacked).argmax(1) == labels).sum()) - int((logits(found).argmax(1) == labels).sum())) <= 1


def test_a_loss_that_is_no_number_drops_the_step_and_is_counted() -> None:
    """Bright pictures have no loss at all: ten dropped steps, and the picture stays."""

    class Broken(Linear):
        def scored(self, images: Tensor, texts: Tensor) -> Tensor:
            return images @ texts.T * torch.where(images.mean(1) > 0.6, torch.nan, 1.0)[:, None]

    data = Dataset("d", (Example("bright", image=grey(200), answers=("thing 0",)), *TWO.examples))
    attacked = APGD(random_start=False).run(Broken(), data, EIGHT, seed=0)
    assert [attributes_of_attack(row)["dropped"] for row in attacked.examples] == ["10", "0", "0"]
    assert np.array_equal(levels(attacked.examples[0]), levels(data.examples[0]))


def test_a_step_into_what_is_no_number_is_taken_back_and_a_smaller_one_is_tried() -> None:
    """The first pixel weighs -1, so the loss of `thing 0` grows with it; beyond 104/255 there is none."""

    class Cliff(Linear):
        def scored(self, images: Tensor, texts: Tensor) -> Tensor:
            return images @ texts.T * torch.where(images[:, 0] > 104.2 / 255, torch.nan, 1.0)[:, None]

    data = Dataset("d", (Example("a", image=grey(100), answers=("thing 0",)), TWO.examples[1]))
    attacked = APGD(random_start=False).run(Cliff(), data, EIGHT, seed=0).examples[0]
    assert int(attributes_of_attack(attacked)["dropped"]) >= 3
    assert 100 < levels(attacked)[0, 0, 0] <= 104


def test_the_rows_tell_the_passes() -> None:
    """One more than steps, since the start is looked at, times the restarts."""
    attacked = APGD(restarts=2).run(Linear(), TWO, EIGHT, seed=0)
    assert attributes_of_attack(attacked.examples[0])["forward"] == "22"
    with pytest.raises(BadParameter, match="all restarts are alike"):
        APGD(restarts=2, random_start=False)


def test_a_chat_models_reply_gets_less_likely(tiny: VLM) -> None:
    rows = tuple(Example(str(k), "what is it", image=grey(60 * k + 60, 16), answers=("cat",)) for k in range(2))
    attacked = APGD().run(tiny, Dataset("d", rows), Budget(32 / 255, 4), seed=0)
    plain, worse = (
        torch.stack([one.mean() for one in tiny.logprobs([row.conversation for row in batch], ["cat"] * 2)])
        for batch in (rows, attacked.examples)
    )
    assert (worse < plain).all()
