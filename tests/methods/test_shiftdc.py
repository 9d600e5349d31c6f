"""ShiftDC: the part of a shift along the safety direction, by hand and on a model that really runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.directions import picked_layers
from vlmend.methods.safety.shiftdc import ShiftDC
from vlmend.models.editing.replies import CAPTION_REQUEST, captioned
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))
ASKED = [Conversation.ask("what is it", noise_image(16, 1))]
LAYER = 2
SITE = Site("language", LAYER)


class TwoBlocks(ScriptedTarget):
    """Odd requests have text states (4, 1), even ones (1, 5); an image adds (5, 0), a caption nothing."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = [(4.0, 1.0) if int(c.prompt[-1]) % 2 else (1.0, 5.0) for c in batch]
        images = torch.tensor([[5.0 * c.has_image, 0.0] for c in batch])
        return {site: torch.tensor(rows) + images for site in sites}


def two() -> TwoBlocks:
    return TwoBlocks(lambda c, mended: "a white square", layers=2, width=2)


def only_edit(mend: Mend) -> ContrastShift:
    (edit,) = mend.edits
    assert isinstance(edit, ContrastShift)
    return edit


def test_the_safety_direction_worked_out_by_hand() -> None:
    """Benign (1, 5) minus harmful (4, 1) is (-3, 4), of length 5."""
    edit = only_edit(ShiftDC().fit(two(), DATA, seed=0))
    assert edit.layers == (1,)
    assert edit.onto is not None
    torch.testing.assert_close(edit.onto, torch.tensor([[-0.6, 0.8], [-0.6, 0.8]]))
    assert (edit.seen, edit.unseen, edit.mode, edit.tokens, edit.when) == (
        "original", "caption", "full", "last_prompt", "with_image",
    )  # fmt: skip


def test_dose_worked_out_by_hand() -> None:
    """The shift (5, 0) has -3 along (-0.6, 0.8); beside the image states are (9, 1) and (6, 5)."""
    dose = ShiftDC(alpha=0.5).fit(two(), DATA, seed=0).card.dose
    assert dose == {"language.1.resid_post": pytest.approx(1.5 / ((82**0.5 + 61**0.5) / 2))}


def test_the_fit_asks_for_one_caption() -> None:
    target = two()
    ShiftDC().fit(target, DATA, seed=0)
    (asked,) = target.asked.conversations
    assert asked.prompt == CAPTION_REQUEST
    assert asked.has_image


def measured_shift(tiny: VLM) -> Tensor:
    """h(x, I) - h(caption, x) at one layer, the slow way."""
    told = captioned(tiny, ASKED)
    assert told[0].prompt.endswith("what is it")
    return tiny.hidden(ASKED, [SITE])[SITE][0] - tiny.hidden(told, [SITE])[SITE][0]


def test_the_state_loses_the_shift_along_the_direction_and_nothing_else(tiny: VLM) -> None:
    mend = ShiftDC(alpha=0.7, layers=str(LAYER)).fit(tiny, DATA, seed=0)
    safe = only_edit(mend).onto
    assert safe is not None
    s = safe[LAYER]
    lost = tiny.hidden(ASKED, [SITE])[SITE][0] - tiny.with_mend(mend).hidden(ASKED, [SITE])[SITE][0]
    assert lost.norm() > 1e-2
    torch.testing.assert_close(lost, 0.7 * (s @ measured_shift(tiny)) * s, atol=1e-5, rtol=1e-4)


def logits_along(tiny: VLM, direction: Tensor | None) -> Tensor:
    """Logits with the direction of one layer put in the place of the fitted one; None takes all."""
    mend = ShiftDC(layers=str(LAYER)).fit(tiny, DATA, seed=0)
    onto = None if direction is None else torch.zeros(tiny.layers, len(direction)).index_fill(0, torch.tensor(LAYER), 1)
    edit = replace(only_edit(mend), onto=None if onto is None else onto * direction)
    return tiny.with_mend(Mend((edit,), mend.card)).logits(ASKED)


def test_a_shift_parallel_to_the_direction_goes_whole(tiny: VLM) -> None:
    parallel = logits_along(tiny, -normalize(measured_shift(tiny), dim=0))
    torch.testing.assert_close(parallel, logits_along(tiny, None), atol=1e-4, rtol=1e-4)
    assert (parallel - tiny.logits(ASKED)).abs().max() > 1e-2


def test_a_shift_orthogonal_to_the_direction_stays(tiny: VLM) -> None:
    along = normalize(measured_shift(tiny), dim=0)
    other = torch.randn(len(along), generator=torch.Generator().manual_seed(0))
    across = normalize(other - (other @ along) * along, dim=0)
    torch.testing.assert_close(logits_along(tiny, across), tiny.logits(ASKED), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "wanted"), [("upper", (2, 3, 4)), ("middle", (2,)), ("all", (0, 1, 2, 3, 4)), ("0,3", (0, 3))]
)
def test_layers_have_names(text: str, wanted: tuple[int, ...]) -> None:
    assert picked_layers(text, 5) == wanted


def test_other_layer_names_are_refused() -> None:
    with pytest.raises(BadParameter, match="lower"):
        picked_layers("lower", 5)


def test_one_label_alone_is_refused(tiny: VLM) -> None:
    harmful = Dataset("h", DATA.labelled("harmful"))
    with pytest.raises(BadData, match="no benign request"):
        ShiftDC().fit(tiny, harmful, seed=0)
