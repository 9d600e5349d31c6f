"""CMRM behind a harm probe: gates worked out by hand, planted harm directions, rows that stay closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, Gate
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety.cmrm_gated import CMRMGated, best_layer, fit_gate
from vlmend.models.editing.states import score
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset(
    "d",
    tuple(
        Example(f"{word}-{k}", f"{word} request {k}", "harmful" if word == "bad" else "benign")
        for word in ("bad", "fine")
        for k in range(20)
    ),
)


class HarmAtLayerOne(ScriptedTarget):
    """Width 2: layer 0 knows nothing of harm, layers 1 and 2 hold it in the first direction; images add (0, 4)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = {}
        for site in sites:
            states = []
            for c in batch:
                noise = 0.1 * torch.randn(
                    2, generator=torch.Generator().manual_seed(int(c.digest[:8], 16) + site.layer)
                )
                harm = (
                    torch.tensor([2.0 if c.prompt.startswith("bad") else -2.0, 0.0]) if site.layer else torch.zeros(2)
                )
                states.append(noise + harm + c.has_image * torch.tensor([0.0, 4.0]))
            rows[site] = torch.stack(states)
        return rows


TARGET = HarmAtLayerOne(lambda c, mended: "", layers=3, width=2)


def test_the_gate_stands_at_the_earliest_layer_that_knows_harm() -> None:
    mend = CMRMGated().fit(TARGET, DATA, seed=0)
    edits = [edit for edit in mend.edits if isinstance(edit, AddVector)]
    assert [edit.site.layer for edit in edits] == [1, 2]
    assert all(edit.gate is not None and edit.gate.site.layer == 1 for edit in edits)


def test_the_first_edited_layer_takes_out_the_whole_shift_and_the_next_its_gain() -> None:
    """Images add (0, 4) at every layer: -(0, 4) at the gate's layer, nothing more after it.

    A mean of 20 states of noise 0.1 is 0.022 off, the shift 0.032 and its gain 0.045; 0.2 is more than four times that.
    """
    first, second = CMRMGated().fit(TARGET, DATA, seed=0).edits
    assert isinstance(first, AddVector)
    assert isinstance(second, AddVector)
    torch.testing.assert_close(first.vector, torch.tensor([0.0, -4.0]), atol=0.2, rtol=0)
    torch.testing.assert_close(second.vector, torch.zeros(2), atol=0.2, rtol=0)


def test_the_gate_is_open_for_harm_alone_and_caution_moves_it() -> None:
    gates = [CMRMGated(caution=c).fit(TARGET, DATA, seed=0).edits[0].gate for c in (0.0, 3.0)]  # type: ignore[union-attr]
    assert gates[1].bias - gates[0].bias == pytest.approx(3.0)
    harm, fine = torch.tensor([[2.0, 4.0]]), torch.tensor([[-2.0, 4.0]])
    assert score(gates[0], harm) > 0 > score(gates[0], fine)


def test_log_odds_of_the_gate_are_those_of_the_probe() -> None:
    """Two classes at -1 and +1 on a line: by symmetry the log-odds are 0 in the middle and odd around it."""
    states = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    gate = fit_gate(0, states, torch.tensor([False, False, True, True]))
    values = score(gate, torch.tensor([[-1.0], [0.0], [1.0]]))
    assert values[1].abs() < 1e-6
    torch.testing.assert_close(values[0], -values[2])
    assert values[2] > 0


def test_a_closed_gate_leaves_the_row_bit_for_bit_and_an_open_one_does_not(tiny: VLM) -> None:
    """Two rows with images in one batch; the gate's threshold lies between their scores."""
    batch = [Conversation.ask("one thing", noise_image(16, 1)), Conversation.ask("another, longer", noise_image(16, 2))]
    site = Site("language", 1)
    weight = torch.randn(tiny.anatomy.width, generator=torch.Generator().manual_seed(0))
    scores = tiny.hidden(batch, [site])[site] @ weight
    gate = Gate(site, weight, -float(scores.mean()))
    edit = AddVector(Site("language", 2), torch.ones(tiny.anatomy.width), "last_prompt", "with_image", gate)
    card = CMRMGated(caution=1000.0).fit(tiny, DATA, seed=0).card
    moved = (tiny.with_mend(Mend((edit,), card)).logits(batch) != tiny.logits(batch)).any(1)
    assert moved.tolist() == (scores > scores.mean()).tolist()
    assert sorted(moved.tolist()) == [False, True]


def test_an_edit_before_its_gate_is_refused() -> None:
    gate = Gate(Site("language", 2), torch.ones(2), 0.0)
    with pytest.raises(BadParameter, match="cannot wait for a gate"):
        AddVector(Site("language", 1), torch.ones(2), gate=gate)


def test_one_kind_of_anchor_alone_is_refused_with_the_way_out() -> None:
    with pytest.raises(BadData, match="benign"):
        CMRMGated().fit(TARGET, Dataset("d", DATA.labelled("harmful")), seed=0)
    with pytest.raises(BadData, match="two harmless"):
        best_layer(torch.randn(3, 2, 2), torch.tensor([True, True, False]))
