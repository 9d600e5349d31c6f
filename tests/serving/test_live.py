"""Rows that come at any time, beside any others, say what they say alone; those who leave leave nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.families import family
from tests.serving.serving import mends_of_whole_batches, mends_that_share

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import noise_image
from vlmend.errors import ModelProblem, SampleError
from vlmend.models.decoding.live import Live, LiveRequest, forget_requests, takes_company
from vlmend.models.decoding.loop import Budget
from vlmend.models.vlm import VLM
from vlmend.testing import hook_count, tiny_vlm

TINY = tiny_vlm(seed=0)
VIEWS = [TINY, *(TINY.with_mend(mend) for mend in mends_that_share(TINY).values())]
MANY = [Conversation.ask("word " * (1 + k % 4) + str(k), None if k % 3 == 0 else noise_image(16, k)) for k in range(18)]
HOW = [Sampling(1 + k % 7, temperature=float(k % 5 == 4), seed=k) for k in range(18)]


def view_of(k: int) -> VLM:
    return VIEWS[k % len(VIEWS)]


ALONE = [view_of(k).generate([MANY[k]], HOW[k])[0] for k in range(18)]
HOOKS = hook_count(TINY.model)  # transformers' own


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_row_says_what_it_says_alone_whoever_comes_and_goes(data: st.DataObject) -> None:
    live, waiting, running, said = Live(TINY), [*range(18)], dict[int, int](), dict[int, object]()
    while waiting or running:
        coming = data.draw(st.integers(0, 4)) if running else 1 + data.draw(st.integers(0, 3))
        batch, waiting = waiting[:coming], waiting[coming:]
        if batch:
            numbers = live.admit([LiveRequest.of(view_of(k), MANY[k], HOW[k]) for k in batch])
            running |= dict(zip(numbers, batch, strict=True))
        for number in [number for number in running if data.draw(st.integers(0, 12)) == 0]:
            live.drop(number)  # its client is gone
            del running[number]
        live.choose()
        for number in [number for number in running if live.done(number)]:
            said[running.pop(number)] = replace(live.reply(number, 0.0), seconds=0.0)
            live.drop(number)
        live.step()
    assert said == {k: replace(ALONE[k], seconds=0.0) for k in said}
    assert (live.rows, live._leads, live._room, live._chooser.generators) == ([], {}, {}, {})
    assert hook_count(TINY.model) == HOOKS


def test_the_requests_above_tell_views_apart() -> None:
    assert sum(a.text != TINY.generate([c], s)[0].text for a, c, s in zip(ALONE, MANY, HOW, strict=True)) > 6


def test_who_takes_company_is_told_by_what_edits_touch_and_by_the_family() -> None:
    assert all(takes_company(view) for view in VIEWS)
    assert not any(takes_company(TINY.with_mend(mend)) for mend in mends_of_whole_batches(TINY).values())
    assert not takes_company(family("llama4"))  # its rows cannot be joined


def test_nothing_is_kept_of_a_request() -> None:
    vlm = tiny_vlm(seed=1)
    live = Live(vlm)
    live.admit([LiveRequest.of(vlm, MANY[1], HOW[1])])
    assert vlm.workings.seen.kept
    forget_requests(vlm)
    assert not vlm.workings.seen.kept
    assert not vlm.workings.recall.known


def test_room_is_counted_with_padding_and_one_alone_always_fits() -> None:
    vlm = replace(tiny_vlm(seed=1))
    vlm.workings.budget = Budget(100)
    live, short = Live(vlm), LiveRequest.of(vlm, Conversation.ask("a"), Sampling(10))
    long = LiveRequest.of(vlm, Conversation.ask("a" * 100), Sampling(10))
    assert (short.length, short.room) == (18, 28)  # [user]a[assistant]
    assert [live.fits(short, [short] * beside) for beside in (1, 2, 3)] == [True, True, False]
    assert live.fits(long)
    assert not live.fits(long, [short])


def test_a_request_that_is_too_long_or_cannot_be_read_is_refused_before_any_row_is_touched() -> None:
    with pytest.raises(SampleError, match="tokens"):
        LiveRequest.of(TINY, Conversation.ask("a" * 5000), Sampling(4))
    with pytest.raises(SampleError, match="stands for a picture"):
        LiveRequest.of(TINY, Conversation.ask("<image>"), Sampling(4))


def test_rows_under_way_outlive_a_prefill_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(TINY)
    (number,) = live.admit([LiveRequest.of(TINY, MANY[1], Sampling(6))])
    live.choose()
    live.step()
    broken = LiveRequest.of(TINY, MANY[2], Sampling(6))
    with monkeypatch.context() as patched:
        patched.setattr(TINY.model, "forward", lambda **_: (_ for _ in ()).throw(RuntimeError("no")))
        with pytest.raises(RuntimeError, match="no"):
            live.admit([broken])
    while not live.done(number):
        live.choose()
        if not live.done(number):
            live.step()
    assert live.reply(number, 0.0).text == TINY.generate([MANY[1]], Sampling(6))[0].text


def test_logits_that_are_not_finite_are_an_error() -> None:
    vlm = tiny_vlm(seed=1)
    live = Live(vlm)
    live.admit([LiveRequest.of(vlm, MANY[0], Sampling(6))])
    live._logits = torch.full_like(live._logits, torch.nan)
    with pytest.raises(ModelProblem, match="NaN"):
        live.choose()
