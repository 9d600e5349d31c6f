"""The contract that every registered method of dual encoders keeps, on tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlmend import registry
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.errors import MendMismatch
from vlmend.models.dual.encoder import BATCH, DualEncoder
from vlmend.testing import full_digest, hook_count, tiny_clip

PROMPTS = (("a man", "spurious"), ("a woman", "spurious"), ("a man cook", "cook"), ("a woman cook", "cook"))
DATA = Dataset(
    "tiny",
    (
        *(Example(text, text, "benign", group) for text, group in PROMPTS),
        *(Example(str(k), "", "benign", "", noise_image(16, k), answers=(f"thing {k % 4}",)) for k in range(12)),
    ),
)
IMAGES = [noise_image(20, 100 + k) for k in range(BATCH + 3)]
TEXTS = ["a cat", "a photo of a man in the rain", "x"]

dual_method = pytest.mark.parametrize(
    "name", [name for name in registry.method_names() if registry.make_method(name, {}).works_on == "dual"]
)


def fit(name: str, target: DualEncoder, seed: int = 0) -> Mend:
    return registry.make_method(name, {}).fit(target, DATA, seed=seed)


def all_of(target: DualEncoder) -> list[torch.Tensor]:
    """Everything that a mend may change."""
    return [
        target.embed_images(IMAGES), target.embed_texts(TEXTS), target.logits(IMAGES, TEXTS), target.accepts(IMAGES)
    ]  # fmt: skip


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@dual_method
def test_same_seed_same_mend(name: str) -> None:
    assert fit(name, tiny_clip()).digest == fit(name, tiny_clip()).digest


@dual_method
def test_saved_and_loaded_mend_gives_the_same_results(name: str, tmp_path: Path) -> None:
    target = tiny_clip()
    mend = fit(name, target)
    mend.save(tmp_path / "mend")
    loaded = Mend.load(tmp_path / "mend")
    assert (loaded.digest, loaded.card) == (mend.digest, mend.card)
    assert same(all_of(target.with_mend(loaded)), all_of(target.with_mend(mend)))


@dual_method
def test_scale_zero_is_the_base_bit_for_bit(name: str) -> None:
    target = tiny_clip()
    assert same(all_of(target.with_mend(fit(name, target).scaled(0.0))), all_of(target))


@dual_method
def test_the_mend_does_something_to_logits(name: str) -> None:
    target = tiny_clip()
    moved = target.with_mend(fit(name, target)).logits(IMAGES, TEXTS) - target.logits(IMAGES, TEXTS)
    assert moved.abs().max() > 1e-3


@dual_method
def test_batched_is_one_at_a_time(name: str) -> None:
    target = tiny_clip()
    view = target.with_mend(fit(name, target))
    alone = torch.cat([view.logits([image], TEXTS) for image in IMAGES])
    torch.testing.assert_close(view.logits(IMAGES, TEXTS), alone, atol=1e-5, rtol=1e-5)


@dual_method
def test_the_base_is_unchanged(name: str) -> None:
    target = tiny_clip()
    before, digest, hooks = all_of(target), full_digest(target.towers.model), hook_count(target.towers.model)
    all_of(target.with_mend(fit(name, target)))
    assert (full_digest(target.towers.model), hook_count(target.towers.model)) == (digest, hooks)
    assert same(all_of(target), before)


@dual_method
def test_refused_on_another_base_with_the_reason(name: str) -> None:
    mend = fit(name, tiny_clip())
    with pytest.raises(MendMismatch, match="was fitted on tiny-clip-0") as refusal:
        tiny_clip(seed=1).with_mend(mend)
    assert "vlmend mend" in refusal.value.hint


@dual_method
def test_the_card_says_everything(name: str) -> None:
    target = tiny_clip()
    card = fit(name, target, seed=5).card
    assert (card.method, card.model, card.model_digest, card.seed) == (name, target.name, target.model_digest, 5)
    assert card.data_digest == DATA.digest
    assert registry.make_method(name, {}).passes
    assert registry.make_method(name, {}).data


@dual_method
def test_the_mend_changes_the_id_and_touches_texts_alone_too(name: str) -> None:
    target = tiny_clip()
    mend = fit(name, target)
    assert target.with_mend(mend).id == f"{target.name}+{name}@{mend.digest[:8]}"
    assert mend.touches(with_image=False)
