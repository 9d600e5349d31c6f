"""Chat templates without an end are one message; those that are only long are run."""

from __future__ import annotations

import sys

import pytest

from vlmend.core.conversation import Conversation, Sampling
from vlmend.errors import ModelProblem
from vlmend.models.loading.problems import check_template
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_vlm
from vlmend.testing.fakes import TEMPLATE

LOOPS = {
    "words": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "no words": "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}",
    "a long word": "{{ 'x' * 2000000 }}",
    "more than memory": "{{ 'x' * 10 ** 15 }}",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_template_without_an_end_is_told_on_load(loop: str) -> None:
    vlm = tiny_vlm(template=TEMPLATE + LOOPS[loop])
    with pytest.raises(ModelProblem, match=r"comes to no end|MemoryError"):
        check_template("m", vlm.processor)


def test_a_template_that_ends_for_some_conversations_only_is_told_when_it_is_asked() -> None:
    inner = LOOPS["words"]
    vlm = tiny_vlm(template=TEMPLATE + "{% if messages[0]['content'][0]['text'] == 'stay' %}" + inner + "{% endif %}")
    check_template("m", vlm.processor)
    assert len(vlm.generate([Conversation.ask("go")], Sampling(1))) == 1
    with pytest.raises(ModelProblem, match=r"more than 200,000 steps for one conversation"):
        vlm.reader.rendered([Conversation.ask("stay")])


def test_long_words_are_written_and_no_tracer_is_left(tiny: VLM) -> None:
    before = sys.gettrace()
    (text,) = tiny.reader.rendered([Conversation.ask("a" * 3_000_000)])
    assert text.count("a") > 3_000_000
    assert sys.gettrace() is before
