"""AlphaSteer against a direct solve of its ridge problem, toys worked out by hand, and a model that really runs."""

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
from vlmend.methods.nullspace import occupied, ridge_weight
from vlmend.methods.safety.alphasteer import AlphaSteer
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))
ASKED = [Conversation.ask("what is it", noise_image(16, 1)), Conversation.ask("and a longer one", noise_image(16, 2))]


def drawn(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


class Apart(ScriptedTarget):
    """Beside an image harmful requests (odd numbers) are at (0, 2) and benign ones at (3, 0); text adds (0, 4)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        at = {True: torch.tensor([0.0, 2.0]), False: torch.tensor([3.0, 0.0])}
        rows = [at[int(c.prompt[-1]) % 2 == 1] + (not c.has_image) * torch.tensor([0.0, 4.0]) for c in batch]
        return {site: torch.stack(rows) for site in sites}


APART = Apart(lambda c, mended: "", layers=1, width=2)


def map_of(method: AlphaSteer) -> AffineMap:
    (edit,) = method.fit(APART, DATA, seed=0).edits
    assert isinstance(edit, AffineMap)
    return edit


@pytest.mark.parametrize("ridge", [0.1, 5.0])
def test_the_rank_one_map_is_the_solution_of_the_ridge_problem(ridge: float) -> None:
    """Directly: D of [H_m P; sqrt(ridge) P] D = [1 r^T; 0] by least squares, and the map is P D."""
    benign, harmful, towards = drawn(9, 5, 0), drawn(6, 5, 1), drawn(1, 5, 2)
    held = occupied(benign, 0.6)
    projection = torch.eye(5) - held @ held.T
    left = torch.cat([harmful @ projection, ridge**0.5 * projection]).double()
    right = torch.cat([torch.ones(6, 1) @ towards, torch.zeros(5, 5)]).double()
    direct = projection.double() @ (torch.linalg.pinv(left, rtol=1e-5) @ right)
    ours = ridge_weight(harmful, held, ridge)[:, None] @ towards
    torch.testing.assert_close(ours.double(), direct, atol=1e-5, rtol=1e-4)


def test_benign_states_move_no_more_than_the_energy_of_the_dropped_spectrum() -> None:
    """sum over benign h of (w . h)^2 <= |w|^2 times the sum of the squared smallest singular values: 3 of 5."""
    benign, harmful = drawn(9, 5, 0), drawn(6, 5, 1)
    weight = ridge_weight(harmful, occupied(benign, 0.6), 0.1)
    energy = torch.linalg.svdvals(benign)[-3:].square().sum()
    assert (benign @ weight).square().sum() <= energy * weight.square().sum() * (1 + 1e-5)
    assert (harmful @ weight).mean() > (benign @ weight).abs().mean()


def test_two_directions_worked_out_by_hand() -> None:
    """Benign on (3, 0), so only (0, 1) is free. Nine harmful reads of 2: w = 9 * 2 / (9 * 4 + 4) = 0.45, w . h = 0.9.

    r is text minus image, (0, 4); a harmful state gets 0.5 * 0.9 * (0, 4) = (0, 1.8), a benign one nothing.
    """
    edit = map_of(AlphaSteer(strength=0.5, layers="all", null_share=0.5, ridge=4.0))
    torch.testing.assert_close(edit.read, torch.tensor([[0.0, 0.45]]))
    torch.testing.assert_close(edit.write, torch.tensor([[0.0], [4.0]]))
    assert not edit.bias.any()
    for state, added in (((0.0, 2.0), (0.0, 1.8)), ((3.0, 0.0), (0.0, 0.0))):
        change = edit.strength * edit.write @ (edit.read @ torch.tensor(state))
        torch.testing.assert_close(change, torch.tensor(added))


def test_dose_worked_out_by_hand() -> None:
    """A harmful state of length 2 is moved by 1.8."""
    mend = AlphaSteer(strength=0.5, layers="all", null_share=0.5, ridge=4.0).fit(APART, DATA, seed=0)
    assert mend.card.dose["language.0.resid_post"] == pytest.approx(0.9)


def test_a_gap_of_classes_can_be_the_direction() -> None:
    """(0, 2) - (3, 0) = (-3, 2)."""
    torch.testing.assert_close(
        map_of(AlphaSteer(layers="all", refusal="harmful_gap")).write, torch.tensor([[-3.0], [2.0]])
    )


def test_a_large_ridge_gives_nothing() -> None:
    held = occupied(drawn(9, 5, 0), 0.6)
    sizes = [float(ridge_weight(drawn(6, 5, 1), held, ridge).norm()) for ridge in (1.0, 1e3, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-8


def test_what_is_exactly_null_is_never_held() -> None:
    """Two benign states in five dimensions hold two directions, though a null share of 0.2 would allow four."""
    benign = drawn(2, 5, 0)
    held = occupied(benign, 0.2)
    assert held.shape == (5, 2)
    assert (benign @ ridge_weight(drawn(6, 5, 1), held, 0.1)).abs().max() < 1e-5


def test_a_larger_null_share_holds_fewer_directions() -> None:
    """5 directions: 20 % null leaves 4, 60 % leaves 2, and one direction at least is null."""
    assert [occupied(drawn(9, 5, 0), share).shape[1] for share in (0.01, 0.2, 0.6)] == [4, 4, 2]


def test_inner_layers_are_a_third_to_five_sixths(tiny: VLM) -> None:
    """Of 30 layers 10 to 25, of 4 layers 1 to 3."""
    mend = AlphaSteer(ridge=0.01).fit(tiny, DATA, seed=0)
    assert list(mend.card.dose) == [f"language.{layer}.resid_post" for layer in (1, 2, 3)]


def test_a_state_is_moved_by_what_the_map_says_and_text_is_not(tiny: VLM) -> None:
    site = Site("language", 2)
    mend = AlphaSteer(layers="2", ridge=0.01, strength=1.0).fit(tiny, DATA, seed=0)
    (edit,) = mend.edits
    assert isinstance(edit, AffineMap)
    plain, mended = (view.hidden(ASKED, [site])[site] for view in (tiny, tiny.with_mend(mend)))
    torch.testing.assert_close(mended, plain + plain @ edit.read.T @ edit.write.T, atol=1e-4, rtol=1e-4)
    assert (mended - plain).abs().max() > 1e-3
    text = [Conversation.ask("what is it")]
    assert torch.equal(tiny.with_mend(mend).hidden(text, [site])[site], tiny.hidden(text, [site])[site])


def test_every_prompt_token_can_get_what_the_last_one_reads(tiny: VLM) -> None:
    last, prompt = (
        tiny.with_mend(AlphaSteer(ridge=0.01, strength=1.0, tokens=tokens).fit(tiny, DATA, seed=0)).logits(ASKED)
        for tokens in ("last_prompt", "prompt")
    )
    assert (last - prompt).abs().max() > 1e-3


def test_what_gives_no_map_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter, match="give no map"):
        AlphaSteer(null_share=1.0)
    with pytest.raises(BadParameter, match="give no map"):
        AlphaSteer(ridge=0.0)
    with pytest.raises(BadData, match="no benign request"):
        AlphaSteer().fit(tiny, Dataset("h", DATA.labelled("harmful")), seed=0)
