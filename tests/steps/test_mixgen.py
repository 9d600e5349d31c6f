"""mixgen: pixel means and joined captions worked out by hand; nothing else is touched."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter
from vlmend.steps.robustness.mixgen import MixGen


def grey(level: int, side: int = 4) -> Image:
    return Image.from_pixels(PIL.Image.new("RGB", (side, side), (level, level, level)))


def pixels(row: Example) -> np.ndarray:
    assert row.image is not None
    return np.asarray(row.image.decode())


def pairs(count: int) -> Dataset:
    """Row k is a picture of level 10 k with the caption "thing k"."""
    rows = (Example(str(k), image=grey(10 * k), caption=f"thing {k}", answers=(f"t{k}",)) for k in range(count))
    return Dataset("pairs", tuple(rows))


def test_a_mixture_is_the_weighted_mean_of_two_pictures_with_both_captions() -> None:
    data = Dataset(
        "two", (Example("a", image=grey(200), caption="a cat"), Example("b", image=grey(0), caption="a dog"))
    )
    (one,) = MixGen(share=0.5, weight=0.75).apply(data, seed=0).changed
    mixed, other = (200 * 0.75, "a cat a dog") if one.before.id == "a" else (200 * 0.25, "a dog a cat"), one.after
    assert (pixels(other) == mixed[0]).all()
    assert other.caption == mixed[1]
    assert other.attributes == {"mixed_with": "b" if one.before.id == "a" else "a"}


def test_weight_one_leaves_pictures_and_still_joins_captions() -> None:
    for one in MixGen(share=0.5, weight=1).apply(pairs(6), seed=1).changed:
        assert (pixels(one.after) == pixels(one.before)).all()
        assert one.after.caption == f"{one.before.caption} thing {one.after.attributes['mixed_with']}"


def test_no_share_is_the_identity() -> None:
    edit = MixGen(share=0).apply(pairs(6), seed=0)
    assert (edit.changed, edit.data.digest) == ((), pairs(6).digest)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 9))
def test_each_row_is_mixed_at_most_once_and_partners_stay_unmixed(count: int, share: float, seed: int) -> None:
    # A row mixed in place over a permutation would be mixed with rows that are mixtures already.
    data = pairs(count)
    before = data.digest
    edit = MixGen(share=share).apply(data, seed=seed)
    mixed = {one.before.id for one in edit.changed}
    partners = {one.after.attributes["mixed_with"] for one in edit.changed}
    assert len(mixed) == len(partners) == int(share * count)
    assert not mixed & partners
    assert [row for row in edit.data.examples if row.id not in mixed] == [
        row for row in data.examples if row.id not in mixed
    ]
    for one in edit.changed:
        expected = (
            pixels(one.before).astype(float) + pixels(data.examples[int(one.after.attributes["mixed_with"])])
        ) / 2
        assert np.abs(pixels(one.after) - expected).max() <= 0.5
    assert data.digest == before


def test_what_is_true_of_both_rows_alone_stays() -> None:
    rows = tuple(
        Example(name, label="benign", group=group, image=grey(9), caption=name, answers=("x", name),
                attributes={"place": "here", "time": group})
        for name, group in (("a", "day"), ("b", "night"))
    )  # fmt: skip
    (one,) = MixGen(share=0.5).apply(Dataset("two", rows), seed=0).changed
    first, second = one.before.id, one.after.attributes["mixed_with"]
    assert (one.after.label, one.after.group, one.after.answers) == ("benign", "", ("x", first, second))
    assert one.after.attributes == {"place": "here", "mixed_with": second}


def test_a_partner_of_another_size_is_brought_to_the_size_of_the_first() -> None:
    rows = (Example("a", image=grey(100, 4), caption="a"), Example("b", image=grey(100, 9), caption="b"))
    (one,) = MixGen(share=0.5).apply(Dataset("two", rows), seed=0).changed
    assert pixels(one.after).shape == pixels(one.before).shape


def test_questions_and_rows_without_a_caption_are_no_pairs() -> None:
    asked = (
        Example("q", "what is it?", image=grey(1), caption="x"),
        Example("p", image=grey(1)),
        Example("t", "hello"),
    )
    with pytest.raises(BadData, match="set has 0 captioned pictures that can be mixed"):
        MixGen().apply(Dataset("set", asked), seed=0)
    edit = MixGen(share=0.5).apply(Dataset("set", (*pairs(4).examples, *asked)), seed=0)
    assert len(edit.changed) == 2
    assert edit.data.examples[4:] == asked


def test_a_picture_that_cannot_be_read_stays_and_is_counted() -> None:
    rows = (Example("a", image=grey(1), caption="a"), Example("b", image=Image(b"broken", "b"), caption="b"))
    edit = MixGen(share=0.5).apply(Dataset("two", rows), seed=0)
    assert (edit.changed, edit.data.examples) == ((), rows)
    assert edit.data.notes == ("1 rows stay unmixed: their picture or their partner's cannot be read.",)


def test_what_is_out_of_range_is_told_together() -> None:
    with pytest.raises(BadParameter, match=r"share=0.6: 0 to 0.5, since each mixture takes two rows; weight=2: 0 to 1"):
        MixGen(share=0.6, weight=2)
