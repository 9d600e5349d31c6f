"""MidSteer: erasure and switch on drawn states, against other affine maps, by hand, and on a model that really runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AffineMap
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.errors import BadData
from vlmend.methods.safety.midsteer import MidSteer, oblique_weight
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful" if k % 2 else "benign") for k in range(6)))
COUNT, WIDTH = 2000, 6


def clouds() -> tuple[Tensor, Tensor]:
    """Text and image states of one covariance that is far from round, the means 2 apart, in float64."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    text, seen = torch.randn(2, COUNT, WIDTH, generator=generator, dtype=torch.float64) @ mix
    return text, seen + torch.tensor([2.0, 0, 0, 0, 0, 0], dtype=torch.float64)


def erased(states: Tensor, weight: Tensor, shift: Tensor, centre: Tensor) -> Tensor:
    """h - (w . (h - t)) d, a row each."""
    return states - ((states - centre) @ weight)[:, None] * shift


def accuracy(text: Tensor, seen: Tensor) -> float:
    rows = torch.cat([text, seen]).numpy()
    labels = np.repeat([0, 1], len(text))
    order = np.random.default_rng(0).permutation(len(labels))
    return float(cross_val_score(LogisticRegression(max_iter=2000), rows[order], labels[order], cv=5).mean())


def test_after_erasure_a_linear_probe_is_at_chance() -> None:
    text, seen = clouds()
    shift, both = seen.mean(0) - text.mean(0), torch.cat([text, seen])
    weight = oblique_weight(both.float(), shift.float()).double()
    after = [erased(part, weight, shift, both.mean(0)) for part in (text, seen)]
    assert accuracy(text, seen) > 0.7
    assert accuracy(*after) <= 0.53  # 4,000 rows: three standard errors above one half
    torch.testing.assert_close(after[0].mean(0), after[1].mean(0), atol=1e-4, rtol=0)


def test_no_affine_map_that_erases_moves_states_less() -> None:
    """Any h - (w' . (h - t)) d with w' . d = 1 brings the means together; the orthogonal projection is one of them."""
    text, seen = clouds()
    shift, both = seen.mean(0) - text.mean(0), torch.cat([text, seen])

    def movement(weight: Tensor) -> float:
        return float((erased(both, weight, shift, both.mean(0)) - both).square().sum(1).mean())

    ours = movement(oblique_weight(both.float(), shift.float()).double())
    orthogonal = movement(shift / shift.square().sum())
    assert ours < 0.8 * orthogonal
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
        assert ours <= movement(other / (other @ shift)) * 1.001


def test_the_weight_is_that_of_leace_worked_out_by_whitening() -> None:
    """I - d w^T against I - S^1/2 U U^+ S^-1/2 with U = S^-1/2 Cov(X, Z), computed the long way."""
    text, seen = clouds()
    both = torch.cat([text, seen])
    labels = torch.cat([torch.zeros(COUNT), torch.ones(COUNT)]).double()
    covariance = torch.cov(both.T)
    values, vectors = torch.linalg.eigh(covariance)
    half, back = (vectors @ torch.diag(values**power) @ vectors.T for power in (0.5, -0.5))
    u = back @ ((both - both.mean(0)).T @ (labels - labels.mean()) / len(labels))
    projection = half @ torch.outer(u, u) / u.square().sum() @ back
    shift = seen.mean(0) - text.mean(0)
    ours, orthogonal = (
        torch.outer(shift, weight)
        for weight in (oblique_weight(both.float(), shift.float()).double(), shift / shift.square().sum())
    )
    assert (ours - projection).norm() <= 0.02 * projection.norm()  # what Ledoit and Wolf shrink 4,000 rows by
    assert (orthogonal - projection).norm() > 0.3 * projection.norm()


