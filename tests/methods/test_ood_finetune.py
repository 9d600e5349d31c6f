"""UEO: its loss by hand and its laws, norm layers alone move, labels are not read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.ood_finetune import OodFinetune, universal_entropy
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
ROWS = tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES))
DATA = Dataset("named", ROWS)
TEXTS = [f"a photo of a {name}" for name in NAMES]
QUICK = OodFinetune(steps=20, batch=6, rate=1e-2)


def test_two_pictures_by_hand() -> None:
    """Certain of the first name, and torn between two; trust 3 and 1.

    Entropies 0 and ln 2 give ln 2 / 4. Doubts 1/4 and 3/4: the mean is 1/4 + 3/8 and 3/8.
    """
    logits = torch.tensor([[80.0, 0.0], [0.0, 0.0]])
    mean = (5 / 8, 3 / 8)
    wanted = math.log(2) / 4 + sum(share * math.log(share) for share in mean)
    assert float(universal_entropy(logits, torch.tensor([3.0, 1.0]), 1.0)) == pytest.approx(wanted, abs=1e-6)


@given(st.integers(0, 1000))
def test_with_equal_trust_it_is_the_mean_entropy_less_that_of_the_mean(seed: int) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) * 3
    chances = logits.softmax(1)
    each, mean = -(chances * chances.log()).sum(1), chances.mean(0)
    wanted = each.mean() + 0.7 * (mean * mean.log()).sum()
    torch.testing.assert_close(universal_entropy(logits, torch.full((5,), 0.2), 0.7), wanted)


def test_all_pictures_under_one_name_cost_more_than_certainty_over_all_names() -> None:
    """Both are certain; the first has no entropy of the mean, the second ln 3."""
    one, over_all = torch.tensor([[90.0, 0.0, 0.0]]).repeat(3, 1), 90 * torch.eye(3)
    trusted = torch.ones(3)
    assert float(universal_entropy(one, trusted, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(universal_entropy(over_all, trusted, 1.0)) == pytest.approx(-math.log(3), abs=1e-5)


def test_norm_layers_of_the_vision_tower_alone_move_and_pictures_get_more_certain() -> None:
    target = tiny_clip()
    mend = replace(QUICK, spread=0.0, trust=0.0).fit(target, DATA, seed=0)
    moved = [edit.parameter for edit in mend.edits if isinstance(edit, ReplaceWeights)]
    assert moved
    assert all(name.startswith("vision_model") and "norm" in name for name in moved)
    before, after = (
        torch.distributions.Categorical(logits=one.logits(IMAGES, TEXTS)).entropy().mean()
        for one in (target, target.with_mend(mend))
    )
    assert after < before - 0.05


def test_which_picture_has_which_name_is_not_read() -> None:
    dealt_anew = tuple(replace(row, answers=ROWS[(k + 1) % 6].answers) for k, row in enumerate(ROWS))
    views = [tiny_clip().with_mend(QUICK.fit(tiny_clip(), Dataset("d", rows), seed=0)) for rows in (ROWS, dealt_anew)]
    assert torch.equal(*(view.embed_images(IMAGES) for view in views))


def test_one_name_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="1 names"):
        OodFinetune().fit(tiny_clip(), Dataset("one", ROWS[:1]), seed=0)
    wrongs: tuple[dict[str, Any], ...] = ({"spread": -1.0}, {"trust": -1.0}, {"train": "adapters"}, {"steps": 0})
    for wrong in wrongs:
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            OodFinetune(**wrong)
