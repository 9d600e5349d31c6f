"""dp_clip: ordinary training without noise, a promise with it, and what planted pairs give away."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Generator
from torch.nn.functional import normalize

from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.methods.privacy.dp_clip import DpClip, Embedded, embedded
from vlmend.methods.promises import FOLLOWS
from vlmend.testing import tiny_clip
from vlmend.training.losses import contrastive_loss
from vlmend.training.private import ledger_for

pytest.importorskip("opacus")

WIDTH = 8


def pairs_of(count: int, seed: int = 0) -> Embedded:
    draws = Generator().manual_seed(seed)
    images, texts = (normalize(torch.randn(count, WIDTH, generator=draws), dim=1) for _ in range(2))
    return Embedded(images, texts, torch.arange(count), 10.0)


def rows(count: int) -> Dataset:
    each = (Example(str(k), image=noise_image(16, k), answers=(("cat", "dog")[k % 2],)) for k in range(count))
    return Dataset("rows", tuple(each))


def test_without_noise_it_is_ordinary_training_bit_for_bit() -> None:
    pairs, method = pairs_of(12), DpClip(steps=5, groups=1, rank=2, rate=0.1)
    found = method.trained(pairs, 0.0, math.inf, 1.0, 3, Generator().manual_seed(3))
    first = torch.randn(WIDTH, 2, generator=Generator().manual_seed(3)) / WIDTH**0.5
    both = torch.cat([first, torch.zeros(WIDTH, 2)]).requires_grad_()
    optimiser = torch.optim.Adam([both], lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        mapped = normalize(pairs.images + pairs.images @ both[WIDTH:] @ both[:WIDTH].T, dim=1)
        contrastive_loss(mapped, pairs.texts, 10.0, torch.eye(12, dtype=torch.bool)).backward()
        optimiser.step()
    assert torch.equal(found, torch.eye(WIDTH) + both.detach()[:WIDTH] @ both.detach()[WIDTH:].T)


def test_training_brings_planted_pairs_together_and_a_promise_does_not() -> None:
    pairs, method = pairs_of(24), DpClip(steps=150, groups=1, rank=4, rate=0.03, batch=24)

    def cosine(noise: float, clip: float) -> float:
        matrix = method.trained(pairs, noise, clip, 0.5, 0, Generator().manual_seed(0))
        return float((normalize(pairs.images @ matrix.T, dim=1) * pairs.texts).sum(1).mean())

    before = float((pairs.images * pairs.texts).sum(1).mean())
    noise = ledger_for(0.5, 1e-5, 0.5, method.steps).noise
    assert cosine(0.0, math.inf) > before + 0.3
    assert abs(cosine(noise, 1.0) - before) < 0.2


def test_the_card_holds_the_ledger_and_says_who_can_undo_the_noise(tmp_path: Path) -> None:
    base, told = tiny_clip(), {"steps": 3, "batch": 4, "groups": 2, "epsilon": 8.0, "delta": 0.2}
    mend = DpClip(**told).fit(base, rows(8), seed=0)
    assert mend.card.dose["sampling"] == 0.5
    assert mend.card.dose["sensitivity"] == 1.0
    assert 7 < mend.card.dose["epsilon"] <= 8
    assert FOLLOWS in mend.card.notes
    assert any("may give one away" in note for note in mend.card.notes)
    key = tmp_path / "noise.key"
    key.write_bytes(b"0123456789abcdef")
    key.chmod(0o600)
    first, again = (DpClip(**told, key=str(key)).fit(base, rows(8), seed=0) for _ in range(2))
    assert FOLLOWS not in first.card.notes
    assert first.digest == again.digest
    matrices = [one.edits[0].matrix for one in (mend, first) if isinstance(one.edits[0], MapImages)]
    assert not torch.equal(*matrices)
    key.write_bytes(b"0123")
    with pytest.raises(UsageError, match="could be guessed"):
        DpClip(**told, key=str(key)).fit(base, rows(8), seed=0)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="read by others"):
        DpClip(**told, key=str(key)).fit(base, rows(8), seed=0)
    with pytest.raises(UsageError, match="cannot be read"):
        DpClip(**told, key=str(tmp_path / "none")).fit(base, rows(8), seed=0)


def test_pairs_with_the_same_text_are_no_negatives_of_each_other() -> None:
    pairs = embedded(tiny_clip(), rows(4))
    assert pairs.alike.tolist() == [0, 1, 0, 1]
    base = tiny_clip()
    logits = base.scored(pairs.images, pairs.texts)
    assert torch.allclose(
        logits - base.scored(0 * pairs.images, pairs.texts), pairs.scale * pairs.images @ pairs.texts.T
    )


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(BadData, match="has 1 pictures with a text"):
        DpClip(steps=1).fit(tiny_clip(), rows(1), seed=0)
    for wrong in ({"epsilon": 0.0}, {"epsilon": math.inf}, {"delta": 1.0}):
        with pytest.raises(BadParameter, match="promise nothing"):
            DpClip(**wrong)
    for wrong in ({"groups": 0}, {"rate": 0.0}, {"clip": math.inf}):
        with pytest.raises(BadParameter, match="cannot be"):
            DpClip(**wrong)