@pytest.mark.parametrize(("count", "width"), [(2000, 6), (233, 576)])
def test_the_weight_is_that_of_the_authors_library(count: int, width: int) -> None:
    """With its shrinkage on; an orthogonal map is far off, with more dimensions than states of a kind too."""
    library = pytest.importorskip("concept_erasure", reason="the library of LEACE's authors, not a dependency")
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    text, seen = torch.randn(2, count, width, generator=generator, dtype=torch.float64) @ mix
    seen[:, 0] += 2.0
    both, labels = torch.cat([text, seen]), torch.cat([torch.zeros(count), torch.ones(count)]).double()[:, None]
    eraser = library.LeaceFitter(width, 1, dtype=torch.float64).update(both, labels).eraser
    theirs = eraser.proj_left @ eraser.proj_right
    shift = seen.mean(0) - text.mean(0)
    ours = torch.outer(shift, oblique_weight(both.float(), shift.float()).double())
    assert (ours - theirs).norm() <= 0.01 * theirs.norm()
    assert (torch.outer(shift, shift) / shift.square().sum() - theirs).norm() > 0.3 * theirs.norm()


class Shifted(ScriptedTarget):
    """Text states are (k, k % 3) for request k; an image adds (0, 2)."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = [
            torch.tensor([float(c.prompt[-1]), float(int(c.prompt[-1]) % 3)]) + c.has_image * torch.tensor([0.0, 2.0])
            for c in batch
        ]
        return {site: torch.stack(rows) for site in sites}


SHIFTED = Shifted(lambda c, mended: "", layers=1, width=2)


def after(method: MidSteer, states: Tensor) -> Tensor:
    (edit,) = method.fit(SHIFTED, DATA, seed=0).edits
    assert isinstance(edit, AffineMap)
    return states + edit.strength * (states @ edit.read.T @ edit.write.T + edit.bias)


@pytest.mark.parametrize(("to", "height"), [("text", 1.0), ("middle", 2.0)])
def test_states_beside_an_image_are_brought_to_the_target_along_the_shift_alone(to: str, height: float) -> None:
    """Their mean is (2.5, 3); text's is (2.5, 1). The first number stays as it is, since d is (0, 2)."""
    states = torch.tensor([[float(k), k % 3 + 2.0] for k in range(6)])
    moved = after(MidSteer(to=to), states)  # type: ignore[arg-type]
    torch.testing.assert_close(moved.mean(0), torch.tensor([2.5, height]))
    assert torch.equal(moved[:, 0], states[:, 0])


def test_twice_the_strength_goes_as_far_past_the_target() -> None:
    states = torch.tensor([[float(k), k % 3 + 2.0] for k in range(6)])
    torch.testing.assert_close(after(MidSteer(beta=2.0), states).mean(0), torch.tensor([2.5, -1.0]))


def test_what_was_taken_out_is_not_taken_out_again() -> None:
    """A map is its own square at beta 1, which is why layers that carry a correction on are not corrected twice."""
    states = torch.tensor([[float(k), k % 3 + 2.0] for k in range(6)])
    once = after(MidSteer(), states)
    torch.testing.assert_close(after(MidSteer(), once), once, atol=1e-5, rtol=0)


def test_at_strength_zero_it_is_the_base(tiny: VLM) -> None:
    mend = MidSteer(beta=0.0).fit(tiny, DATA, seed=0)
    asked = [Conversation.ask("what is it", noise_image(16, 1))]
    assert torch.equal(tiny.with_mend(mend).logits(asked), tiny.logits(asked))
    moving = MidSteer(beta=1.0).fit(tiny, DATA, seed=0)
    assert not torch.equal(tiny.with_mend(moving).logits(asked), tiny.logits(asked))


def test_one_anchor_and_an_image_that_moves_nothing_are_refused(tiny: VLM) -> None:
    with pytest.raises(BadData, match="One anchor has no covariance"):
        MidSteer().fit(tiny, Dataset("one", DATA.examples[:1]), seed=0)

    class Blind(Shifted):
        def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
            return super().hidden([one.without_images() for one in batch], sites)

    with pytest.raises(BadData, match="The mean shift of an image is zero"):
        MidSteer().fit(Blind(lambda c, mended: "", layers=1, width=2), DATA, seed=0)
