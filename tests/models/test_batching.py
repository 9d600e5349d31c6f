"""The batcher: company, order, and one bad image among good ones."""

from __future__ import annotations

from concurrent.futures import wait
from typing import ClassVar

import pytest

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.images import Image, blank_image
from vlmend.errors import BadImage
from vlmend.models.batching import Batcher
from vlmend.testing import ScriptedTarget


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
