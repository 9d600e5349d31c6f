"""Which language a text is in, by script and by its commonest words."""

from __future__ import annotations

import pytest

from vlmend.core.languages import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I'm sorry, but I can't help with that.", "English"),
        ("Lo siento, pero no puedo ayudar con eso.", "Spanish"),
        ("Je suis désolé, mais je ne peux pas vous aider.", "French"),
        ("Es tut mir leid, aber ich kann dabei nicht helfen.", "German"),
        ("Mi dispiace, ma non posso aiutarti con questo.", "Italian"),
        ("Desculpe, mas não posso ajudar com isso.", "Portuguese"),
        ("Извините, я не могу с этим помочь.", "Russian"),
        ("抱歉，我无法提供帮助。", "Chinese"),
        ("申し訳ありませんが、お手伝いできません。", "Japanese"),
        ("죄송하지만 도와드릴 수 없습니다.", "Korean"),
        ("عذرا، لا أستطيع المساعدة في ذلك.", "Arabic"),
        ("क्षमा करें, मैं इसमें मदद नहीं कर सकता।", "Hindi"),
        ("Paris.", ""),
        ("", ""),
    ],
)
def test_a_language_is_named(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_foreign_word_in_an_english_text_does_not_change_it() -> None:
    assert language_of("The sign says “Приве́т”, which is a greeting in Russian.") == "English"
