"""The contrastive gates: their scores by hand, new kinds of benign requests, mends behind them, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, AffineMap, MahalanobisGate, ModuleEdit, NeighbourGate, ProjectOut
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import BadData, BadParameter
from vlmend.methods.safety.cmrm_gated import CMRMGated
from vlmend.methods.safety.rcs import RCS, contrastive_gate
from vlmend.models.editing.states import score
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset(
    "d",
    tuple(
        Example(f"{word}-{k}", f"{word} request {k}", "harmful" if word == "bad" else "benign")
        for word in ("bad", "fine")
        for k in range(8)
    ),
)
SITE = Site("language", 0)
ROUND = torch.eye(2)


def drawn(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_mahalanobis_scores_worked_out_by_hand() -> None:
    """Benign around (0, 0) with spread 1, harmful around (4, 0) half as wide in the first direction, so twice as far.

    (1, 0): 1 - 2 * 3; (4, 3): 5 - 3; the projection turns (h1, h2, h3) into (h2, h1).
    """
    turn = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    gate = MahalanobisGate(
        SITE, turn, torch.zeros(2), ROUND, torch.tensor([4.0, 0.0]), torch.diag(torch.tensor([2.0, 1.0])), 0.5
    )
    scores = score(gate, torch.tensor([[0.0, 1.0, 7.0], [3.0, 4.0, 7.0]]))
    assert scores.tolist() == pytest.approx([-5.0 + 0.5, 2.0 + 0.5])


def test_neighbour_scores_worked_out_by_hand() -> None:
    """On the circle: (3, 4) becomes (0.6, 0.8). The second nearest of each kind counts."""
    benign = torch.tensor([[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]])
    harmful = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    gate = NeighbourGate(SITE, ROUND, benign, harmful, 2, 0.25)
    wanted = 0.8**0.5 - (0.36 + 1.8**2) ** 0.5 + 0.25
    assert score(gate, torch.tensor([[3.0, 4.0]])).tolist() == pytest.approx([wanted])


def test_equal_covariances_are_the_linear_rule() -> None:
    """Where both spread alike, the gate is open where S^-1 (m - b) . (z - (m + b) / 2) > 0."""
    mix = drawn(3, 3, 0)
    covariance = mix @ mix.T + torch.eye(3)
    values, vectors = torch.linalg.eigh(covariance)
    spread = vectors @ torch.diag(values**-0.5) @ vectors.T
    benign, harmful = drawn(2, 3, 1)
    states = 3 * drawn(500, 3, 2)
    opened = score(MahalanobisGate(SITE, torch.eye(3), benign, spread, harmful, spread), states) > 0
    linear = (states - (benign + harmful) / 2) @ torch.linalg.solve(covariance, harmful - benign) > 0
    assert torch.equal(opened, linear)
    assert 0.2 < opened.float().mean() < 0.8


@pytest.mark.parametrize("distance", ["mahalanobis", "knn"])
def test_a_new_kind_of_benign_request_is_not_called_harmful(distance: str) -> None:
    """Width 40, harm in the first direction, three benign kinds in three others; a fourth one is in none of the fits.

    A one-class rule, the distance from benign states alone with 5 % of them outside, calls nearly all of it harmful.
    """

    def cloud(count: int, seed: int, place: dict[int, float]) -> Tensor:
        states = drawn(count, 40, seed)
        for k, value in place.items():
            states[:, k] += value
        return states

    benign = torch.cat([cloud(60, k, {0: -2.5, k: 6.0}) for k in (1, 2, 3)])
    harmful = torch.cat([cloud(60, 10 + k, {0: 2.5, k: 6.0}) for k in (1, 2, 3)])
    seen = torch.cat([cloud(200, 20 + k, {0: -2.5, k: 6.0}) for k in (1, 2, 3)])
    new = cloud(600, 30, {0: -2.5, 4: 6.0})
    labels = torch.tensor([True] * len(harmful) + [False] * len(benign))
    gate = contrastive_gate(
        SITE, torch.cat([harmful, benign])[None], labels, distance=distance, rank=16, neighbours=5, caution=0.0, seed=0
    )  # type: ignore[arg-type]
    held_out = torch.cat([cloud(200, 40 + k, {0: 2.5, k: 6.0}) for k in (1, 2, 3)])
    opened = {name: float((score(gate, part) > 0).float().mean()) for name, part in
              (("seen", seen), ("new", new), ("harmful", held_out))}  # fmt: skip
    assert opened["harmful"] > 0.9
    assert opened["seen"] < 0.1
    assert opened["new"] <= opened["seen"] + 0.05
    away = (benign - benign.mean(0)) @ torch.linalg.inv(torch.cov(benign.T)) * (benign - benign.mean(0))
    bound = away.sum(1).quantile(0.95)
    off = (new - benign.mean(0)) @ torch.linalg.inv(torch.cov(benign.T)) * (new - benign.mean(0))
    assert (off.sum(1) > bound).float().mean() > 0.5


class HarmAtLayerOne(ScriptedTarget):
    """Width 6: layer 0 knows nothing of harm, layers 1 and 2 hold it in the first direction; images add to the last."""

    def hidden(self, batch: Sequence[Conversation], sites: Sequence[Site]) -> Mapping[Site, Tensor]:
        rows = {}
        for site in sites:
            states = []
            for c in batch:
                state = 0.1 * drawn(6, 1, int(c.digest[:8], 16) + site.layer)[:, 0]
                state[0] += (2.0 if c.prompt.startswith("bad") else -2.0) * (site.layer > 0)
                state[5] += 4.0 * c.has_image
                states.append(state)
            rows[site] = torch.stack(states)
        return rows


TARGET = HarmAtLayerOne(lambda c, mended: "", layers=3, width=6)


def test_the_linear_gate_is_the_probe_of_gated_cmrm() -> None:
    ours, theirs = (
        method.fit(TARGET, DATA, seed=0).edits[0].gate  # type: ignore[union-attr]
        for method in (RCS(distance="linear", caution=1.5), CMRMGated(caution=1.5))
    )
    assert (ours.site, ours.bias) == (theirs.site, theirs.bias)
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("distance", ["mahalanobis", "knn"])
def test_a_mend_stands_behind_the_gate_from_the_layer_that_knows_harm(distance: str) -> None:
    mend = RCS(distance=distance).fit(TARGET, DATA, seed=0)  # type: ignore[arg-type]
    edits = [edit for edit in mend.edits if isinstance(edit, AddVector)]
    assert [edit.site.layer for edit in edits] == [1, 2]
    gate = edits[0].gate
    assert gate is not None
    assert all(edit.gate is gate for edit in edits)
    assert gate.site.layer == 1
    harm, fine = (torch.tensor([[sign * 2.0, 0, 0, 0, 0, 4.0]]) for sign in (1, -1))
    assert score(gate, harm) > 0 > score(gate, fine)


@pytest.mark.parametrize(
    ("mend", "kind"),
    [
        ("cmrm alpha=0.5", AddVector), ("tbop", ProjectOut), ("alphasteer ridge=0.01", AffineMap),
        ("mars layer=2", ModuleEdit),
    ],
)  # fmt: skip
def test_a_closed_gate_leaves_a_row_bit_for_bit_and_an_open_one_does_not(tiny: VLM, mend: str, kind: type) -> None:
    """Two rows with images in one batch; every kind of edit of states can wait for a gate."""
    batch = [Conversation.ask(text, noise_image(16, k)) for k, text in enumerate(("one thing", "another, longer"))]
    fitted = RCS(mend, gate_layer=1).fit(tiny, DATA, seed=0)
    assert all(isinstance(edit, kind) for edit in fitted.edits)
    gate = fitted.edits[0].gate  # type: ignore[union-attr]
    scores = score(gate, tiny.hidden(batch, [gate.site])[gate.site])
    caution = -float(scores.mean())
    between = RCS(mend, gate_layer=1, caution=caution).fit(tiny, DATA, seed=0).scaled(50.0)
    moved = (tiny.with_mend(between).logits(batch) != tiny.logits(batch)).any(1)
    if mend.startswith("mars"):  # its own gate may be shut for the one that is let through
        assert not bool((moved & (scores < scores.mean())).any())
    else:
        assert moved.tolist() == (scores > scores.mean()).tolist()


@pytest.mark.parametrize("distance", ["mahalanobis", "knn"])
def test_a_gate_is_loaded_as_it_was_saved(tmp_path: Path, distance: str) -> None:
    mend = RCS(distance=distance).fit(TARGET, DATA, seed=0)  # type: ignore[arg-type]
    mend.save(tmp_path / "mend")
    loaded = Mend.load(tmp_path / "mend")
    assert loaded.digest == mend.digest
    states = drawn(20, 6, 0)
    gates = [one.edits[0].gate for one in (mend, loaded)]  # type: ignore[union-attr]
    assert torch.equal(score(gates[0], states), score(gates[1], states))


@pytest.mark.parametrize("mend", ["", "cmrm 0.5", "rcs"])
def test_a_mend_that_cannot_be_read_is_refused(mend: str) -> None:
    with pytest.raises(BadParameter, match="cannot be read"):
        RCS(mend)


def test_a_mend_that_cannot_wait_and_too_few_anchors_are_refused() -> None:
    with pytest.raises(BadParameter, match="makes a ContrastShift, which cannot wait"):
        RCS("cmrm_sample").fit(TARGET, DATA, seed=0)
    with pytest.raises(BadParameter, match="makes a AddVector, which cannot wait"):
        RCS("cmrm_gated").fit(TARGET, DATA, seed=0)
    with pytest.raises(BadData, match="3 harmful and 8 harmless anchors are too few"):
        RCS(gate_layer=0).fit(TARGET, Dataset("few", DATA.examples[5:]), seed=0)
    with pytest.raises(BadParameter, match="no neighbour number 3"):
        NeighbourGate(SITE, ROUND, torch.ones(2, 2), torch.ones(5, 2), 3)
