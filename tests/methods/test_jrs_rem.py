"""JRS-Rem: the part of a shift along jailbroken minus declined, by hand and on a model that really runs."""

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
from vlmend.errors import BadData
from vlmend.methods.safety.jrs_rem import JRSRem
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(8)))
ASKED = [Conversation.ask("what is it", noise_image(16, 1))]
SITE = Site("language", 2)


class Broken(ScriptedTarget):
    """Harmful requests 1 and 5 are at (1, 1) beside an image and declined, 3 and 7 at (4, 5) and answered; benign ones
    are at (1, 5). As text all have (2, 0) less."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        at = {0: (1.0, 5.0), 1: (1.0, 1.0), 2: (1.0, 5.0), 3: (4.0, 5.0)}
        rows = [torch.tensor(at[int(c.prompt[-1]) % 4]) - torch.tensor([2.0 * (not c.has_image), 0.0]) for c in batch]
        return {site: torch.stack(rows) for site in sites}


def broken(always: bool = False) -> Broken:
    return Broken(
        lambda c, mended: "Sure." if always or int(c.prompt[-1]) % 4 == 3 else "I cannot help with that.",
        layers=2, width=2,
    )  # fmt: skip


def only_edit(mend: Mend) -> ContrastShift:
    (edit,) = mend.edits
    assert isinstance(edit, ContrastShift)
    return edit


def test_the_direction_worked_out_by_hand() -> None:
    """Answered (4, 5) minus declined (1, 1) is (3, 4), of length 5."""
    edit = only_edit(JRSRem().fit(broken(), DATA, seed=0))
    assert edit.onto is not None
    torch.testing.assert_close(edit.onto, torch.tensor([[0.6, 0.8], [0.6, 0.8]]))
    assert (edit.layers, edit.seen, edit.unseen, edit.mode, edit.tokens, edit.when) == (
        (0, 1), "original", "text", "increment", "last_prompt", "with_image",
    )  # fmt: skip


def test_the_labels_can_give_the_direction() -> None:
    """Benign (1, 5) minus the mean of harmful (2.5, 3) is (-1.5, 2), of length 2.5."""
    edit = only_edit(JRSRem(contrast="labels").fit(broken(always=True), DATA, seed=0))
    assert edit.onto is not None
    torch.testing.assert_close(edit.onto, torch.tensor([[-0.6, 0.8], [-0.6, 0.8]]))


def test_dose_worked_out_by_hand() -> None:
    """The shift (2, 0) has 1.2 along (0.6, 0.8) at both layers, so the second gains nothing.

    States are (4, 5) and (1, 1).
    """
    dose = JRSRem(alpha=0.5).fit(broken(), DATA, seed=0).card.dose
    assert dose["language.0.resid_post"] == pytest.approx(0.6 / ((41**0.5 + 2**0.5) / 2))
    assert dose["language.1.resid_post"] == pytest.approx(0.0, abs=1e-6)


def test_a_state_loses_its_own_shift_along_the_direction_and_nothing_else(tiny: VLM) -> None:
    mend = JRSRem(alpha=0.7, layers="2", contrast="labels").fit(tiny, DATA, seed=0)
    along = only_edit(mend).onto
    assert along is not None
    j = along[2]
    text = [one.without_images() for one in ASKED]
    shift = tiny.hidden(ASKED, [SITE])[SITE][0] - tiny.hidden(text, [SITE])[SITE][0]
    lost = tiny.hidden(ASKED, [SITE])[SITE][0] - tiny.with_mend(mend).hidden(ASKED, [SITE])[SITE][0]
    assert lost.norm() > 1e-3
    torch.testing.assert_close(lost, 0.7 * (j @ shift) * j, atol=1e-5, rtol=1e-4)


def test_a_shift_across_the_direction_stays_and_one_along_it_goes_whole(tiny: VLM) -> None:
    """At the last layer all of the shift gone is the text path's logits."""
    last = tiny.layers - 1
    site = Site("language", last)
    text = [one.without_images() for one in ASKED]
    shift = normalize(tiny.hidden(ASKED, [site])[site][0] - tiny.hidden(text, [site])[site][0], dim=0)
    other = torch.randn(len(shift), generator=torch.Generator().manual_seed(0))
    mend = JRSRem(layers=str(last), contrast="labels").fit(tiny, DATA, seed=0)

    def logits(direction: Tensor) -> Tensor:
        onto = torch.zeros(tiny.layers, len(shift))
        onto[last] = direction
        return tiny.with_mend(Mend((replace(only_edit(mend), onto=onto),), mend.card)).logits(ASKED)

    torch.testing.assert_close(logits(shift), tiny.logits(text), atol=1e-4, rtol=1e-4)
    across = normalize(other - (other @ shift) * shift, dim=0)
    torch.testing.assert_close(logits(across), tiny.logits(ASKED), atol=1e-4, rtol=1e-4)


def test_a_model_that_answers_everything_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadData, match="declines 0 and answers 4") as problem:
        JRSRem().fit(broken(always=True), DATA, seed=0)
    assert "contrast=labels" in str(problem.value.hint)
