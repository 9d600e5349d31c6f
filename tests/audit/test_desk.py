"""How requests are put to a target: once each, in batches, with what other runs already have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from vlmend.audit.desk import WINDOW, Desk, Request
from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import AddVector
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import SampleError, UsageError
from vlmend.testing import ScriptedTarget

GREEDY = Sampling(8)


def echo(conversation: Conversation, mended: bool) -> str:
    return ("mended " if mended else "") + conversation.prompt


def requests(*conversations: Conversation) -> list[Request]:
    return [Request(partial(lambda one: one, conversation), GREEDY) for conversation in conversations]


def mend(target: ScriptedTarget) -> Mend:
    """One that acts beside images only."""
    card = MendCard("m", {}, target.name, target.model_digest, "d", "d", 0, {}, {}, "")
    return Mend((AddVector(Site("language", 0), torch.ones(8), when="with_image"),), card)


def texts(found: list[Reply | SampleError]) -> list[str]:
    return [one.text if isinstance(one, Reply) else one.message for one in found]


def test_equal_requests_are_asked_once(tmp_path: Path) -> None:
    target = ScriptedTarget(echo)
    asked = [Conversation.ask("a"), Conversation.ask("b"), Conversation.ask("a")]
    assert texts(Desk(tmp_path).ask(target, requests(*asked))) == ["a", "b", "a"]
    assert len(target.asked.conversations) == 2


def test_a_request_that_no_mend_touches_is_asked_of_the_bare_model_and_taken_over_from_its_run(tmp_path: Path) -> None:
    target = ScriptedTarget(echo)
    text, seen = Conversation.ask("a"), Conversation.ask("a", noise_image(8, 0))
    Desk(tmp_path / "base").ask(target, requests(text, seen))
    view, before = target.with_mend(mend(target)), len(target.asked.conversations)
    found = Desk(tmp_path / "mended", reuse=[tmp_path / "base"]).ask(view, requests(text, seen))
    assert texts(found) == ["a", "mended a"]
    assert len(target.asked.conversations) - before == 1
    again = Desk(tmp_path / "mended").ask(view, requests(text, seen))  # the folder stands alone
    assert texts(again) == ["a", "mended a"]
    assert len(target.asked.conversations) - before == 1


def test_made_pictures_are_built_a_window_at_a_time(tmp_path: Path) -> None:
    built: list[int] = []
    answered: list[int] = []

    def build(k: int) -> Conversation:
        built.append(k)
        return Conversation.ask(f"question {k:03d}")

    def note(conversation: Conversation, mended: bool) -> str:
        answered.append(len(built))
        return "yes"

    many = [Request(partial(build, k), GREEDY) for k in range(3 * WINDOW)]
    Desk(tmp_path, batch=1).ask(ScriptedTarget(note), many)
    assert answered == [WINDOW] * WINDOW + [2 * WINDOW] * WINDOW + [3 * WINDOW] * WINDOW


def test_a_broken_picture_settles_its_own_request_only(tmp_path: Path) -> None:
    target = ScriptedTarget(echo)
    broken = Conversation.ask("a", Image(b"no image", "cut.png"))
    found = Desk(tmp_path).ask(target, requests(broken, Conversation.ask("b")))
    assert isinstance(found[0], SampleError)
    assert "cut.png" in found[0].message
    assert texts(found[1:]) == ["b"]


def test_what_does_not_fit_together_ends_the_run(tmp_path: Path) -> None:
    def refuses(conversation: Conversation, mended: bool) -> str:
        raise UsageError("No such setting.", "Choose another.")

    with pytest.raises(UsageError, match="No such setting"):
        Desk(tmp_path).ask(ScriptedTarget(refuses), requests(Conversation.ask("a")))


def test_progress_counts_every_request(tmp_path: Path) -> None:
    counts: list[int] = []
    asked = [Conversation.ask(str(k % 5)) for k in range(12)]
    Desk(tmp_path, batch=2).ask(ScriptedTarget(echo), requests(*asked), counts.append)
    assert sum(counts) == 12


def test_requests_are_drawn_when_their_turn_comes(tmp_path: Path) -> None:
    drawn: list[int] = []

    def coming() -> Iterator[Request]:
        for k in range(5 * WINDOW):
            drawn.append(k)
            yield from requests(Conversation.ask(f"number {k}"))

    replies = Desk(tmp_path, batch=1).each(ScriptedTarget(echo), coming())
    assert getattr(next(replies), "text", "") == "number 0"
    assert len(drawn) == WINDOW
    assert len(list(replies)) == 5 * WINDOW - 1
    assert drawn == list(range(5 * WINDOW))
