"""VLM-Guard against singular vectors worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ProjectOut
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety.vlm_guard import VLMGuard
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

TEXT = {
    "h0": ((4.0, 1.0), (11.0, 0.0)),
    "h1": ((1.0, 2.0), (11.0, 2.0)),
    "b0": ((1.0, 1.0), (1.0, 1.0)),
}
"""Differences: block 0 (3, 0) and (0, 1), block 1 (10, -1) and (10, 1)."""
DATA = Dataset("d", tuple(Example(name, name, "harmful" if name[0] == "h" else "benign") for name in TEXT))


class TwoBlocks(ScriptedTarget):
    """Text states from the table; an image adds (0, 1) everywhere."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = torch.tensor([TEXT[c.prompt] for c in batch])
        rows[..., 1] += torch.tensor([float(c.has_image) for c in batch])[:, None]
        return {site: rows[:, site.layer] for site in sites}


TWO = TwoBlocks(lambda c, mended: "", layers=2, width=2)


def directions(method: VLMGuard, target: VLM | ScriptedTarget, data: Dataset = DATA) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for edit in method.fit(target, data, seed=0).edits:
        assert isinstance(edit, ProjectOut)
        found[edit.site.layer] = edit.directions
    return found


def test_the_first_direction_is_the_largest_difference_not_the_largest_spread() -> None:
    """Block 1 differs by (10, -1) and (10, 1): the first uncentred direction is (1, 0), a centred one (0, 1)."""
    found = directions(VLMGuard(), TWO)
    for layer in (0, 1):
        torch.testing.assert_close(found[layer].abs(), torch.tensor([[1.0, 0.0]]))


def test_dose_worked_out_by_hand() -> None:
    """Beside the image block 0 holds (4, 2), (1, 3), (1, 2), and loses 4, 1 and 1 of them."""
    dose = VLMGuard().fit(TWO, DATA, seed=0).card.dose
    assert dose["language.0.resid_post"] == pytest.approx((4 + 1 + 1) / (20**0.5 + 10**0.5 + 5**0.5))


def test_two_directions_of_two_dimensions_take_everything() -> None:
    dose = VLMGuard(rank=2).fit(TWO, DATA, seed=0).card.dose
    assert dose["language.0.resid_post"] == pytest.approx(1.0)


def test_benign_anchors_take_turns() -> None:
    """With benign (1, 1) and (1, 102) in turn the differences are (3, 0) and (0, -100): now (0, 1) comes first."""
    two = Dataset("two", (*DATA.examples, Example("b1", "b1", "benign")))

    class More(TwoBlocks):
        def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
            tall = torch.tensor([[0.0, 101.0 * (c.prompt == "b1")] for c in batch])
            known = [Conversation.ask("b0") if c.prompt == "b1" else c for c in batch]
            return {site: rows + tall for site, rows in super().hidden(known, sites).items()}

    found = directions(VLMGuard(layers="0"), More(lambda c, mended: "", layers=2, width=2), two)
    torch.testing.assert_close(found[0].abs(), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_beyond_anchors_or_width_is_refused(rank: int) -> None:
    with pytest.raises(BadParameter, match=f"rank={rank}"):
        VLMGuard(rank=rank).fit(TWO, DATA, seed=0)


def test_differences_of_too_few_directions_are_refused() -> None:
    class Same(ScriptedTarget):
        def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
            return {site: torch.tensor([[float(c.prompt[0] == "h"), 1.0] for c in batch]) for site in sites}

    same = Same(lambda c, mended: "", layers=2, width=2)
    torch.testing.assert_close(directions(VLMGuard(), same)[0].abs(), torch.tensor([[1.0, 0.0]]))
    with pytest.raises(BadData, match="fewer than rank=2"):
        VLMGuard(rank=2).fit(same, DATA, seed=0)


def test_directions_are_orthonormal_and_nothing_is_left_along_them(tiny: VLM) -> None:
    data = Dataset("t", tuple(Example(str(k), f"request {k * k}", "harmful" if k % 2 else "benign") for k in range(8)))
    mend = VLMGuard(rank=2).fit(tiny, data, seed=0)
    asked = [Conversation.ask("what is it", noise_image(16, 1))]
    for layer, rows in directions(VLMGuard(rank=2), tiny, data).items():
        site = Site("language", layer)
        torch.testing.assert_close(rows @ rows.T, torch.eye(2), atol=1e-5, rtol=0)
        assert (tiny.hidden(asked, [site])[site] @ rows.T).abs().max() > 1e-2
        assert (tiny.with_mend(mend).hidden(asked, [site])[site] @ rows.T).abs().max() < 1e-5
