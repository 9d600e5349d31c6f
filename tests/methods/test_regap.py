"""ReGap: what goes by the fixed part and by the state itself, by hand and on a model that really runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, ModuleEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.regap import ReGap
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))


class Drifting(ScriptedTarget):
    """Text states are (0, 3) for harmful and (0, 1) for benign requests; an image adds (4, -1), and (6, -1) at layer 1.

    What an edit takes out of layer 0 comes to layer 1 as well.
    """

    turned: float = 1.0

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        added = {edit.site.layer: edit.vector for mend in self.mends for edit in mend.edits}  # type: ignore[union-attr]
        rows: dict[Site, list[Tensor]] = {site: [] for site in sites}
        for c in batch:
            harm = int(c.prompt[-1]) % 2 == 1
            for site in sites:
                state = torch.tensor([0.0, 3.0 if harm else 1.0])
                if c.has_image:
                    state = state * self.turned + torch.tensor([4.0 + 2.0 * site.layer, -1.0])
                    state = state + sum(vector for layer, vector in added.items() if layer <= site.layer)
                rows[site].append(state)
        return {site: torch.stack(found) for site, found in rows.items()}


class Turned(Drifting):
    """Beside an image harmful requests stand where benign ones are as text, and the other way round."""

    turned = -1.0


DRIFTING = Drifting(lambda c, mended: "", layers=2, width=2)


def parts(mend: Mend) -> tuple[list[AddVector], list[ModuleEdit]]:
    fixed = [edit for edit in mend.edits if isinstance(edit, AddVector)]
    adaptive = [edit for edit in mend.edits if isinstance(edit, ModuleEdit)]
    assert len(fixed) + len(adaptive) == len(mend.edits)
    return fixed, adaptive


def moved(edit: ModuleEdit, state: tuple[float, float]) -> list[float]:
    hidden = torch.relu(edit.read @ torch.tensor(state) + edit.read_bias)
    return (edit.strength * (edit.write @ hidden)).tolist()


def test_the_fixed_part_is_cmrm() -> None:
    fixed, _ = parts(ReGap(alpha=0.5).fit(DRIFTING, DATA, seed=0))
    plain = CMRM(alpha=0.5).fit(DRIFTING, DATA, seed=0).edits
    assert [edit.site for edit in fixed] == [edit.site for edit in plain]
    for ours, theirs in zip(fixed, plain, strict=True):
        assert isinstance(theirs, AddVector)
        assert torch.equal(ours.vector, theirs.vector)


@pytest.mark.parametrize(
    ("height", "share"), [(-2.0, 0.0), (0.5, 0.0), (1.0, 0.25), (1.5, 0.5), (2.5, 1.0), (9.0, 1.0)]
)
def test_the_adaptive_part_worked_out_by_hand(height: float, share: float) -> None:
    """v is (4, -1), then (6, -1); half of it out, benign states are at height 0.5 and harmful ones at 2.5.

    A state between is moved by beta = 2 times its share of the way, times v_0 at layer 0 and v_1 - v_0 at layer 1.
    """
    _, adaptive = parts(ReGap(alpha=0.5, beta=2.0).fit(DRIFTING, DATA, seed=0))
    assert [edit.site.layer for edit in adaptive] == [0, 1]
    assert moved(adaptive[0], (9.0, height)) == pytest.approx([-8.0 * share, 2.0 * share])
    assert moved(adaptive[1], (9.0, height)) == pytest.approx([-4.0 * share, 0.0])


def test_from_a_later_layer_on_the_whole_shift_goes_there() -> None:
    _, adaptive = parts(ReGap(alpha=0.5, beta=1.0, first=1).fit(DRIFTING, DATA, seed=0))
    assert [edit.site.layer for edit in adaptive] == [1]
    assert moved(adaptive[0], (0.0, 2.5)) == pytest.approx([-6.0, 1.0])


def test_doses_worked_out_by_hand() -> None:
    """Layer 1 of 2: alpha 1/2 takes out (1, 0), beta 1 takes (2, 0) more out of harmful anchors alone: 1 + 2 / 2.

    States beside the image are (6, 2) and (6, 0).
    """
    dose = ReGap(alpha=0.5, beta=1.0).fit(DRIFTING, DATA, seed=0).card.dose
    assert dose["language.1.resid_post"] == pytest.approx(2.0 / ((40**0.5 + 6) / 2))


def test_where_the_corrected_states_say_nothing_of_harm_there_is_no_mend() -> None:
    with pytest.raises(BadData, match="At no layer do harmful anchors stand further"):
        ReGap().fit(Turned(lambda c, mended: "", layers=2, width=2), DATA, seed=0)


def test_a_model_loses_what_both_parts_say_at_the_first_layer(tiny: VLM) -> None:
    mend = ReGap(first=0).fit(tiny, DATA, seed=0)
    site = Site("language", 0)
    (fixed,), found = ([edit for edit in part if edit.site == site] for part in parts(mend))
    assert isinstance(fixed, AddVector)
    asked = [Conversation.ask(row.prompt, noise_image(16, k)) for k, row in enumerate(DATA.examples)]
    plain, mended = (view.hidden(asked, [site])[site] for view in (tiny, tiny.with_mend(mend)))
    expected = plain + fixed.vector
    for edit in found:
        assert isinstance(edit, ModuleEdit)
        expected = expected + edit.strength * torch.relu(expected @ edit.read.T + edit.read_bias) @ edit.write.T
    torch.testing.assert_close(mended, expected, atol=1e-4, rtol=1e-4)
    assert (mended - plain).norm(dim=-1).max() > 1e-3


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadParameter, match="first=2 does not fit"):
        ReGap(first=2).fit(DRIFTING, DATA, seed=0)
