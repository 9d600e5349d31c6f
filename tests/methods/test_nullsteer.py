"""NullSteer: toys worked out by hand, the model's own refusals as direction, and a model that really runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AffineMap
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.nullspace import null_space_edits
from vlmend.methods.safety.nullsteer import NullSteer
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(8)))
ASKED = [Conversation.ask("what is it", noise_image(16, 1)), Conversation.ask("and a longer one", noise_image(16, 2))]


class Apart(ScriptedTarget):
    """Beside an image benign requests (even numbers) are at (3, 0, 0), harmful ones at (0, 2, 0), and of these 1 and 5
    one further in the third direction; text adds (0, 0, 4)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = []
        for c in batch:
            number = int(c.prompt[-1])
            state = torch.tensor([0.0, 2.0, float(number % 4 == 1)] if number % 2 else [3.0, 0.0, 0.0])
            rows.append(state + (not c.has_image) * torch.tensor([0.0, 0.0, 4.0]))
        return {site: torch.stack(rows) for site in sites}


def apart(declining: Sequence[int] = (1, 5)) -> Apart:
    """It declines these, beside an image."""
    return Apart(
        lambda c, mended: "I'm sorry, I can't help with that." if int(c.prompt[-1]) in declining else "Sure.",
        layers=1, width=3,
    )  # fmt: skip


def map_of(method: NullSteer, target: Apart) -> AffineMap:
    (edit,) = method.fit(target, DATA, seed=0).edits
    assert isinstance(edit, AffineMap)
    return edit


def test_the_direction_is_what_the_models_own_refusals_differ_by() -> None:
    """1 and 5 are declined, at (0, 2, 1); 3 and 7 are answered, at (0, 2, 0): r is (0, 0, 1)."""
    edit = map_of(NullSteer(layers="all"), apart())
    torch.testing.assert_close(edit.write, torch.tensor([[0.0], [0.0], [1.0]]))
    assert (edit.source, edit.tokens, edit.when) == ("last_prompt", "last_prompt", "with_image")
    other = map_of(NullSteer(layers="all"), apart((3, 7)))
    torch.testing.assert_close(other.write, torch.tensor([[0.0], [0.0], [-1.0]]))


def test_the_image_shift_can_be_the_direction() -> None:
    shift = map_of(NullSteer(layers="all", refusal="image_shift"), apart(())).write
    torch.testing.assert_close(shift, torch.tensor([[0.0], [0.0], [4.0]]))


def test_two_directions_are_told_apart_exactly_without_a_price() -> None:
    """Benign on e1, harmful on e2: benign states get nothing, harmful ones all of r but for the ridge's share.

    Six harmful reads of 2 and ridge 1e-6: w . h = 6 * 4 / (6 * 4 + 1e-6).
    """
    harmful, benign = torch.tensor([[[0.0, 2.0]]]).expand(6, 1, 2), torch.tensor([[[3.0, 0.0]]]).expand(6, 1, 2)
    towards = torch.tensor([[5.0, 7.0]])
    (edit,), _ = null_space_edits(
        harmful, benign, towards, [0], null_share=0.5, ridge=1e-6, strength=1.0, tokens="last_prompt"
    )
    for state, wanted in (((0.0, 2.0), (5.0, 7.0)), ((3.0, 0.0), (0.0, 0.0)), ((4.0, 2.0), (5.0, 7.0))):
        torch.testing.assert_close(edit.write @ (edit.read @ torch.tensor(state)), torch.tensor(wanted))


def test_benign_anchors_move_by_no_more_than_the_energy_of_the_dropped_spectrum(tiny: VLM) -> None:
    """sum |moves|^2 <= |w|^2 |r|^2 times the sum of the squared singular values that count as null: 19 of 32."""
    generator = torch.Generator().manual_seed(0)
    benign, harmful = torch.randn(40, 1, 32, generator=generator), torch.randn(9, 1, 32, generator=generator)
    towards = torch.randn(1, 32, generator=generator)
    (edit,), _ = null_space_edits(
        harmful, benign, towards, [0], null_share=0.6, ridge=0.1, strength=1.0, tokens="last_prompt"
    )
    moves = benign[:, 0] @ edit.read.T @ edit.write.T
    energy = torch.linalg.svdvals(benign[:, 0])[-19:].square().sum()
    bound = energy * edit.read.square().sum() * towards.square().sum()
    assert moves.square().sum() <= bound * (1 + 1e-5)
    assert moves.square().sum() > bound / 1e4


def test_a_large_ridge_gives_nothing() -> None:
    sizes = [float(map_of(NullSteer(layers="all", ridge=ridge), apart()).read.norm()) for ridge in (1.0, 1e3, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-7


def test_the_middle_layer_of_a_model_is_moved_by_what_the_map_says_and_text_is_not(tiny: VLM) -> None:
    site = Site("language", 2)
    mend = NullSteer(ridge=0.01, refusal="image_shift").fit(tiny, DATA, seed=0)
    (edit,) = mend.edits
    assert isinstance(edit, AffineMap)
    assert edit.site == site
    plain, mended = (view.hidden(ASKED, [site])[site] for view in (tiny, tiny.with_mend(mend)))
    torch.testing.assert_close(mended, plain + plain @ edit.read.T @ edit.write.T, atol=1e-4, rtol=1e-4)
    assert (mended - plain).abs().max() > 1e-3
    text = [Conversation.ask("what is it")]
    assert torch.equal(tiny.with_mend(mend).hidden(text, [site])[site], tiny.hidden(text, [site])[site])


def test_what_gives_no_map_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadParameter, match="give no map"):
        NullSteer(null_share=0.0)
    with pytest.raises(BadData, match="declines 0 and answers 4") as problem:
        NullSteer(layers="all").fit(apart(()), DATA, seed=0)
    assert "refusal=image_shift" in str(problem.value.hint)
