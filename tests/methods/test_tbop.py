"""TBOP against projections worked out by hand, and on a model that really runs."""

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
from vlmend.errors import BadData
from vlmend.methods.safety.tbop import TBOP
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))
ASKED = [Conversation.ask("what is it", noise_image(16, 1)), Conversation.ask("and a longer one", noise_image(16, 2))]


class TwoBlocks(ScriptedTarget):
    """Text states are (1, 2) and (3, 5); an image adds (3, 4) and (0, -2)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        text = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        moved = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
        return {
            site: torch.stack([text[site.layer] + c.has_image * moved[site.layer] for c in batch]) for site in sites
        }


TWO = TwoBlocks(lambda c, mended: "", layers=2, width=2)


def directions(method: TBOP, target: VLM | ScriptedTarget) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for edit in method.fit(target, DATA, seed=0).edits:
        assert isinstance(edit, ProjectOut)
        found[edit.site.layer] = edit.directions
    return found


def test_directions_worked_out_by_hand() -> None:
    """(3, 4) has length 5, so u is (0.6, 0.8); (0, -2) gives (0, -1)."""
    found = directions(TBOP(), TWO)
    torch.testing.assert_close(found[0], torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(found[1], torch.tensor([[0.0, -1.0]]))


def test_dose_worked_out_by_hand() -> None:
    """Beside the image block 0 holds (4, 6): 0.6 * 4 + 0.8 * 6 = 7.2, half of it over sqrt(52)."""
    dose = TBOP(strength=0.5).fit(TWO, DATA, seed=0).card.dose
    assert dose["language.0.resid_post"] == pytest.approx(3.6 / 52**0.5)
    assert dose["language.1.resid_post"] == pytest.approx(0.5 * 3 / 18**0.5)


def test_nothing_is_left_along_the_direction_at_any_layer(tiny: VLM) -> None:
    view = tiny.with_mend(TBOP().fit(tiny, DATA, seed=0))
    for layer, rows in directions(TBOP(), tiny).items():
        site = Site("language", layer)
        assert (tiny.hidden(ASKED, [site])[site] @ rows.T).abs().max() > 1e-2
        assert (view.hidden(ASKED, [site])[site] @ rows.T).abs().max() < 1e-5


def test_half_strength_leaves_half_and_keeps_the_rest(tiny: VLM) -> None:
    site = Site("language", 1)
    view = tiny.with_mend(TBOP(strength=0.5, layers="1").fit(tiny, DATA, seed=0))
    (u,) = directions(TBOP(layers="1"), tiny)[1]
    plain, mended = tiny.hidden(ASKED, [site])[site], view.hidden(ASKED, [site])[site]
    torch.testing.assert_close(mended @ u, 0.5 * (plain @ u), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mended - (mended @ u)[:, None] * u, plain - (plain @ u)[:, None] * u, atol=1e-5, rtol=0)


def test_an_image_that_moves_nothing_is_refused_with_the_layers() -> None:
    class Blind(ScriptedTarget):
        def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
            return {site: torch.ones(len(batch), 2) for site in sites}

    with pytest.raises(BadData, match=r"mean shift of an image is zero at layers 0, 1"):
        TBOP().fit(Blind(lambda c, mended: "", layers=2, width=2), DATA, seed=0)


def test_the_anchors_are_those_asked_for(tiny: VLM) -> None:
    one = Dataset("one", tuple(example for example in DATA.examples if example.label == "harmful"))
    assert TBOP(anchors="harmful").fit(tiny, DATA, seed=0).digest == TBOP().fit(tiny, one, seed=0).digest
    assert TBOP(anchors="harmful").fit(tiny, DATA, seed=0).digest != TBOP().fit(tiny, DATA, seed=0).digest
