"""target_string: a model whose every case is known, a mend that is attacked with the model, and its controls."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from tests.attacks.two_words import SIDE, TwoWords, mended
from torch import Tensor

from vlmend.attacks.safety.target_string import TargetString
from vlmend.core.attacks import Budget, random_signs
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.errors import BadData
from vlmend.testing import tiny_vlm


def turnable(weight: Tensor, bound: float, picture: np.ndarray, levels: int) -> bool:
    """Whether any 8-bit picture within so many levels is answered with "yes": the best one by hand, pixel by pixel."""
    flat, w = picture.transpose(2, 0, 1).ravel().astype(int), weight.numpy()
    best = np.where(w > 0, np.minimum(255, flat + levels), np.maximum(0, flat - levels))
    return float((best / 255) @ w) > bound


def square(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_of_the_pictures_that_can_be_turned_at_all_nine_in_ten_are_found() -> None:
    """Carlini et al.: without cases whose answer is known, an attack that fails says nothing. 40 pictures of 2 x 2."""
    rng, levels = np.random.default_rng(0), 16
    solvable = found = 0
    for seed in range(40):
        picture, weight = square(rng), torch.from_numpy(rng.normal(size=12)).float()
        plain = float((picture.transpose(2, 0, 1).ravel() / 255) @ weight.numpy())
        model = TwoWords(weight, plain + float(rng.uniform(0.0, 0.9)))
        row = Example("a", "say it", image=Image.from_pixels(PIL.Image.fromarray(picture)))
        made = TargetString(target="yes").run(model, Dataset("d", (row,)), Budget(levels / 255, 20), seed=seed)
        turned = made.examples[0].attributes["attacked"] == "wrong"
        can = turnable(weight, model.bound, picture, levels)
        assert can or not turned
        solvable, found = solvable + can, found + turned
    assert 10 < solvable < 35
    assert found >= 0.9 * solvable


def test_random_signs_as_large_do_not_do_it_and_epsilon_0_changes_nothing() -> None:
    weight = torch.tensor([1.0, -1.0] * 6)
    grey = Image.from_pixels(PIL.Image.new("RGB", (SIDE, SIDE), (128, 128, 128)))
    model, data = TwoWords(weight, 0.5), Dataset("d", (Example("a", "say it", image=grey),))
    made = TargetString(target="yes").run(model, data, Budget(16 / 255, 20), seed=0)
    told = made.examples[0].attributes
    assert (told["clean"], told["noise"], told["attacked"], told["success"]) == ("right", "right", "wrong", "true")
    assert TargetString(target="yes").run(model, data, Budget(0.0), seed=0) is data
    noisy = random_signs(made.examples[0], Budget(0.0), 0)
    assert noisy.image is not None


def test_the_l2_distortion_by_hand() -> None:
    """Twelve values of a grey 2 x 2 picture all end 16 of 255 away: sqrt(12) * 16 / 255 = 0.217; one row is turned."""
    grey = Image.from_pixels(PIL.Image.new("RGB", (SIDE, SIDE), (128, 128, 128)))
    rows = tuple(Example(name, "say it", image=grey, attributes={"target": name}) for name in ("yes", "maybe"))
    model = TwoWords(torch.tensor([1.0, -1.0] * 6), 0.5)
    made = TargetString().run(model, Dataset("d", rows), Budget(16 / 255, 20), seed=0)
    assert [row.attributes["l2"] for row in made.examples] == [f"{np.sqrt(12) * 16 / 255:.6g}"] * 2
    told = "L2 distortion, pixels from 0 to 1: median 0.217 on 2 rows, 0.217 on the 1 that were turned."
    assert told in made.notes


def test_a_row_says_what_it_wants_to_hear_and_rows_without_a_picture_are_lent_one() -> None:
    rows = (
        Example("a", "say it", image=noise_image(16, 0), attributes={"target": "no"}),
        Example("b", "say it"), Example("c", ""),
    )  # fmt: skip
    made = TargetString(target="yes").run(
        TwoWords(torch.ones(12), 100.0), Dataset("d", rows), Budget(8 / 255, 2), seed=0
    )
    assert [row.id for row in made.examples] == ["a", "b"]
    assert made.examples[0].attributes["clean"] == "wrong"
    assert made.examples[1].image is not None
    with pytest.raises(BadData, match="has no row that target_string can attack"):
        TargetString().run(TwoWords(torch.ones(12), 0.0), Dataset("d", rows[2:]), Budget(8 / 255, 2), seed=0)


def test_a_mend_is_at_work_while_the_gradient_is_taken() -> None:
    """The view's loss falls further under pixels that were moved against the view than against the bare model."""
    base = tiny_vlm(0)
    view = mended(base)
    rows = tuple(Example(str(k), f"say {k}", image=noise_image(16, k)) for k in range(2))
    losses: dict[str, float] = {}
    for name, attacked in (("bare", base), ("view", view)):
        made = TargetString(target="ok then").run(attacked, Dataset("d", rows), Budget(32 / 255, 6), seed=0)
        asked = [row.conversation for row in made.examples]
        losses[name] = -float(torch.stack([one.mean() for one in view.logprobs(asked, ["ok then"] * 2)]).mean())
    clean = [row.conversation for row in rows]
    losses["clean"] = -float(torch.stack([one.mean() for one in view.logprobs(clean, ["ok then"] * 2)]).mean())
    assert losses["view"] < losses["bare"]
    assert losses["view"] < losses["clean"]
