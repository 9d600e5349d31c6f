"""ASTRA's dosed steering against numbers worked out by hand and against its formula on a running model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlmend.core.conversation import Conversation
from vlmend.core.edits import CosineDose
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image, noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData
from vlmend.methods.safety.astra import ASTRA
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))


class TwoBlocks(ScriptedTarget):
    """Odd requests have text states (1, 0), even ones (1, -4); an image adds (3, 4)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = [(1.0, 0.0) if int(c.prompt[-1]) % 2 else (1.0, -4.0) for c in batch]
        images = torch.tensor([[3.0 * c.has_image, 4.0 * c.has_image] for c in batch])
        return {site: torch.tensor(rows) + images for site in sites}


TWO = TwoBlocks(lambda c, mended: "", layers=2, width=2)


def only_edit(mend: Mend) -> CosineDose:
    (edit,) = mend.edits
    assert isinstance(edit, CosineDose)
    return edit


def test_direction_and_reference_worked_out_by_hand() -> None:
    """(3, 4) has length 5; benign requests beside the image are (4, 0)."""
    edit = only_edit(ASTRA(alpha=2.0).fit(TWO, DATA, seed=0))
    torch.testing.assert_close(edit.direction, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(edit.reference, torch.tensor([4.0, 0.0]))
    assert (edit.site, edit.strength, edit.tokens) == (Site("language", 1), 2.0, "last")


def test_dose_worked_out_by_hand() -> None:
    """Harmful (4, 4) is (0, 4) off the reference, cosine 0.8 with (0.6, 0.8); benign (4, 0) is not off at all."""
    dose = ASTRA().fit(TWO, DATA, seed=0).card.dose
    assert dose == {"language.1.resid_post": pytest.approx(0.8 * 32**0.5 / (32**0.5 + 4))}


def test_states_lose_by_the_formula_and_those_that_lean_away_lose_nothing(tiny: VLM) -> None:
    mend = ASTRA(alpha=0.5).fit(tiny, DATA, seed=0)
    edit = only_edit(mend)
    images = [blank_image(16), *(noise_image(16, seed) for seed in range(7))]
    asked = [Conversation.ask(example.prompt, image) for example in DATA.examples for image in images]
    plain = tiny.hidden(asked, [edit.site])[edit.site]
    mended = tiny.with_mend(mend).hidden(asked, [edit.site])[edit.site]
    leaning = cosine_similarity(plain - edit.reference, edit.direction[None], dim=1)
    assert (leaning > 0.05).any()
    assert (leaning < -0.05).any()
    wanted = 0.5 * plain.norm(dim=1) * leaning.clamp(0, 1)
    torch.testing.assert_close(plain - mended, wanted[:, None] * edit.direction, atol=1e-5, rtol=1e-4)
    assert torch.equal(mended[leaning < 0], plain[leaning < 0])


def test_every_step_and_prefill_are_different_mends(tiny: VLM) -> None:
    assert only_edit(ASTRA(scope="prefill").fit(tiny, DATA, seed=0)).tokens == "last_prompt"
    assert only_edit(ASTRA().fit(tiny, DATA, seed=0)).site.layer == tiny.layers // 2


def test_no_benign_request_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadData, match="no benign request"):
        ASTRA().fit(tiny, Dataset("h", DATA.labelled("harmful")), seed=0)
