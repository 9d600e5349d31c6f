"""The batcher: company, order, and one bad image among good ones."""

from __future__ import annotations

import queue
from concurrent.futures import wait
from typing import ClassVar

import pytest
import torch

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import AddVector
from vlmend.core.images import Image, blank_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BadImage
from vlmend.models import batching
from vlmend.models.batching import Batcher
from vlmend.testing import ScriptedTarget, tiny_vlm


class Recording(ScriptedTarget):
    """Notes the size of each batch."""

    sizes: ClassVar[list[int]] = []

    def generate(self, batch, sampling):
        self.sizes.append(len(batch))
        return super().generate(batch, sampling)


def test_replies_come_back_to_who_asked_in_batches() -> None:
    target = Recording(lambda c, mended: c.turns[0].text.upper())
    target.sizes.clear()
    batcher = Batcher(8)
    futures = [batcher.submit(target, Conversation.ask(f"request {k}"), Sampling()) for k in range(40)]
    wait(futures, timeout=20)
    assert [f.result().text for f in futures] == [f"REQUEST {k}" for k in range(40)]
    assert max(target.sizes) <= 8
    assert len(target.sizes) <= 12
    batcher.close()


def test_different_samplings_never_share_a_batch() -> None:
    seen: list[set[int]] = []
    batcher = Batcher(16, lambda rows: seen.append({sampling.max_new_tokens for _, _, sampling, _ in rows}))
    target = ScriptedTarget(lambda c, mended: "ok")
    futures = [batcher.submit(target, Conversation.ask("x"), Sampling(1 + k % 2)) for k in range(12)]
    wait(futures, timeout=20)
    assert all(len(kinds) == 1 for kinds in seen)
    batcher.close()


def test_a_bad_image_fails_alone() -> None:
    batcher = Batcher(4)
    target = ScriptedTarget(lambda c, mended: "fine")
    images = [blank_image(8), Image(b"broken", "broken.png"), blank_image(8)]
    futures = [batcher.submit(target, Conversation.ask("x", image), Sampling()) for image in images]
    assert futures[0].result(10).text == futures[2].result(10).text == "fine"
    with pytest.raises(BadImage, match=r"broken\.png"):
        futures[1].result(10)
    batcher.close()


def test_replies_are_written_down_before_they_are_handed_on() -> None:
    written: list[Reply] = []
    batcher = Batcher(2, lambda rows: written.extend(row[3] for row in rows))
    reply = batcher.submit(ScriptedTarget(lambda c, mended: "kept"), Conversation.ask("x"), Sampling()).result(10)
    assert written == [reply]
    batcher.close()


def test_a_closed_batcher_refuses() -> None:
    batcher = Batcher(2)
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(ScriptedTarget(lambda c, mended: ""), Conversation.ask("x"), Sampling())


def test_the_oldest_request_sets_the_deadline() -> None:
    """It came at 10.000 s: at 10.015 s five of its 20 ms are left, whoever came in between."""
    target = ScriptedTarget(lambda c, mended: "ok")
    first, second = (batching._Job(target, Conversation.ask("x"), Sampling(), arrived=at) for at in (10.0, 10.015))
    assert batching.time_left([first, second], 10.015) == pytest.approx(0.005)
    assert batching.time_left([first, second], 10.5) == 0.0
    assert batching.time_left([], 10.5) is None


def test_a_steady_stream_cannot_hold_the_oldest_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request each 15 ms, by a clock that only arrivals move: the first batch is the first two."""
    clock = [0.0]
    target = Recording(lambda c, mended: "ok")
    batcher = Batcher(64)
    arrivals: list[float] = [0.0, 0.015, 0.030, 0.045]

    class Stream:
        def get(self, timeout: float | None = None) -> object:
            if not arrivals or (timeout is not None and arrivals[0] > clock[0] + timeout):
                raise queue.Empty
            clock[0] = max(clock[0], arrivals.pop(0))
            return batching._Job(target, Conversation.ask("x"), Sampling(), arrived=clock[0])

    monkeypatch.setattr(batching.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(batcher, "_queue", Stream())
    waiting: list[object] = []
    batcher._fill(waiting)  # type: ignore[arg-type]
    assert len(waiting) == 2


def test_choosing_a_batch_hashes_no_mend_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = Mend._serialised
    monkeypatch.setattr(Mend, "_serialised", lambda self: (calls.append(1), plain(self))[1])
    vlm = tiny_vlm()
    card = MendCard("m", {}, vlm.name, vlm.model_digest, "d", "", 0, {}, {}, "s")
    views = [vlm, vlm.with_mend(Mend((AddVector(Site("language", 0), torch.ones(32)),), card))]
    waiting = [batching._Job(views[k % 2], Conversation.ask("x"), Sampling()) for k in range(128)]
    batcher = Batcher(32)
    assert len(batcher._take(waiting)) == 32
    assert len(calls) <= 1
    batcher.close()
