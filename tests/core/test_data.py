"""Sites, splits, images, mends and scorecards as data."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pixels

from vlmend.core.edits import AddVector
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.core.splits import split_of, word_fraction
from vlmend.errors import BadData, BadImage, BadParameter, MendMismatch, UsageError

CARD = MendCard("m", {"alpha": 1.0}, "model", "abc", "data", "def", 0, {}, {"language.0.resid_post": 0.1}, "here")


@given(
    stack=st.sampled_from(["vision", "projector", "language", "text"]),
    layer=st.integers(0, 200),
    point=st.sampled_from(["resid_post", "attn_out", "mlp_out"]),
)
def test_sites_read_what_they_print(stack: str, layer: int, point: str) -> None:
    site = Site(stack, layer, point)  # type: ignore[arg-type]
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize("text", ["language.1", "nose.1.resid_post", "language.x.resid_post", "language.1.resid_pre"])
def test_wrong_sites_are_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        Site.parse(text)


@given(st.text(min_size=1))
def test_splits_ignore_case_space_and_end_marks(text: str) -> None:
    assert word_fraction(f"  {text} ?! ") == word_fraction(text.rstrip(".?! ") + ".")
    assert split_of(text) in ("held_out", "validation", "anchor", "train")


def test_the_split_rule_is_the_one_of_the_shared_data() -> None:
    """printf "how are you" | sha256sum, first 8 hex digits."""
    assert word_fraction("How are you?") == int("0b9a11ae", 16) / 16**8


def test_transparency_is_laid_over_white() -> None:
    picture = Image.from_pixels(Pixels.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert picture.decode().getpixel((0, 0)) == (255, 255, 255)


def test_noise_is_seeded_and_blank_is_uniform() -> None:
    assert noise_image(8, 1).digest == noise_image(8, 1).digest != noise_image(8, 2).digest
    assert blank_image(8).decode().getcolors() == [(64, (255, 255, 255))]


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n broken", b"plain words"])
def test_what_is_no_image_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(BadImage, match="cat"):
        Image(content, "cat").decode()


def test_a_cut_off_jpeg_is_refused() -> None:
    buffer = io.BytesIO()
    Pixels.effect_noise((64, 64), 50).save(buffer, format="JPEG")
    with pytest.raises(BadImage, match="cut off"):
        Image(buffer.getvalue()[:700], "half").decode()


def test_a_data_uri_comes_back_whole() -> None:
    image = noise_image(4, 0)
    assert Image.from_data_uri(image.to_data_uri()).digest == image.digest
    with pytest.raises(BadImage):
        Image.from_data_uri("data:image/png;base64,@@@")


def mend(*values: float) -> Mend:
    return Mend((AddVector(Site("language", 0), torch.tensor(values), "last", "with_image"),), CARD)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.floats(-3, 3, width=32))
def test_scaling_scales_every_vector_and_the_dose(values: list[float], factor: float) -> None:
    scaled = mend(*values).scaled(factor)
    torch.testing.assert_close(scaled.edits[0].vector, torch.tensor(values) * factor)
    assert scaled.card.dose["language.0.resid_post"] == pytest.approx(0.1 * abs(factor))


def test_a_mend_survives_its_folder_and_its_digest_tells_contents(tmp_path: Path) -> None:
    one, other = mend(1.0, 2.0), mend(1.0, 2.5)
    one.save(tmp_path)
    loaded = Mend.load(tmp_path)
    assert loaded.digest == one.digest != other.digest
    assert (loaded.edits[0].tokens, loaded.edits[0].when) == ("last", "with_image")


def test_adding_mends_of_different_bases_is_refused() -> None:
    from dataclasses import replace

    assert len((mend(1.0) + mend(2.0)).edits) == 2
    with pytest.raises(MendMismatch):
        _ = mend(1.0) + Mend((), replace(CARD, model_digest="xyz"))


def test_a_folder_without_a_mend_and_a_later_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mend"):
        Mend.load(tmp_path)
    mend(1.0).save(tmp_path)
    manifest = json.loads((tmp_path / "mend.json").read_text())
    (tmp_path / "mend.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UsageError, match="format 99"):
        Mend.load(tmp_path)


def test_a_scorecard_survives_its_file_with_nan_and_all(tmp_path: Path) -> None:
    row = Measure("safety", "s", "n", "g", 0.5, 0.4, 0.6, 10, 1, "lower")
    empty = Measure("safety", "s", "n", "h", math.nan, math.nan, math.nan, 0, 3, "lower")
    card = Scorecard("m", (), 0, {"python": "3"}, (row, empty), {})
    card.save(tmp_path / "scorecard.json")
    loaded = Scorecard.load(tmp_path / "scorecard.json")
    assert loaded.rows[0] == row
    assert math.isnan(loaded.rows[1].value)
    assert "NaN" not in (tmp_path / "scorecard.json").read_text()
    keys = list(json.loads((tmp_path / "scorecard.json").read_text())["rows"][0])
    assert keys == [
        "axis", "suite", "name", "group", "value", "low", "high", "n", "unscored", "better", "hit", "judge",
        "agreement", "unit", "floor", "compared", "says", "against", "judged", "ceiling",
    ]  # fmt: skip


def test_ids_that_occur_twice_are_refused() -> None:
    with pytest.raises(BadData, match="1 ids that occur twice"):
        Dataset("d", (Example("a"), Example("b"), Example("a")))


@given(st.lists(st.tuples(st.text(max_size=8), st.dictionaries(st.text(max_size=3), st.text(max_size=3))), max_size=4))
def test_the_digest_of_words_is_that_of_the_rows_as_one_json_list(rows: list[tuple[str, dict[str, str]]]) -> None:
    examples = tuple(Example(f"{k}", words, attributes=more) for k, (words, more) in enumerate(rows))
    told = [[e.id, e.prompt, None, "", None, [], sorted(e.attributes.items()), [], False, 0] for e in examples]
    expected = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    assert Dataset("set", examples).digest_of_words == expected
