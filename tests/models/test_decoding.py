"""Rows come and go, and no reply depends on who else was there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.families import family
from transformers import DynamicCache

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import AddVector, ContrastShift, Edit, Gate, ProjectOut
from vlmend.core.images import blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.models.batching import Batcher
from vlmend.models.decoding import image_features as seeing_module
from vlmend.models.decoding.cache import growing, joined
from vlmend.models.decoding.engine import decode_rows, decode_whole
from vlmend.models.decoding.loop import Budget, Prefilled, Waiting, decode, in_budget
from vlmend.models.decoding.prefill import Workings
from vlmend.models.decoding.trial import loop_of
from vlmend.models.vlm import VLM, answer_together
from vlmend.testing import tiny_vlm

GREEDY = Sampling(max_new_tokens=9)
MANY = [
    Conversation.ask("word " * (1 + k % 5) + str(k), None if k % 3 == 0 else noise_image(16, k % 4)) for k in range(14)
]
WIDTH = 32


def vector(seed: int, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def view(vlm: VLM, *edits: Edit) -> VLM:
    card = MendCard("by_hand", {}, vlm.name, vlm.model_digest, "none", "", 0, {}, {}, "test")
    return vlm.with_mend(Mend(edits, card))


def views(vlm: VLM) -> list[VLM]:
    """The model without mends, and under one of every kind that acts on steps."""
    site, next_site = Site("language", 1), Site("language", 2)
    axes = torch.linalg.qr(torch.randn(WIDTH, 2, generator=torch.Generator().manual_seed(5)))[0].T
    return [
        vlm,
        view(vlm, AddVector(site, vector(1), "last", "with_image")),
        view(vlm, AddVector(site, vector(2), "last", gate=Gate(Site("language", 0), vector(3), 0.0))),
        view(vlm, AddVector(site, vector(4), "reply"), ProjectOut(site, axes, 1.0, "last"), AddVector(site, vector(6))),
        view(vlm, ContrastShift((1, 2), blank_image(16), tokens="last"), AddVector(next_site, vector(7), "all")),
    ]


def plain(replies: Sequence[Reply]) -> list[Reply]:
    return [replace(reply, seconds=0.0) for reply in replies]


def small(vlm: VLM, tokens: int) -> VLM:
    """The model with room for so many tokens a batch, and nothing known of earlier requests."""
    return replace(vlm, workings=Workings(budget=Budget(tokens), loop=loop_of(vlm)))


@pytest.mark.parametrize("place", range(5))
def test_rows_that_come_and_go_get_the_replies_of_each_alone(place: int) -> None:
    one = views(tiny_vlm(seed=0))[place]
    assert loop_of(one).way == "refilled"
    alone = [decode_whole(one, [conversation], GREEDY)[0] for conversation in MANY]
    few = small(one, 220)  # four rows or so: most come in while others are under way
    assert plain(few.generate(MANY, GREEDY)) == plain(alone)
    assert len({reply.text for reply in alone}) > 5


@pytest.mark.parametrize("name", ["llama4", "qwen3_5", "aya_vision"])
@pytest.mark.parametrize("edits", [(), (AddVector(Site("language", 0), vector(1), "last"),)])
def test_rows_leave_caches_that_cannot_be_joined(
    name: str, edits: tuple[Edit, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = view(family(name), *edits)  # chunks and windows of 8 tokens, recurrent states
    assert loop_of(one).way == "thinned"
    many = [Conversation.ask("yes " * (1 + k % 4), None if k % 3 == 0 else noise_image(16, k % 4)) for k in range(10)]
    tokenizer = one.processor.tokenizer
    said = [tokenizer(reply.text, add_special_tokens=False).input_ids for reply in one.generate(many, GREEDY)]
    end = max(sorted({i for ids in said for i in ids}), key=lambda i: len({(*ids, i).index(i) for ids in said}))
    monkeypatch.setattr(one.model.generation_config, "eos_token_id", end)  # they come to it at different times
    alone = [decode_whole(one, [conversation], GREEDY)[0] for conversation in many]
    assert plain(small(one, 700).generate(many, GREEDY)) == plain(alone)
    assert len({reply.new_tokens for reply in alone}) > 1


def test_rows_under_different_mends_share_a_batch() -> None:
    vlm = tiny_vlm(seed=0)
    kinds = views(vlm)
    asked = [kinds[k % len(kinds)] for k in range(len(MANY))]
    assert all(one.mixes for one in kinds)
    together = answer_together(asked, MANY, GREEDY)
    alone = [one.generate([conversation], GREEDY)[0] for one, conversation in zip(asked, MANY, strict=True)]
    assert plain(together) == plain(alone)
    unmended = vlm.generate(MANY, GREEDY)
    assert sum(a.text != b.text for a, b in zip(together, unmended, strict=True)) > 5


def test_the_batcher_lets_two_mends_share_a_batch() -> None:
    vlm = tiny_vlm(seed=0)
    mended = views(vlm)[1]
    sizes: list[int] = []
    batcher = Batcher(8, lambda rows: sizes.append(len({name for name, *_ in rows})))
    futures = [batcher.submit((vlm, mended)[k % 2], MANY[k], GREEDY) for k in range(8)]
    wait(futures, timeout=60)
    batcher.close()
    assert max(sizes) == 2
    assert plain([f.result() for f in futures]) == plain(
        [(vlm, mended)[k % 2].generate([MANY[k]], GREEDY)[0] for k in range(8)]
    )


def test_draws_belong_to_the_request_and_not_to_its_batch() -> None:
    vlm = tiny_vlm(seed=0)
    hot = Sampling(max_new_tokens=9, temperature=1.0, seed=3)
    alone = [vlm.generate([conversation], hot)[0] for conversation in MANY]
    assert plain(small(vlm, 220).generate(MANY, hot)) == plain(alone)
    twice = vlm.generate([MANY[0], MANY[0]], hot)
    assert twice[0].text == alone[0].text != twice[1].text
    assert vlm.generate([MANY[0]], replace(hot, seed=4))[0].text != alone[0].text


def test_a_reply_tells_how_often_each_layer_was_edited() -> None:
    vlm = tiny_vlm(seed=0)
    site, other = Site("language", 1), Site("language", 3)
    mended = view(vlm, AddVector(site, vector(1), "last", "with_image"), AddVector(other, vector(2), "last_prompt"))
    for reply, asked in zip(small(mended, 220).generate(MANY, GREEDY), MANY, strict=True):
        expected = {str(other): 1} | ({str(site): reply.new_tokens} if asked.has_image else {})
        assert reply.fired == expected  # a step for each token but the first, and the prefill
    assert [reply.fired for reply in decode_whole(mended, MANY[:2], GREEDY)] == [
        reply.fired for reply in mended.generate(MANY[:2], GREEDY)
    ]


def test_requests_about_one_image_share_its_prefix() -> None:
    vlm = small(tiny_vlm(seed=0), 4096)
    many = [Conversation.ask(f"say {k}" + "!" * (k % 3), blank_image(16)) for k in range(60)]
    first, later = many[:48], many[48:]
    alone = [decode_whole(vlm, [conversation], GREEDY)[0] for conversation in many]
    lengths: list[int] = []
    counter = vlm.anatomy.blocks[0].register_forward_hook(lambda m, args, out: lengths.append(args[0].shape[1]))
    assert plain(vlm.generate(first, GREEDY)) == plain(alone[:48])
    assert len(vlm.workings.prefixes.known) == 1
    calls = vlm.vision.calls
    lengths.clear()
    assert plain(vlm.generate(later, GREEDY)) == plain(alone[48:])
    counter.remove()
    assert vlm.vision.calls == calls  # neither the tower nor the prefix is read again
    assert max(lengths) == len("say 25!![assistant]")


def test_a_prefix_that_does_not_pay_is_not_read() -> None:
    vlm = small(tiny_vlm(seed=0), 4096)
    vlm.generate([Conversation.ask("say " + word, blank_image(16)) for word in ("a", "bb", "ccc")], GREEDY)
    assert not vlm.workings.prefixes.known


def test_a_request_that_was_read_before_is_gone_on_from_its_last_token() -> None:
    vlm = tiny_vlm(seed=0)
    base, mended, gated, *_ = (small(one, 4096) for one in views(vlm))
    base.generate(MANY, GREEDY)
    lengths: list[int] = []
    counter = vlm.anatomy.blocks[0].register_forward_hook(lambda m, args, out: lengths.append(args[0].shape[1]))
    for one in (mended, gated):
        known = replace(one, workings=base.workings)
        assert plain(known.generate(MANY, GREEDY)) == plain(decode_rows([one] * len(MANY), MANY, GREEDY))
        one.workings.recall.known.clear()
    counter.remove()
    assert sum(length > 1 for length in lengths) == 2  # each view without the base's memory reads in full, once
    assert base.workings.recall.reused == 2 * len(MANY)


def test_prompts_that_were_read_after_a_shared_prefix_are_recalled_without_its_padding() -> None:
    vlm = small(tiny_vlm(seed=0), 4096)
    many = [Conversation.ask("say it" + "!" * (1 + k % 9), blank_image(16)) for k in range(9)] * 6
    many = [replace(one, lead=str(k)) for k, one in enumerate(many)]
    vlm.generate(many, GREEDY)
    assert len(vlm.workings.prefixes.known) == 1
    assert len(vlm.workings.recall.known) == len(many)
    alone = [decode_whole(vlm, [conversation], GREEDY)[0] for conversation in many]
    assert plain(vlm.generate(many, GREEDY)) == plain(alone)
    assert vlm.workings.recall.reused == len(many)


def test_what_a_mend_touched_is_not_recalled() -> None:
    vlm = tiny_vlm(seed=0)
    touching = view(vlm, AddVector(Site("language", 1), vector(1), "all"))
    touching.generate(MANY, GREEDY)
    assert not vlm.workings.recall.known
    vlm.generate(MANY, GREEDY)
    fresh = small(touching, 4096)
    assert plain(touching.generate(MANY, GREEDY)) == plain(fresh.generate(MANY, GREEDY))


def test_remembered_prompts_are_bounded() -> None:
    vlm = tiny_vlm(seed=0)
    vlm.generate(MANY[:1], GREEDY)
    size = vlm.workings.recall.bytes
    vlm.workings.recall.limit = 3 * size
    vlm.generate(MANY, GREEDY)
    recall = vlm.workings.recall
    assert 0 < recall.bytes <= 3 * size
    assert recall.bytes == sum(p.keys.nbytes + p.values.nbytes for p in recall.known.values())


def test_a_mend_that_edits_the_image_shares_no_prefix() -> None:
    vlm = tiny_vlm(seed=0)
    mended = view(vlm, AddVector(Site("language", 1), vector(1), "image"))
    asked = [Conversation.ask("say " + word, blank_image(16)) for word in ("a", "bb", "ccc")]
    mended.generate(asked, GREEDY)
    assert not vlm.workings.prefixes.known


def test_image_features_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_vlm(seed=0)
    images = [noise_image(16, k) for k in range(4)]
    size = 4 * WIDTH * 4  # four tokens of float32
    monkeypatch.setattr(seeing_module, "KEPT_BYTES", 2 * size)
    for image in images:
        vlm.generate([Conversation.ask("what", image)], GREEDY)
    assert list(vlm.workings.seen.kept) == [f"{image.digest}:1" for image in images[2:]]
    assert vlm.workings.seen.bytes == 2 * size


class Crowded:
    """A prefill that runs out of memory above some rows."""

    def __init__(self, vlm: VLM, most: int) -> None:
        self.vlm, self.most, self.sizes = vlm, most, list[int]()

    def __call__(self, *args: object, **kwargs: object) -> object:
        ids = kwargs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        self.sizes.append(len(ids))
        if len(ids) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.forward(*args, **kwargs)

    def forward(self, *args: object, **kwargs: object) -> object:
        return type(self.vlm.model).forward(self.vlm.model, *args, **kwargs)


def test_a_device_that_runs_out_of_memory_gets_smaller_batches() -> None:
    vlm = tiny_vlm(seed=0)
    alone = [vlm.generate([conversation], GREEDY)[0] for conversation in MANY]
    crowded = Crowded(vlm, 3)
    vlm.model.forward = crowded
    assert plain(vlm.generate(MANY, GREEDY)) == plain(alone)
    assert max(crowded.sizes) > 3
    assert vlm.workings.room(vlm.model.device).tokens < 4096
    crowded.sizes.clear()
    vlm.generate(MANY, GREEDY)
    assert max(crowded.sizes) <= 3  # what was learnt stays


def test_one_request_that_does_not_fit_is_one_clear_message() -> None:
    vlm = tiny_vlm(seed=0)
    vlm.generate(MANY[:1], GREEDY)
    vlm.model.forward = Crowded(vlm, 0)
    with pytest.raises(ModelProblem, match="does not fit into memory") as problem:
        vlm.generate(MANY, GREEDY)
    assert "--dtype" in problem.value.hint


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(10, 200))
@settings(deadline=None)
def test_a_batch_is_within_its_budget_or_one_row(lengths: list[int], tokens: int) -> None:
    rows = [Waiting(k, length, "ab"[k // 10 % 2]) for k, length in enumerate(sorted(lengths))]
    taken = in_budget(rows, 5, tokens)
    assert len(taken) == 1 or len(taken) * (max(one.length for one in taken) + 5) <= tokens
    assert len({one.group for one in taken}) == 1


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_a_growing_cache_holds_what_a_dynamic_one_holds(a: int, b: int, one: int, other: int, steps: int) -> None:
    draw = torch.Generator().manual_seed(a + 10 * b)

    def made(rows: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [tuple(torch.randn(rows, 2, length, 3, generator=draw) for _ in "kv") for _ in range(2)]  # type: ignore[misc]

    both = joined(made(a, one), made(b, other))
    ours, theirs = growing(both), DynamicCache()
    for layer, (keys, values) in enumerate(both):
        theirs.update(keys, values, layer)
    for _ in range(steps):
        for layer, (keys, values) in enumerate(made(a + b, 1)):
            mine, wanted = ours.update(keys, values, layer), theirs.update(keys, values, layer)
            assert torch.equal(mine[0], wanted[0])
            assert torch.equal(mine[1], wanted[1])
    assert ours.get_seq_length() == theirs.get_seq_length() == max(one, other) + steps


def test_a_failure_of_another_kind_is_not_taken_for_a_lack_of_memory() -> None:
    def prefill(rows: Sequence[int]) -> Prefilled:
        raise RuntimeError("shapes do not fit")

    vlm = tiny_vlm(seed=0)
    with pytest.raises(RuntimeError, match="shapes"):
        decode(vlm.model, vlm.anatomy, [Waiting(0, 3)], prefill, GREEDY, frozenset([1]), Budget(100), joins=True)


def test_decode_rows_puts_replies_in_the_order_of_the_requests() -> None:
    vlm = tiny_vlm(seed=0)
    backwards = decode_rows([vlm] * len(MANY), MANY[::-1], GREEDY)
    assert plain(backwards[::-1]) == plain(decode_rows([vlm] * len(MANY), MANY, GREEDY))
