"""Generation, states and the proof that images are seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.edits import AddVector, Tokens
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BadImage, ModelProblem
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm

GREEDY = Sampling(max_new_tokens=12)
MIXED = [
    Conversation.ask("short"),
    Conversation.ask("with a picture", noise_image(16, 3)),
    Conversation((Turn("system", "be kind"), Turn("user", "a longer one", (blank_image(16),)))),
]


def mend_of(vlm: VLM, *edits: AddVector) -> Mend:
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return Mend(edits, card)


def push(vlm: VLM, tokens: Tokens, size: float = 3.0) -> VLM:
    vector = torch.randn(vlm.anatomy.width, generator=torch.Generator().manual_seed(0)) * size
    return vlm.with_mend(mend_of(vlm, AddVector(Site("language", 1), vector, tokens)))


def test_a_mixed_batch_answers_as_each_row_alone(tiny: VLM) -> None:
    alone = [tiny.generate([conversation], GREEDY)[0] for conversation in MIXED]
    together = tiny.generate(MIXED, GREEDY)
    assert [replace(r, seconds=0.0) for r in together] == [replace(r, seconds=0.0) for r in alone]


def test_token_counts_are_true(tiny: VLM) -> None:
    reply = tiny.generate([MIXED[0]], GREEDY)[0]
    assert reply.prompt_tokens == len("[user]short[assistant]")
    with_image = tiny.generate([MIXED[1]], GREEDY)[0]
    assert with_image.prompt_tokens == len("[user]with a picture[assistant]") + 4  # a 2 x 2 grid of patches


def test_stop_reason_tells_an_end_from_a_cut(tiny: VLM) -> None:
    cut = tiny.generate([MIXED[0]], GREEDY)[0]
    assert (cut.stop, cut.new_tokens) == ("length", 12)
    vlm = tiny_vlm(seed=0)
    third = vlm.processor.tokenizer(cut.text, add_special_tokens=False).input_ids[2]
    vlm.model.generation_config.eos_token_id = [1, third]
    ended = vlm.generate([MIXED[0]], GREEDY)[0]
    assert ended.stop == "stop"
    assert ended.new_tokens <= 3


def test_the_vision_tower_is_called_for_new_images_only() -> None:
    vlm = tiny_vlm(seed=0)
    vlm.generate([MIXED[0]], GREEDY)  # the first call tries the decode loop, on a blank image
    before = vlm.vision.calls
    vlm.generate([MIXED[0]], GREEDY)
    assert vlm.vision.calls == before
    vlm.generate(MIXED, GREEDY)
    assert vlm.vision.calls == before + 1
    vlm.generate(MIXED, GREEDY)
    assert vlm.vision.calls == before + 1


def test_what_the_image_shows_reaches_the_logits(tiny: VLM) -> None:
    first, second = (tiny.logits([Conversation.ask("what", noise_image(16, seed))]) for seed in (1, 2))
    assert (first - second).abs().max() > 1e-3


def test_images_that_never_reach_the_tower_are_an_error() -> None:
    vlm = tiny_vlm(seed=0)
    bypassed = replace(vlm, anatomy=replace(vlm.anatomy, vision=torch.nn.Identity()))
    with pytest.raises(ModelProblem, match="never reached the vision tower"):
        bypassed.logits([MIXED[1]])


def test_hidden_states_are_the_blocks_own_outputs(tiny: VLM) -> None:
    """Against a plain hook on an unpadded single request."""
    seen = {}
    handle = tiny.anatomy.blocks[2].register_forward_hook(
        lambda m, a, out: seen.update(out=out[:, -1].detach().clone())
    )
    alone = tiny.hidden([MIXED[1]], [Site("language", 2)])[Site("language", 2)]
    handle.remove()
    assert torch.equal(alone, seen["out"])
    batched = tiny.hidden(MIXED, [Site("language", 2)])[Site("language", 2)][1:2]
    torch.testing.assert_close(batched, alone, atol=1e-5, rtol=1e-5)


def test_capture_shows_the_state_after_the_edit(tiny: VLM) -> None:
    site = Site("language", 1)
    vector = torch.full((tiny.anatomy.width,), 0.5)
    view = tiny.with_mend(mend_of(tiny, AddVector(site, vector, "last")))
    moved = view.hidden(MIXED, [site])[site] - tiny.hidden(MIXED, [site])[site]
    torch.testing.assert_close(moved, vector.expand(3, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("tokens", "first_token_moves", "text_row_moves"),
    [("last_prompt", True, True), ("last", True, True), ("all", True, True), ("prompt", True, True),
     ("image", True, False), ("reply", False, False)],
)  # fmt: skip
def test_token_scopes_at_the_prefill(tokens: Tokens, first_token_moves: bool, text_row_moves: bool, tiny: VLM) -> None:
    moved = (push(tiny, tokens).logits(MIXED) - tiny.logits(MIXED)).abs().amax(1) > 1e-4
    assert moved.tolist() == [text_row_moves, first_token_moves, first_token_moves]


def test_reply_scope_moves_generated_tokens_only(tiny: VLM) -> None:
    base, moved = tiny.generate(MIXED, GREEDY), push(tiny, "reply", 20.0).generate(MIXED, GREEDY)
    assert [r.text[:1] for r in moved] == [r.text[:1] for r in base]
    assert [r.text for r in moved] != [r.text for r in base]


def test_padding_is_never_edited(tiny: VLM) -> None:
    """`all` on a padded batch equals `all` on each row alone."""
    view = push(tiny, "all")
    torch.testing.assert_close(view.logits(MIXED), torch.cat([view.logits([c]) for c in MIXED]), atol=1e-5, rtol=0)


def test_the_id_of_a_view_names_its_mend(tiny: VLM) -> None:
    view = push(tiny, "last")
    assert view.id.startswith("tiny-0+by_hand@")
    assert view.id != push(tiny, "last", 2.0).id


def test_a_broken_image_is_named(tiny: VLM) -> None:
    with pytest.raises(BadImage, match=r"holiday\.jpg"):
        tiny.generate([Conversation.ask("what", Image(b"no image", "holiday.jpg"))], GREEDY)


def test_a_saved_folder_loads_and_answers_the_same(tiny: VLM, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    loaded = load(tmp_path, options=LoadOptions("cpu"))
    assert loaded.model_digest == tiny.model_digest
    assert [r.text for r in loaded.generate(MIXED, GREEDY)] == [r.text for r in tiny.generate(MIXED, GREEDY)]


def test_a_folder_that_is_no_model_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(ModelProblem, match="cannot be loaded") as problem:
        load(tmp_path)
    assert "hub name" in problem.value.hint


def test_a_model_without_a_chat_template_is_refused(tiny: VLM, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelProblem, match="no chat template"):
        load(tmp_path, options=LoadOptions("cpu"))


def test_the_fingerprint_is_one_for_float32_and_bfloat16(tiny: VLM) -> None:
    half = tiny_vlm(seed=0, dtype=torch.bfloat16)
    assert half.model_digest == tiny.model_digest
    assert tiny_vlm(seed=1).model_digest != tiny.model_digest
