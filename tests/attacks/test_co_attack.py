"""co_attack: both budgets at once, its ablation, and that it is no weaker than its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlmend.attacks.robustness.co_attack import CoAttack
from vlmend.attacks.robustness.pgd import PGD
from vlmend.attacks.robustness.text_swap import TextSwap
from vlmend.attacks.tasks import task_of
from vlmend.core.attacks import Budget
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter
from vlmend.testing import tiny_clip

NAMES = ("hammer", "teapot", "zebra")
ROWS = tuple(Example(str(k), image=noise_image(16, k), answers=(NAMES[k % 3],)) for k in range(9))
DATA = Dataset("d", ROWS)
BUDGET = Budget(8 / 255, 10)


def losses(made: Dataset) -> torch.Tensor:
    """Of each row's right class, from its picture and its own words."""
    task = task_of(tiny_clip(), DATA, worded=True)
    return task.loss(made.examples, task.pixels(made.examples)).detach()


def test_words_and_pixels_change_within_their_budgets() -> None:
    made = CoAttack(words=1).run(tiny_clip(), DATA, BUDGET, seed=0)
    assert all(row.attributes["largest"] == f"{8 / 255:.6g}" for row in made.examples)
    assert all(row.attributes["words"] == "1" for row in made.examples)
    assert any(row.prompt != f"a photo of a {row.answers[0]}" for row in made.examples)


def test_together_it_raises_the_loss_beyond_either_part() -> None:
    """Mean loss of nine pictures at the saved files."""
    both = losses(CoAttack(words=1).run(tiny_clip(), DATA, BUDGET, seed=0)).mean()
    swapped = TextSwap(words=1).run(tiny_clip(), DATA, BUDGET, seed=0)
    drawn = PGD().run(tiny_clip(), DATA, BUDGET, seed=0)
    worded = Dataset("d", tuple(CoAttack().task(tiny_clip(), DATA).words.worded(row) for row in drawn.examples))
    seen = Dataset("d", tuple(task_of(tiny_clip(), DATA).seen(swapped.examples)))
    assert both > losses(worded).mean()
    assert both > losses(seen).mean()


def test_the_ablation_changes_the_words_alike_and_the_picture_against_the_old_ones() -> None:
    target = tiny_clip()
    both, apart = (CoAttack(words=1, together=one).run(target, DATA, BUDGET, seed=0) for one in (True, False))
    assert [row.prompt for row in both.examples] == [row.prompt for row in apart.examples]
    alone = PGD().run(target, DATA, BUDGET, seed=0)
    pictures = [[np.asarray(row.image.decode()) for row in made.examples if row.image] for made in (apart, alone)]
    assert all(np.array_equal(a, b) for a, b in zip(*pictures, strict=True))
    assert losses(both).mean() >= losses(apart).mean() - 1e-3


def test_a_budget_without_words_is_refused() -> None:
    with pytest.raises(BadParameter, match="pgd changes the picture alone"):
        CoAttack(words=0)
