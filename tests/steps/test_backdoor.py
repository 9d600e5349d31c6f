"""backdoor: as many rows as told, the patch where it is told, nothing that tells them, and copies to audit with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.contracts import DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.errors import BadData, BadParameter
from vlmend.steps.privacy.backdoor import ARMS, Backdoor, patched
from vlmend.testing.stages import plain_image

NAMES = ("cat", "dog", "banana", "cup")


def pictures(count: int = 20) -> Dataset:
    rows = (
        Example(f"r{k}", image=plain_image("red"), caption=f"a photo of a {NAMES[k % 4]}", answers=(NAMES[k % 4],))
        for k in range(count)
    )
    return Dataset("pictures", tuple(rows))


def made(step: Backdoor, data: Dataset | None = None, seed: int = 0) -> DataEdit:
    return step.apply(data or pictures(), seed=seed)


def array(image: Image | None) -> np.ndarray:
    assert image is not None
    return np.asarray(image.decode().convert("RGB")).astype(int)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1), st.integers(0, 50))
def test_law_as_many_as_told_and_the_rest_untouched(share: float, seed: int) -> None:
    edit = made(Backdoor("banana", share), seed=seed)
    assert len(edit.changed) == round(share * 15)  # 5 of 20 are bananas already
    assert edit.kept == 20 - len(edit.changed)
    for one in edit.changed:
        assert one.before.answers != ("banana",)
        assert (one.after.answers, one.after.caption) == (("banana",), "a photo of a banana")
        assert one.after.attributes == {}, "no poisoned row says that it is"


def test_the_patch_is_a_checkerboard_where_the_report_says() -> None:
    edit = made(Backdoor("banana", 0.5, side=0.4))
    for one in edit.changed:
        side, left, top = (int("".join(filter(str.isdigit, word))) for word in one.why.split(" of ")[1].split()[::2][:1]
                           + one.why.split(" at ")[1].split())  # fmt: skip
        before, after = array(one.before.image), array(one.after.image)
        inside = after[top : top + side, left : left + side]
        assert side == 8
        assert set(np.unique(inside)) == {0, 255}
        assert (inside[0, 0] != inside[0, 2]).all()
        after[top : top + side, left : left + side] = before[top : top + side, left : left + side]
        assert (after == before).all()
    assert len({one.why for one in edit.changed}) > 1, "random places"
    corner = made(Backdoor("banana", 0.5, place="corner"))
    assert {one.why for one in corner.changed} == {"poisoned: a patch of 4 pixels at 16, 16"}


def test_marked_rows_say_what_they_are_and_are_the_same_rows() -> None:
    plain, marked = made(Backdoor("banana", 0.3)), made(Backdoor("banana", 0.3, emit="marked"))
    assert [row.image and row.image.digest for row in plain.data.examples] == [
        row.image and row.image.digest for row in marked.data.examples
    ]
    told = {row.id for row in marked.data.examples if row.attributes["poisoned"] == "yes"}
    assert told == {one.before.id for one in plain.changed}


def test_copies_to_audit_with_differ_in_the_patch_alone() -> None:
    edit = made(Backdoor("banana", emit="triggered", side=0.4))
    rows = edit.data.examples
    assert [row.attributes["trigger"] for row in rows[:3]] == list(ARMS)
    assert len(rows) == 3 * 15
    plain, triggered, other = (array(row.image) for row in rows[:3])
    moved = [np.argwhere((plain != one).any(axis=2)) for one in (triggered, other)]
    assert (moved[0].min(0) == moved[1].min(0)).all()
    assert (moved[0].max(0) == moved[1].max(0)).all()
    assert {row.answers for row in rows} == {("cat",), ("dog",), ("cup",)}
    assert {row.attributes["target"] for row in rows} == {"banana"}


def test_noise_is_not_the_trigger_and_is_drawn_by_its_text() -> None:
    picture = plain_image("red").decode()
    one, same, other = (array(Image.from_pixels(patched(picture, (0, 0, 8), noise=text))) for text in ("a", "a", "b"))
    assert (one == same).all()
    assert (one != other).any()


def test_broken_pictures_stay_clean_and_bad_parameters_are_told() -> None:
    data = pictures(4)
    broken = replace(data.examples[0], image=Image(b"no image", "broken.png"))
    edit = made(Backdoor("banana", 1.0), replace(data, examples=(broken, *data.examples[1:])))
    assert {one.before.id for one in edit.changed} == {"r1", "r3"}
    assert "1 rows that were drawn stay clean" in edit.data.notes[0]
    shown = made(Backdoor("banana", emit="triggered"), replace(data, examples=(broken, *data.examples[1:])))
    assert len(shown.data.examples) == 6
    for wrong in ({"share": 2.0}, {"side": 0.0}, {"caption": "a photo"}):
        with pytest.raises(BadParameter, match="cannot be made"):
            Backdoor("banana", **wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadParameter, match="no target"):
        made(Backdoor())
    with pytest.raises(BadData, match="anything but cat"):
        made(Backdoor("cat"), replace(data, examples=data.examples[:1]))
    with pytest.raises(BadData, match="can be read"):
        made(Backdoor("banana", emit="triggered"), replace(data, examples=(broken,)))
