"""phantom-mini's questions as a data set: kinds, splits, words, and the name they are read by."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

import vlmend.phantom.mini.questions as module
from vlmend.core.images import Image
from vlmend.phantom.mini.parts import vocabulary
from vlmend.phantom.mini.questions import QUESTIONS, questions

ROOT = Path(__file__).parents[3]


def test_a_hundred_questions_of_five_kinds_always_the_same() -> None:
    found = questions()
    counts = Counter(row.group for row in found.examples)
    assert set(counts) == {"colour", "shape", "count", "presence", "place"}
    assert sum(counts.values()) == 100
    assert min(counts.values()) >= 15
    assert len({row.id for row in found.examples}) == 100
    assert found.digest == questions().digest


def test_every_word_is_one_that_a_mini_knows_and_answers_say_what_was_asked() -> None:
    known = set(vocabulary())
    for row in questions().examples:
        words = f"{row.prompt} {row.answers[0]}".replace("?", " ?").replace(".", " .").split()
        assert set(words) <= known
        assert isinstance(row.image, Image)
        assert row.image.decode().size == (32, 32)


def test_scenes_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = module.scene
    monkeypatch.setattr(module, "scene", lambda split, rng: asked.append(split) or plain(split, rng))
    questions()
    assert set(asked) == {"held_out"}


def test_it_is_read_by_name() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vlmend.data"]
    first = QUESTIONS[0]
    assert told[first.name] == "vlmend.phantom.mini.questions:QUESTIONS"
    assert first.made is not None
    assert first.made().digest == questions().digest
