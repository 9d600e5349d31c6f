"""MARS and the ramps that it is made of: numbers worked out by hand, the gate, the trust region, and a real model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import ModuleEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.ramps import ramp
from vlmend.methods.safety.mars import MARS, neutral
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))


class Told(ScriptedTarget):
    """Text states: layer 0 says nothing of harm, layers 1 and 2 hold (6, 2) for harmful and (2, 2) for benign requests.
    An image adds (10, 5), and at layer 0 the class says (1, 0) as text alone."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows: dict[Site, Tensor] = {}
        for site in sites:
            states = []
            for c in batch:
                harm = int(c.prompt[-1]) % 2 == 1
                if site.layer:
                    state = torch.tensor([6.0 if harm else 2.0, 2.0])
                else:
                    state = torch.tensor([float(harm and not c.has_image), 0.0])
                states.append(state + c.has_image * torch.tensor([10.0, 5.0]))
            rows[site] = torch.stack(states)
        return rows


TOLD = Told(lambda c, mended: "", layers=3, width=2)


def moved(edit: ModuleEdit, state: tuple[float, float]) -> list[float]:
    """What the edit adds to a state, by its own formula."""
    h = torch.tensor(state)
    hidden = torch.relu(edit.read @ h + edit.read_bias)
    return (edit.strength * (edit.write @ hidden + edit.write_bias)).tolist()


def only_edit(mend: Mend) -> ModuleEdit:
    (edit,) = mend.edits
    assert isinstance(edit, ModuleEdit)
    return edit


@pytest.mark.parametrize(("z", "wanted"), [(-1.0, 0.0), (0.0, 0.0), (0.5, 0.5), (2.0, 2.0), (9.0, 2.0)])
def test_a_ramp_is_clamped_on_both_sides(z: float, wanted: float) -> None:
    """read . h - start with read (1, 0) and start 3, at most 2, along (0, 4) at strength one half."""
    edit = ramp(Site("language", 0), torch.tensor([1.0, 0.0]), 3.0, 2.0, torch.tensor([0.0, 4.0]), 0.5)
    assert moved(edit, (3.0 + z, 7.0)) == pytest.approx([0.0, 2.0 * wanted])


@pytest.mark.parametrize(
    ("along", "push"), [(11.0, 0.0), (14.0, 0.0), (15.0, 1.0), (16.0, 2.0), (17.0, 2.0), (30.0, 2.0)]
)
def test_a_push_worked_out_by_hand(along: float, push: float) -> None:
    """r is (1, 0), the centroids are 4 apart and their middle is 4; a picture shifts it to 14. At most half of 4."""
    edit = only_edit(MARS().fit(TOLD, DATA, seed=0))
    assert edit.site.layer == 1
    assert (edit.tokens, edit.when) == ("last_prompt", "with_image")
    assert moved(edit, (along, -3.0)) == pytest.approx([push, 0.0])


def test_radius_and_strength_are_told_apart() -> None:
    """radius 0.25 lets a state go one; strength 3 makes that three."""
    edit = only_edit(MARS(radius=0.25, strength=3.0).fit(TOLD, DATA, seed=0))
    assert moved(edit, (14.5, 0.0)) == pytest.approx([1.5, 0.0])
    assert moved(edit, (20.0, 0.0)) == pytest.approx([3.0, 0.0])


def test_caution_opens_the_gate_earlier() -> None:
    """By a quarter of the 4 between the centroids: it opens at 13, and is full at 15."""
    edit = only_edit(MARS(caution=0.25).fit(TOLD, DATA, seed=0))
    assert [moved(edit, (along, 0.0))[0] for along in (13.0, 14.0, 15.0, 16.0)] == pytest.approx([0, 1, 2, 2])


def test_dose_worked_out_by_hand() -> None:
    """Beside a picture harmful anchors are at (16, 7), benign ones at (12, 7): half of them are pushed by 2."""
    dose = MARS().fit(TOLD, DATA, seed=0).card.dose
    assert dose == {"language.1.resid_post": pytest.approx(1.0 / (((305**0.5) + (193**0.5)) / 2))}


def test_neutral_pictures_are_of_one_colour_each_and_of_many_colours() -> None:
    asking = neutral(DATA.examples, 16, 0)
    images = [asking(anchor).images[0].decode() for anchor in DATA.examples]
    colours = [image.getcolors() for image in images]
    assert all(len(found or []) == 1 for found in colours)
    assert len({str(found) for found in colours}) == len(colours)
    again = neutral(DATA.examples, 16, 0)(DATA.examples[3]).images[0]
    assert again.digest == asking(DATA.examples[3]).images[0].digest


def test_a_model_is_pushed_by_what_the_module_says(tiny: VLM) -> None:
    mend = MARS(strength=5.0).fit(tiny, DATA, seed=0)
    edit = only_edit(mend)
    asked = [Conversation.ask(row.prompt, noise_image(16, k)) for k, row in enumerate(DATA.examples)]
    plain, mended = (view.hidden(asked, [edit.site])[edit.site] for view in (tiny, tiny.with_mend(mend)))
    hidden = torch.relu(plain @ edit.read.T + edit.read_bias)
    torch.testing.assert_close(mended, plain + 5.0 * hidden @ edit.write.T, atol=1e-4, rtol=1e-4)
    assert (mended - plain).norm(dim=-1).max() > 1e-3
    text = [Conversation.ask("what is it")]
    assert torch.equal(tiny.with_mend(mend).logits(text), tiny.logits(text))


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(BadParameter, match="radius=0 lets nothing move"):
        MARS(radius=0.0)
    with pytest.raises(BadParameter, match="layer=3 does not fit"):
        MARS(layer=3).fit(TOLD, DATA, seed=0)
    with pytest.raises(BadData, match="no benign request"):
        MARS().fit(TOLD, Dataset("h", DATA.labelled("harmful")), seed=0)
