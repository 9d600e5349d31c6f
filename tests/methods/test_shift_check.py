"""Whether a shift explains what a picture does: states of which that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image
from vlmend.core.sites import Site
from vlmend.methods.safety.cmrm import CMRM, measure_shift
from vlmend.methods.shift_check import ShiftCheck, check_shift
from vlmend.testing import ScriptedTarget

ROWS = tuple(
    Example(f"{label} {k}", f"{label} request {k}", label) for label in ("harmful", "benign") for k in range(24)
)
DATA = Dataset("anchors", ROWS)


@dataclass(frozen=True)
class _Moved(ScriptedTarget):
    """Harmful requests lie at +2 and benign ones at -2 on axis 0, in noise; a picture moves each by its own number."""

    harmful: float = -1.0
    benign: float = -1.0

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        return {site: torch.stack([self._of(one, site.layer) for one in batch]) for site in sites}

    def _of(self, conversation: Conversation, layer: int) -> Tensor:
        bad = "harmful" in conversation.prompt
        seed = int(conversation.without_images().digest[:8], 16) + layer
        state = 0.1 * torch.randn(self.width, generator=torch.Generator().manual_seed(seed))
        state[0] += (2.0 if bad else -2.0) * (layer == 1)
        if conversation.has_image:
            state[0] += self.harmful if bad else self.benign
            state[1] += 1.0
        return state


def _checked(harmful: float, benign: float, rows: Sequence[Example] = ROWS) -> ShiftCheck | None:
    target = _Moved(lambda conversation, mended: "", harmful=harmful, benign=benign)
    image: Image = blank_image(16)
    shift = measure_shift(target, rows, image)
    return check_shift(target, DATA, image, shift.mean, range(target.layers))


def test_fewer_requests_of_one_label_than_of_the_other_are_read_as_well() -> None:
    target = _Moved(lambda conversation, mended: "")
    few = Dataset("few", tuple(row for k, row in enumerate(ROWS) if row.label == "harmful" or k % 2))
    shift = measure_shift(target, few.examples, blank_image(16))
    found = check_shift(target, few, blank_image(16), shift.mean, range(target.layers))
    assert found is not None
    assert (found.layer, found.lost) == (1, pytest.approx(0.25, abs=0.02))


def test_a_shift_that_all_share_is_given_back_and_nothing_is_said() -> None:
    found = _checked(-1.0, -1.0)
    assert found is not None
    assert found.layer == 1  # the only one where the two lie apart
    assert (found.lost, found.lost_benign, found.back) == pytest.approx((0.25, 0.25, 0.25), abs=0.02)
    assert found.notes == ()


def test_a_move_of_harmful_requests_alone_is_not_what_all_anchors_share() -> None:
    few = [row for row in ROWS if row.label == "benign"] + list(ROWS[:4])
    found = _checked(-2.0, 0.0, few)
    assert found is not None
    assert (found.lost, found.lost_benign) == pytest.approx((0.5, 0.0), abs=0.03)
    assert found.back == pytest.approx(0.5 * 4 / 28, abs=0.03)
    assert "not moved as these anchors are" in found.notes[0]


def test_the_shift_of_harmful_anchors_alone_pushes_benign_requests() -> None:
    found = _checked(-2.0, 0.0, ROWS[:24])
    assert found is not None
    assert found.back == pytest.approx(0.5, abs=0.03)
    assert "expect over-refusal" in found.notes[0]


def test_where_nothing_is_lost_a_shift_has_nothing_to_give() -> None:
    found = _checked(0.0, 0.0)
    assert found is not None
    assert "no loss that a shift could give back" in found.notes[0]


def test_one_label_alone_tells_nothing() -> None:
    target = _Moved(lambda conversation, mended: "")
    alone = Dataset("harmful", ROWS[:24])
    assert check_shift(target, alone, blank_image(16), torch.zeros(target.layers, target.width), [0, 1]) is None


def test_the_fit_of_cmrm_puts_it_on_the_card() -> None:
    moved = _Moved(lambda conversation, mended: "", harmful=-2.0, benign=0.0)
    assert "expect over-refusal" in CMRM(anchors="harmful").fit(moved, DATA, seed=0).card.notes[0]
    assert CMRM().fit(_Moved(lambda conversation, mended: ""), DATA, seed=0).card.notes == ()
