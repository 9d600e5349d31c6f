"""Every family, as a tiny random model of its real class with its real processor, in float32.

A family is one entry of `FAMILIES`; what it cannot do is in the tables below, with the reason that the user is told.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models.families import FAMILIES, family
from tests.models.families.asking import BATCH, BIG, GREEDY, ODD, SEEN, SMALL, SYSTEM, TWO, WORDS, noise
from tests.models.families.table import committed, fitted, rows, table
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.models.vlm import VLM

ONE_IMAGE_ONLY = {"blip2": "places one image", "instructblip": "places one image"}
"""Families that refuse two images in one request, and what they say."""
NO_SYSTEM_TURN = {"paligemma"}
"""Families whose template has no place for a system turn."""
FIXED_SIZE = {
    "aria", "blip2", "deepseek_vl", "deepseek_vl_hybrid", "gemma3", "idefics2", "instructblip", "janus", "llama4",
    "llava", "mllama", "paligemma", "vipllava",
}  # fmt: skip
"""Families that read every image as the same number of tokens."""
BY_SHAPE = {"idefics3", "smolvlm"}
"""Families that bring every image to one size before they cut it, so that its shape alone decides on the tiles."""

every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
def test_blocks_and_tower_are_found_and_only_images_reach_the_tower(name: str) -> None:
    vlm = family(name)
    assert len(vlm.anatomy.blocks) == vlm.model.config.get_text_config(decoder=True).num_hidden_layers
    before = vlm.vision.calls
    vlm.logits([WORDS])
    assert vlm.vision.calls == before
    vlm.logits([SEEN])
    assert vlm.vision.calls > before


@every_family
def test_text_and_image_requests_are_answered_each_in_its_own_way(name: str) -> None:
    replies = family(name).generate(BATCH, GREEDY)
    assert all(reply.new_tokens == GREEDY.max_new_tokens or reply.stop == "stop" for reply in replies)
    assert len({reply.text for reply in replies}) > 1
    assert torch.pdist(family(name).logits(BATCH), p=float("inf")).min() > 1e-3


@every_family
def test_two_images_are_both_seen_or_refused_with_the_reason(name: str) -> None:
    if name in ONE_IMAGE_ONLY:
        with pytest.raises(ModelProblem, match=ONE_IMAGE_ONLY[name]):
            family(name).logits(TWO[:1])
        return
    one, two = (family(name).logits([conversation]) for conversation in TWO)
    assert (one - two).abs().max() > 1e-3


@every_family
def test_a_system_turn_is_heard_or_refused_with_the_reason(name: str) -> None:
    if name in NO_SYSTEM_TURN:
        with pytest.raises(ModelProblem, match="system"):
            family(name).logits(SYSTEM[:1])
        return
    kind, terse = (family(name).logits([conversation]) for conversation in SYSTEM)
    assert (kind - terse).abs().max() > 1e-3


@every_family
def test_a_mixed_batch_answers_as_each_row_alone(name: str) -> None:
    vlm, batch = family(name), [*BATCH, *([] if name in ONE_IMAGE_ONLY else TWO[:1])]
    alone = [vlm.generate([conversation], GREEDY)[0] for conversation in batch]
    together = vlm.generate(batch, GREEDY)
    assert [(r.text, r.prompt_tokens) for r in together] == [(r.text, r.prompt_tokens) for r in alone]
    one_by_one = torch.cat([vlm.logits([conversation]) for conversation in batch])
    off = (vlm.logits(batch) - one_by_one).abs().max() / one_by_one.abs().max()
    assert off < 1e-5


@every_family
def test_nothing_leaks_from_one_request_to_the_next(name: str) -> None:
    """M-RoPE families keep the shift between positions and tokens on the model; it differs for these two images."""
    vlm = family(name)
    vlm.generate([SEEN], GREEDY)
    after_small = vlm.logits([WORDS]), vlm.generate([WORDS], GREEDY)[0].text
    vlm.generate([BATCH[3]], GREEDY)
    assert torch.equal(vlm.logits([WORDS]), after_small[0])
    assert vlm.generate([WORDS], GREEDY)[0].text == after_small[1]


@every_family
def test_own_decoding_steps_after_forgetting_are_those_of_a_fresh_model(name: str) -> None:
    vlm = family(name)
    vlm.reader.forget()
    before = second_step(vlm, WORDS)
    vlm.model.generate(**vlm.reader.inputs([BATCH[3]]), max_new_tokens=2)
    vlm.reader.forget()
    assert torch.equal(second_step(vlm, WORDS), before)


@every_family
def test_hidden_states_are_the_blocks_own_outputs(name: str) -> None:
    vlm, site = family(name), Site("language", 1)
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append((output if isinstance(output, Tensor) else output[0])[:, -1].clone())

    handle = vlm.anatomy.blocks[1].register_forward_hook(keep)
    state = vlm.hidden([SEEN], [site])[site]
    handle.remove()
    assert torch.equal(state, seen[-1])


@every_family
def test_cmrm_moves_image_requests_and_no_others(name: str) -> None:
    vlm = family(name)
    mended = vlm.with_mend(fitted(name))
    moved = (mended.logits(BATCH) - vlm.logits(BATCH)).abs().amax(1)
    assert (moved > 1e-3).tolist() == [False, True, False, True]
    assert torch.equal(mended.logits([WORDS]), vlm.logits([WORDS]))
    idle = vlm.with_mend(fitted(name).scaled(0.0))
    assert torch.equal(idle.logits(BATCH), vlm.logits(BATCH))


@every_family
def test_cmrm_fires_at_every_layer(name: str) -> None:
    """Each of its edits by itself, with a vector of ones, moves its own site by one."""
    vlm, mend = family(name), fitted(name)
    edits = [replace(edit, vector=torch.ones(32)) for edit in mend.edits if isinstance(edit, AddVector)]
    assert [edit.site.layer for edit in edits] == [0, 1]
    for edit in edits:
        view = vlm.with_mend(Mend((edit,), mend.card))
        moved = view.hidden([SEEN], [edit.site])[edit.site] - vlm.hidden([SEEN], [edit.site])[edit.site]
        torch.testing.assert_close(moved, torch.ones(1, 32), atol=1e-4, rtol=0)


@every_family
def test_text_only_is_text_only(name: str) -> None:
    vlm = family(name)
    told = SEEN.without_images()
    inputs = vlm.reader.inputs([told])
    assert not [key for key in inputs if "pixel" in key]
    assert not vlm.reader.rows([told], inputs).image.any()
    assert crossed(vlm, told) == []
    assert crossed(vlm, SEEN) == list(vlm.anatomy.crossing)


@every_family
def test_images_of_any_shape_go_through(name: str) -> None:
    vlm = family(name)
    tokens = [int(marked(vlm, Conversation.ask("what", image)).sum()) for image in (SMALL, BIG, ODD)]
    assert all(vlm.logits([Conversation.ask("what", image)]).isfinite().all() for image in (BIG, ODD))
    assert (tokens[1] > tokens[0]) == (name not in FIXED_SIZE | BY_SHAPE)
    assert (len(set(tokens)) == 1) == (name in FIXED_SIZE)


@every_family
def test_image_positions_are_those_that_hold_the_image(name: str) -> None:
    """Another image of the same shape changes the first block's input at image tokens and nowhere else, but for
    separators, which are one learnt vector."""
    vlm = family(name)
    first, second = (Conversation.ask("what", noise(48, 32, seed)) for seed in (1, 2))
    if vlm.anatomy.crossing:
        pytest.skip("the image never enters the sequence")
    one, two, image = entering(vlm, first), entering(vlm, second), marked(vlm, first)
    differs = (one != two).any(-1)
    assert differs.any()
    assert not (differs & ~image).any()
    separators = one[image & ~differs]
    assert torch.equal(separators, separators[:1].expand_as(separators))


def test_the_table_in_the_docs_is_what_is_measured() -> None:
    assert committed() == table(rows())


@torch.inference_mode()
def second_step(vlm: VLM, conversation: Conversation) -> Tensor:
    """Logits after one more token, read from the cache of a prefill."""
    inputs = vlm.reader.inputs([conversation])
    model = vlm.reader.asked(inputs)
    cache = model(**inputs, use_cache=True).past_key_values
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    return model(input_ids=torch.tensor([[7]]), attention_mask=mask, past_key_values=cache, use_cache=True).logits


def marked(vlm: VLM, conversation: Conversation) -> Tensor:
    """Image positions of one request, "token"."""
    return vlm.reader.rows([conversation], vlm.reader.inputs([conversation])).image[0]


def entering(vlm: VLM, conversation: Conversation) -> Tensor:
    """What the first block reads, "token width"."""
    read: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        read.append((args[0] if args else kwargs["hidden_states"])[0].clone())

    handle = vlm.anatomy.blocks[0].register_forward_pre_hook(keep, with_kwargs=True)
    vlm.logits([conversation])
    handle.remove()
    return read[-1]


def crossed(vlm: VLM, conversation: Conversation) -> list[int]:
    """Which of the cross-attention layers ran."""
    ran: list[int] = []
    handles = [
        vlm.anatomy.blocks[layer].register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer in vlm.anatomy.crossing
    ]
    vlm.logits([conversation])
    for handle in handles:
        handle.remove()
    return ran
