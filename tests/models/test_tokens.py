"""Learnt tokens: where they stand, what each block reads, and models that have no place for them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from tests.models import duals
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.dual_edits import InsertTokens
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BadParameter, ModelProblem
from vlmend.models.dual.encoder import DualEncoder, dual_of
from vlmend.testing import hook_count, tiny_clip

IMAGES = [noise_image(16, k) for k in range(3)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seen(target: DualEncoder, *edits: InsertTokens) -> DualEncoder:
    return target.with_mend(Mend(edits, MendCard("m", {}, target.name, target.model_digest, "d", "", 0, {}, {}, "")))


def written(target: DualEncoder, letters: str) -> Tensor:
    """What the first text block reads for words of one letter from position 1 on, "block token width"."""
    model: Any = target.towers.model
    parts = model.text_model.embeddings
    ids = target.towers.tokens([" ".join(letters)], 0)["input_ids"][0, 1:-1]
    places = torch.arange(1, len(ids) + 1)
    return (parts.token_embedding(ids) + parts.position_embedding(places)).detach()[None]


def test_tokens_that_are_those_of_words_do_what_the_words_do() -> None:
    """Behind the first token of texts of different lengths, the end still found."""
    target = tiny_clip()
    view = seen(target, InsertTokens("text", written(target, "ab")))
    texts = ["c", "d e f"]
    written_out = target.embed_texts([f"a b {text}" for text in texts])
    torch.testing.assert_close(view.embed_texts(texts), written_out)
    assert torch.equal(view.embed_images(IMAGES), target.embed_images(IMAGES))


def test_words_in_whose_place_tokens_stand_are_left_out_where_a_text_begins_with_them() -> None:
    target = tiny_clip()
    view = seen(target, InsertTokens("text", written(target, "ab"), instead="a b"))
    texts = ["A b c d", "c d", "c a b"]
    torch.testing.assert_close(view.embed_texts(texts), target.embed_texts(["a b c d", "a b c d", "a b c a b"]))


def test_a_long_text_is_cut_to_leave_the_tokens_their_places() -> None:
    """24 tokens: a first, a last and 22 words; two tokens leave 20 of them."""
    target = tiny_clip()
    view = seen(target, InsertTokens("text", written(target, "ab")))
    cut = target.embed_texts([" ".join("ab" + "c" * 20)])
    torch.testing.assert_close(view.embed_texts([" ".join("c" * 30)]), cut)


def test_each_of_the_first_blocks_reads_its_own_tokens_behind_the_patches() -> None:
    """Against the vision tower run by hand: block 0 gets two more places, block 1 has others there, then they stay."""
    target = tiny_clip(layers=3)
    tokens = drawn(2, 2, 32)
    model: Any = target.towers.model
    pixels = target.pixels(IMAGES)
    with torch.no_grad():
        tower = model.vision_model
        states = tower.pre_layrnorm(tower.embeddings(pixels.black + pixels.values * pixels.span))
        count = states.shape[1]
        for k, block in enumerate(tower.encoder.layers):
            if k < 2:
                states = torch.cat([states[:, :count], tokens[k].expand(3, -1, -1)], dim=1)
            states = block(states, None)
        by_hand = normalize(model.visual_projection(tower.post_layernorm(states[:, 0])), dim=1)
    view = seen(target, InsertTokens("vision", tokens))
    torch.testing.assert_close(view.embed_images(IMAGES), by_hand)
    torch.testing.assert_close(view.embed_pixels(pixels), by_hand)


@pytest.mark.parametrize("tower", ["text", "vision"])
def test_tokens_of_two_mends_stand_in_their_order(tower: Literal["text", "vision"]) -> None:
    target, first, second = tiny_clip(), drawn(2, 1, 32), drawn(2, 3, 32, seed=1)
    apart = seen(seen(target, InsertTokens(tower, first)), InsertTokens(tower, second))
    together = seen(target, InsertTokens(tower, torch.cat([first, second], dim=1)))
    torch.testing.assert_close(apart.embed_texts(["a b"]), together.embed_texts(["a b"]))
    torch.testing.assert_close(apart.embed_images(IMAGES), together.embed_images(IMAGES))
    assert hook_count(target.towers.model) == hook_count(tiny_clip().towers.model)


def test_states_are_read_where_the_embedding_is() -> None:
    target = tiny_clip()
    view = seen(target, InsertTokens("text", written(target, "ab")), InsertTokens("vision", drawn(1, 2, 32)))
    site = Site("text", 1)
    torch.testing.assert_close(view.hidden(["c"], [site])[site], target.hidden(["a b c"], [site])[site])
    site = Site("vision", 1)
    assert view.hidden(IMAGES, [site])[site].shape == (3, 32)


def test_a_sigmoid_model_has_places_for_them_in_both_towers() -> None:
    target = dual_of(*duals.built("siglip"), "siglip")
    view = seen(target, InsertTokens("text", drawn(1, 2, 32)), InsertTokens("vision", drawn(1, 2, 32)))
    assert not torch.allclose(view.embed_texts(["a"]), target.embed_texts(["a"]))
    assert not torch.allclose(view.embed_images(IMAGES), target.embed_images(IMAGES))
    torch.testing.assert_close(view.embed_texts(["a", "b c d"])[:1], view.embed_texts(["a"]))


def test_what_has_no_place_is_refused_and_leaves_no_hook() -> None:
    target = tiny_clip()
    before = hook_count(target.towers.model)
    for edit, said in (
        (InsertTokens("vision", drawn(1, 2, 16)), "16 numbers wide, and this tower's states are 32"),
        (InsertTokens("text", drawn(3, 2, 32)), "tokens for 3 blocks, and the text tower has 2"),
        (InsertTokens("text", drawn(1, 22, 32)), "24 tokens, and 22 of them"),
    ):
        with pytest.raises(BadParameter, match=said):
            seen(target, edit).logits(IMAGES, ["a"])
    assert hook_count(target.towers.model) == before


def test_a_tower_of_convolutions_is_refused() -> None:
    target = dual_of(*duals.built("align"), "align")
    with pytest.raises(ModelProblem, match="no plain sequence of patches"):
        seen(target, InsertTokens("vision", drawn(1, 2, 8))).embed_images([noise_image(64, 0)])


def test_a_text_is_the_mean_of_what_it_is_behind_each_set_of_tokens() -> None:
    target, words = tiny_clip(), [written(target, letters) for target in (tiny_clip(),) for letters in ("ab", "de")]
    view = seen(target, InsertTokens("text", torch.cat(words, dim=1), sets=2))
    texts = ["c", "d e f"]
    by_hand = normalize((target.embed_texts(["a b c", "a b d e f"]) + target.embed_texts(["d e c", "d e d e f"])) / 2)
    torch.testing.assert_close(view.embed_texts(texts), by_hand)
    torch.testing.assert_close(normalize(view.text_features(texts)), by_hand)
    site = Site("text", 1)
    states = [target.hidden([text], [site])[site] for text in ("a b c", "d e c")]
    torch.testing.assert_close(view.hidden(["c"], [site])[site], (states[0] + states[1]) / 2)
    assert torch.equal(view.embed_images(IMAGES), target.embed_images(IMAGES))


def test_sets_of_two_mends_are_read_in_every_combination() -> None:
    target = tiny_clip()
    first, second = (InsertTokens("text", drawn(1, 4, 32, seed=k), sets=2) for k in range(2))
    parts = [
        seen(target, InsertTokens("text", torch.cat([one, other], dim=1))).embed_texts(["a b"])
        for one in first.tokens.chunk(2, dim=1)
        for other in second.tokens.chunk(2, dim=1)
    ]
    by_hand = normalize(torch.stack(parts).mean(0))
    torch.testing.assert_close(seen(seen(target, first), second).embed_texts(["a b"]), by_hand)


def test_tokens_that_are_no_sets_are_refused() -> None:
    for tower, sets in (("text", 2), ("text", 0), ("vision", 3)):
        with pytest.raises(BadParameter, match=f"3 tokens of the {tower} tower are no {sets} sets"):
            InsertTokens(tower, drawn(1, 3, 32), sets=sets)
