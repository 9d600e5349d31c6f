"""WiSE-FT: both ends bit for bit, linear in the weights, alpha chosen on what was held out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.tecoa import Tecoa
from vlmend.methods.robustness.wise_ft import ALPHAS, WiseFt, best_alpha
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(15)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
QUICK = WiseFt(steps=10, batch=6, rate=3e-3)


def weights_of(mend: Mend) -> dict[str, ReplaceWeights]:
    return {edit.parameter: edit for edit in mend.edits if isinstance(edit, ReplaceWeights)}


def test_alpha_0_is_the_base_and_alpha_1_the_fine_tuned_tower_bit_for_bit() -> None:
    target = tiny_clip()
    after = replace(QUICK, alpha=1.0).fit(target, DATA, seed=0)
    start = target.with_mend(replace(QUICK, alpha=0.0).fit(target, DATA, seed=0))
    assert torch.equal(start.embed_images(IMAGES), target.embed_images(IMAGES))
    end = target.with_mend(after)
    assert not torch.equal(end.embed_images(IMAGES), target.embed_images(IMAGES))
    with end.mended_weights():
        held = dict(target.towers.model.named_parameters())
        assert all(torch.equal(held[name], edit.value) for name, edit in weights_of(after).items())


def test_between_the_ends_weights_are_the_weighted_mean() -> None:
    """At 0.25: three quarters of the weight before, one quarter of that after."""
    target = tiny_clip()
    before = {name: value.clone() for name, value in target.towers.model.named_parameters()}
    mend = replace(QUICK, alpha=0.25).fit(target, DATA, seed=0)
    with target.with_mend(mend).mended_weights():
        between = dict(target.towers.model.named_parameters())
        for name, edit in weights_of(mend).items():
            torch.testing.assert_close(between[name], 0.75 * before[name] + 0.25 * edit.value, atol=1e-6, rtol=1e-6)


def test_tecoa_with_nothing_to_attack_is_the_same_fine_tuning() -> None:
    """A ball so small that no float32 pixel moves: WiSE-FT at alpha 1, which knows no adversary."""
    target = tiny_clip()
    plain = WiseFt(steps=3, batch=15, rate=3e-3, alpha=1.0).fit(target, DATA, seed=0)
    still = Tecoa(epsilon=1e-12, steps=3, batch=15, rate=3e-3).fit(target, DATA, seed=0)
    found = [target.with_mend(mend).embed_images(IMAGES) for mend in (plain, still)]
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)
    assert (found[0] - target.embed_images(IMAGES)).abs().max() > 1e-2


def test_alpha_is_chosen_on_pictures_that_were_held_out() -> None:
    """Three of 15; the same pictures under other names in the data's last rows would not be told from them."""
    mend = replace(QUICK, alpha=None).fit(tiny_clip(), DATA, seed=0)
    (note,) = mend.card.notes
    assert "chosen on 3 pictures held out" in note
    strengths = {edit.strength for edit in weights_of(mend).values()}
    assert len(strengths) == 1
    assert strengths <= set(ALPHAS)
    assert f"alpha is {strengths.pop():g}" in note


@given(st.dictionaries(st.sampled_from(ALPHAS), st.sampled_from((0.0, 0.25, 0.5, 1.0)), min_size=1))
def test_the_best_alpha_has_the_largest_share_and_of_those_is_the_smallest(shares: dict[float, float]) -> None:
    alpha = best_alpha(shares)
    assert shares[alpha] == max(shares.values())
    assert all(other >= alpha for other, share in shares.items() if share == shares[alpha])


def test_too_few_pictures_and_an_alpha_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="too few to hold some out"):
        QUICK.fit(tiny_clip(), Dataset("few", DATA.examples[:4]), seed=0)
    for wrong in (-0.1, 1.1):
        with pytest.raises(BadParameter, match="is no share"):
            WiseFt(alpha=wrong)
