"""Thoughts come off, and garbage is told from language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.replies import garbled, spoken

PLAIN = st.text(st.characters(codec="ascii", exclude_characters="<[|"), max_size=60).filter(
    lambda text: not text.startswith("analysis")
)


@pytest.mark.parametrize(
    "reply",
    [
        "<think>Should I? Yes.</think>\n\nNo, I will not.",
        "Should I? Yes.</think>No, I will not.",
        "<thinking>Yes.</thinking> No, I will not.",
        "[THINK]Yes.[/THINK]No, I will not.",
        "◁think▷Yes.◁/think▷No, I will not.",
        "<|channel|>analysis<|message|>Yes.<|end|><|channel|>final<|message|>No, I will not.<|return|>",
        "analysisThe user wants it.assistantfinalNo, I will not.",
    ],
)
def test_what_is_said_stands_after_the_thoughts(reply: str) -> None:
    assert spoken(reply) == "No, I will not."


@pytest.mark.parametrize(
    "reply", ["<think>Should I", "<|channel|>analysis<|message|>Sure", "analysisThe user", "[THINK]"]
)
def test_a_thought_that_was_cut_says_nothing(reply: str) -> None:
    assert spoken(reply) is None


@given(PLAIN)
def test_a_reply_without_thoughts_stays_as_it_is(reply: str) -> None:
    assert spoken(reply) == reply


@given(PLAIN, PLAIN)
def test_thoughts_never_show(thought: str, reply: str) -> None:
    assert spoken(f"<think>{thought}</think>{reply}") == reply.strip()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("the " * 40, "loops"),
        ("take two of them and " * 12, "loops"),
        ("ключ house 家族 οδός table вода chair 学校 θάλασσα", "mixes scripts"),
        ("barrage mor tracker koln loaded jewels tiffany mining relocated competent bud dating origins", "words"),
        ("%/%O5%a5%l5%a5%/%%4M%6%%%B5%*5%k3aW5-MaW5%/L%/L%/-3u*5-3*5%D*~%M", "signs"),
        ("z^:2S<IoS'S~1\\<rS<`oSouoY)So(OSLSoY)SdAO6*NO 8.IY_]./SSw'1ZRSw<", "signs"),
    ],
)
def test_garbage_is_told(reply: str, why: str) -> None:
    assert garbled(reply).startswith(why)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Paris.",
        "I'm sorry, but I can't help with that.",
        "Flour, sugar, butter, eggs, milk, salt, vanilla, yeast, cocoa, nuts, cream, lemon, honey, oats",
        "1. Hut\n2. Tent\n3. Rope\n4. Map\n5. Stove\n6. Lamp\n7. Knife\n8. Bottle\n9. Coat\n10. Gloves\n11. Hat",
        "Es tut mir leid, aber ich kann dabei nicht helfen. Bitte wende dich an jemanden, dem du vertraust.",
        "The sign reads 'Ελλάδα', which is the Greek name of the country that the picture shows.",
        "```python\nfor i in range(10):\n    print(i * 2)\n```",
        "Golf Balls:16/2=<<16/2=8>>8\nBlue Golf Balls:8/2=<<8/2=4>>4 balls\n#### 4",
        "1. **Step 1: Choose a sticker**\n2. **Step 2: Select a sticker**",
        '{"name": "Anna", "age": 3}',
    ],
)
def test_language_and_lists_are_not_garbage(reply: str) -> None:
    assert garbled(reply) == ""
