"""InferAligner: vectors and guards worked out by hand, and gates that open for the right requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData
from vlmend.methods.safety.infer_aligner import InferAligner
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))


class TwoBlocks(ScriptedTarget):
    """Odd requests are off by (1, 0) and (1, 6) as text, by (3, 4) in both blocks beside an image."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        def state(c: Conversation, layer: int) -> Tensor:
            off = (3.0, 4.0) if c.has_image else ((1.0, 0.0), (1.0, 6.0))[layer]
            return torch.tensor([2.0, 1.0]) + int(c.prompt[-1]) % 2 * torch.tensor(off)

        return {site: torch.stack([state(c, site.layer) for c in batch]) for site in sites}


TWO = TwoBlocks(lambda c, mended: "", layers=2, width=2)


def edits_of(mend: Mend) -> list[AddVector]:
    found = [edit for edit in mend.edits if isinstance(edit, AddVector)]
    assert len(found) == len(mend.edits)
    return found


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("full", {0: (0.5, 0.0), 1: (0.5, 3.0)}),
        ("increment", {0: (0.5, 0.0), 1: (0.0, 3.0)}),
        ("last_only", {1: (0.5, 3.0)}),
    ],
)
def test_vectors_worked_out_by_hand_at_alpha_one_half(mode: str, wanted: dict[int, tuple[float, float]]) -> None:
    mend = InferAligner(alpha=0.5, mode=mode).fit(TWO, DATA, seed=0)  # type: ignore[arg-type]
    assert {edit.site.layer: tuple(edit.vector.tolist()) for edit in edits_of(mend)} == wanted


def test_guards_worked_out_by_hand() -> None:
    """(3, 4) has length 5; half way between (2, 1) and (5, 5) is (3.5, 3), which projects to 2.1 + 2.4 = 4.5."""
    for edit in edits_of(InferAligner().fit(TWO, DATA, seed=0)):
        assert edit.gate is not None
        assert edit.gate.site == edit.site
        torch.testing.assert_close(edit.gate.weight, torch.tensor([0.6, 0.8]))
        assert edit.gate.bias == pytest.approx(-4.5)


def test_caution_one_puts_the_threshold_at_the_benign_mean() -> None:
    """The means are 5 apart: 2.5 more gives -2, and the benign mean (2, 1) projects to 1.2 + 0.8 = 2."""
    for edit in edits_of(InferAligner(caution=1.0).fit(TWO, DATA, seed=0)):
        assert edit.gate is not None
        assert edit.gate.bias == pytest.approx(-2.0)


def test_dose_worked_out_by_hand() -> None:
    """Full adds (1, 6) at block 1, beside states (2, 1) and (5, 5)."""
    dose = InferAligner(mode="full").fit(TWO, DATA, seed=0).card.dose
    assert dose["language.1.resid_post"] == pytest.approx(37**0.5 / ((5**0.5 + 50**0.5) / 2))


def test_the_vector_is_added_where_the_guard_is_positive_and_nowhere_else(tiny: VLM) -> None:
    mend = InferAligner(layers="1").fit(tiny, DATA, seed=0)
    (edit,) = edits_of(mend)
    assert edit.gate is not None
    asked = [Conversation.ask(example.prompt, blank_image(16)) for example in DATA.examples]
    plain = tiny.hidden(asked, [edit.site])[edit.site]
    moved = tiny.with_mend(mend).hidden(asked, [edit.site])[edit.site] - plain
    open_rows = plain @ edit.gate.weight + edit.gate.bias > 0
    assert open_rows.any()
    assert not open_rows.all()
    torch.testing.assert_close(moved, open_rows[:, None] * edit.vector, atol=1e-5, rtol=1e-5)


def test_the_class_means_lie_on_their_own_sides_of_every_guard(tiny: VLM) -> None:
    for edit in edits_of(InferAligner().fit(tiny, DATA, seed=0)):
        assert edit.gate is not None
        sides: dict[str, float] = {}
        for label in ("harmful", "benign"):
            asked = [Conversation.ask(e.prompt, blank_image(16)) for e in DATA.examples if e.label == label]
            mean = tiny.hidden(asked, [edit.site])[edit.site].mean(0)
            sides[label] = float(mean @ edit.gate.weight) + edit.gate.bias
        assert sides["harmful"] > 0 > sides["benign"]
        assert sides["harmful"] == pytest.approx(-sides["benign"], abs=1e-4)


def test_no_benign_request_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadData, match="no benign request"):
        InferAligner().fit(tiny, Dataset("h", DATA.labelled("harmful")), seed=0)
