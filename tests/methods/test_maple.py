"""MaPLe: what it reduces to, where gradients go, and that the tokens learn names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models import duals
from torch import Tensor, nn

from vlmend.core.dual_edits import InsertTokens
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.errors import BadData, BadParameter, ModelProblem
from vlmend.methods.prompting import Prompt, every_second_thing
from vlmend.methods.robustness.maple import Maple
from vlmend.models.dual.encoder import DualEncoder, dual_of
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
TEXTS = [f"a photo of a {name}" for name in NAMES]
RIGHT = torch.arange(6) % 3
QUICK = Maple(steps=30, batch=6, rate=0.05)


def loss_of(view: DualEncoder) -> float:
    return float(-view.logits(IMAGES, TEXTS).log_softmax(1)[range(6), RIGHT].mean())


def edits_of(mend: Mend) -> dict[str, Tensor]:
    return {edit.tower: edit.tokens for edit in mend.edits if isinstance(edit, InsertTokens)}


@pytest.mark.parametrize("method", [QUICK, replace(QUICK, depth=1, visual=False)], ids=["maple", "coop"])
def test_the_right_names_get_likelier_and_what_has_no_tokens_stays_bit_for_bit(method: Maple) -> None:
    target = tiny_clip()
    mend = method.fit(target, DATA, seed=0)
    view = target.with_mend(mend)
    assert loss_of(view) < loss_of(target) - 0.02
    assert set(edits_of(mend)) == ({"text", "vision"} if method.visual else {"text"})
    assert torch.equal(view.embed_images(IMAGES), target.embed_images(IMAGES)) != method.visual


def test_with_one_block_and_a_zero_map_it_is_coop_and_visual_tokens_of_zero() -> None:
    """A zero map gets no gradient from the words' side; its bias is what the visual tokens are."""
    target = tiny_clip()
    coupled = Maple(depth=1).prompt(target, 0, visual=True)
    with torch.no_grad():
        coupled.maps.zero_()
    alone = Maple(depth=1).prompt(target, 0)
    assert torch.equal(coupled.words, alone.words)
    assert torch.equal(coupled.visual, torch.zeros(1, 9, 32))
    assert [edit.tower for edit in alone.edits] == ["text"]


def test_visual_tokens_are_the_map_of_the_words_block_by_block() -> None:
    """Words (1, 2) and (3, 4); W = [[1, 0], [1, 1], [0, 2]], b = (0, 0, 1)."""
    words, maps = torch.tensor([[[1.0, 2], [3, 4]]]), torch.tensor([[[1.0, 0], [1, 1], [0, 2]]])
    prompt = Prompt(nn.Parameter(words), nn.Parameter(maps), nn.Parameter(torch.tensor([[0.0, 0, 1]])))
    assert prompt.visual.tolist() == [[[1, 3, 5], [3, 7, 9]]]


def test_a_loss_of_pictures_alone_reaches_the_words() -> None:
    target = tiny_clip()
    prompt = QUICK.prompt(target, 0, depth=2, visual=True)
    plain = replace(QUICK, steps=1).fit(target, DATA, seed=0)
    view = target.with_mend(replace(plain, edits=tuple(prompt.edits)))
    view.embed_pixels(target.pixels(IMAGES))[:, 0].sum().backward()
    assert prompt.words.grad is not None
    assert bool((prompt.words.grad.flatten(1).abs().amax(1) > 0).all())
    assert all(parameter.grad is None for parameter in target.towers.model.parameters())


@pytest.mark.parametrize("depth", [1, 2])
def test_before_the_first_step_texts_are_embedded_as_before(depth: int) -> None:
    """The tokens begin as what each block reads for the nine letters of "a photo of a"."""
    target = tiny_clip()
    plain = replace(QUICK, steps=1).fit(target, DATA, seed=0)
    prompt = QUICK.prompt(target, 0, depth=depth)
    assert prompt.words.shape == (depth, 9, 32)
    view = target.with_mend(replace(plain, edits=tuple(prompt.edits)))
    torch.testing.assert_close(view.embed_texts(TEXTS), target.embed_texts(TEXTS))


def test_every_block_has_learnt_tokens_of_its_own() -> None:
    learnt = edits_of(replace(QUICK, steps=2).fit(tiny_clip(), DATA, seed=0))["text"]
    start = QUICK.prompt(tiny_clip(), 0, depth=2, visual=True).words
    assert learnt.shape == (2, 9, 32)
    assert bool(((learnt - start).flatten(1).abs().amax(1) > 0.01).all())


def test_the_same_seed_gives_the_same_mend_and_another_seed_another() -> None:
    quick = replace(QUICK, steps=2)
    first, again, other = (quick.fit(tiny_clip(), DATA, seed=seed).digest for seed in (0, 0, 1))
    assert first == again != other


def test_half_of_its_own_things_are_new_to_it() -> None:
    seen, others = every_second_thing()
    learnt, new = ({row.answers[0] for row in data.examples} for data in (seen, others))
    assert len(learnt) == len(new) == 267
    assert not learnt & new
    assert all(row.image is None for row in others.examples)


def test_one_name_a_model_without_a_mask_more_blocks_than_there_are_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        Maple().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    with pytest.raises(ModelProblem, match="padded to one length"):
        Maple().fit(dual_of(*duals.built("siglip"), "siglip"), DATA, seed=0)
    with pytest.raises(BadParameter, match="2 blocks in its shorter tower, and depth=3"):
        Maple(depth=3).fit(tiny_clip(), DATA, seed=0)
    for wrong in ({"depth": 0}, {"steps": 0}, {"rate": 0.0}, {"batch": 0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Maple(**wrong)
