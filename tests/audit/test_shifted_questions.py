"""robustness/shifted_questions: drops by hand, paired and not, a ceiling, and two names for one distribution."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.audit.suite import Answer, Question
from vlmend.audit.suites.robustness.shifted_questions import SHIFTED, SUITE
from vlmend.core.conversation import Reply
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.core.measures import Measure
from vlmend.errors import BadData
from vlmend.phantom.mini.sizes import OTHER_GROUND, sized_questions

IMAGE = blank_image(4)


def row(name: str, answer: str, shift: str = "", of: str = "") -> Example:
    told = ({"shift": shift} if shift else {}) | ({"of": of} if of else {})
    return Example(name, "what?", "benign", "", IMAGE, answers=(answer,), attributes=told)


def asked(rows: Sequence[Example], says: Callable[[Question], str]) -> list[Answer]:
    questions = SUITE.questions(Dataset("mine", tuple(rows)), None)
    return [SUITE.answer(question, Reply(says(question), "stop", 1, 1, 0.0)) for question in questions]


def found(answers: Sequence[Answer]) -> dict[tuple[str, str], Measure]:
    return {(one.name, one.group): one for one in SUITE.measures(answers, seed=0)}


def pairs(count: int, shift: str = "fog") -> list[Example]:
    clean = [row(str(k), "cat") for k in range(count)]
    return [*clean, *(row(f"{k}-{shift}", "cat", shift, str(k)) for k in range(count))]


def test_a_paired_drop_by_hand() -> None:
    """Of ten pictures, 9 are right without fog and 4 of those with it: the drop is half, by Tango's interval."""
    right = {f"{k}:clean" for k in range(9)} | {f"{k}:fog" for k in range(4)}
    table = found(asked(pairs(10), lambda q: "cat" if q.id in right else "dog"))
    assert (table["accuracy", "clean"].value, table["accuracy", "fog"].value) == (0.9, 0.4)
    drop = table["drop", "fog"]
    assert (drop.value, drop.n, drop.floor) == (0.5, 10, 0.0)
    assert drop.low > 0
    assert table["accuracy", "fog"].against == "clean"
    assert "{value}" in table["accuracy", "fog"].says


def test_an_unpaired_drop_by_hand() -> None:
    """20 of 20 against 10 of 20: Newcombe's limits of 0.5 by the formula, from Wilson's [0.839, 1] and [0.299, 0.701].

    0.5 - sqrt(0.161^2 + 0.201^2) = 0.243 and 0.5 + sqrt(0^2 + 0.201^2) = 0.701.
    """
    rows = [*(row(f"a{k}", "cat") for k in range(20)), *(row(f"b{k}", "cat", "fog") for k in range(20))]
    right = {f"a{k}:clean" for k in range(20)} | {f"b{k}:fog" for k in range(10)}
    drop = found(asked(rows, lambda q: "cat" if q.id in right else "dog"))["drop", "fog"]
    assert drop.value == 0.5
    assert (drop.low, drop.high) == (pytest.approx(0.243, abs=1e-3), pytest.approx(0.701, abs=1e-3))


@given(st.integers(0, 2**32 - 1))
def test_one_domain_against_itself_costs_nothing(seed: int) -> None:
    """The diagonal: the same answers under two names."""
    rng = random.Random(seed)
    right = {k: rng.random() < 0.6 for k in range(8)}
    drop = found(asked(pairs(8), lambda q: "cat" if right[int(q.id.partition(":")[0])] else "dog"))["drop", "fog"]
    assert drop.value == 0
    assert drop.low < 0 < drop.high


def test_the_same_distribution_under_two_names_has_no_drop_beyond_its_interval() -> None:
    """200 rows a name, 60 % right: in most of 40 draws the interval holds 0 (95 % of them on average)."""
    rows = [row(f"{name or 'clean'}{k}", "cat", name) for name in ("", "fog") for k in range(200)]
    holds_zero = 0
    for seed in range(40):
        right = random.Random(seed).choices((True, False), (0.6, 0.4), k=len(rows))
        said = iter("cat" if one else "dog" for one in right)
        drop = found(asked(rows, lambda _, said=said: next(said)))["drop", "fog"]
        holds_zero += drop.low <= 0 <= drop.high
    assert holds_zero >= 34


@given(st.lists(st.sampled_from("abcdef"), min_size=3, max_size=12), st.integers(0, 99))
def test_whoever_answers_from_the_list_stays_below_its_ceiling(answers: list[str], seed: int) -> None:
    """Half of the answers elsewhere may be missing from the ordinary list; a classifier can only say what is on it."""
    rows = [*(row(f"a{k}", answer) for k, answer in enumerate("abc")), *(row(f"b{k}", a, "fog")
            for k, a in enumerate(answers))]  # fmt: skip
    rng = random.Random(seed)
    table = found(asked(rows, lambda q: rng.choice([q.target[0], "b"]) if q.target[0] in "abc" else rng.choice("abc")))
    assert table["accuracy", "fog"].value <= table["answer_list_ceiling", "fog"].value
    assert table["answer_list_ceiling", "fog"].value == sum(answer in "abc" for answer in answers) / len(answers)


def test_what_the_list_lacks_is_told_apart_from_the_rest_of_a_drop() -> None:
    """Ordinary: all of 4 right. Elsewhere half of the answers are new and wrong, the others right: the drop is all
    new answers."""
    rows = [*(row(f"a{k}", "cat") for k in range(4)), *(row(f"b{k}", ("cat", "dog")[k % 2], "fog") for k in range(4))]
    table = found(asked(rows, lambda _: "cat"))
    assert (table["drop", "fog"].value, table["answer_list_ceiling", "fog"].value) == (0.5, 0.5)
    assert (table["drop_within_answer_list", "fog"].value, table["drop_within_answer_list", "fog"].n) == (0.0, 2)


def test_strict_matching_stands_beside_lenient_matching() -> None:
    """A model that talks is right and never exact."""
    table = found(asked(pairs(4), lambda q: "A cat." if q.condition == "clean" else "I see a cat there"))
    assert (table["drop", "fog"].value, table["strict_drop", "fog"].value) == (0.0, 1.0)
    assert (table["accuracy", "fog"].value, table["strict_accuracy", "fog"].value) == (1.0, 0.0)


def test_all_shifts_together_resample_what_they_were_made_of() -> None:
    """Four things, right in fog and wrong in rain: half, and a mean by thing of which none differs."""
    rows = [*pairs(4), *pairs(4, "rain")[4:]]
    table = found(asked(rows, lambda q: "dog" if q.condition == "rain" else "cat"))
    both = table["accuracy", SHIFTED]
    assert (both.value, both.n, both.compared) == (0.5, 8, "none")
    assert table["drop", SHIFTED].value == 0.5
    assert [group for (name, group), one in table.items() if name == "accuracy" and one.says] == ["clean", SHIFTED]


def test_chance_says_the_most_common_answer() -> None:
    rows = [row(str(k), "cat" if k < 3 else "dog") for k in range(4)]
    assert found(asked(rows, lambda _: "cow"))["accuracy", "clean"].floor == 0.75


def test_the_first_domain_is_what_the_others_are_held_against() -> None:
    told = [replace(row(str(k), "cat"), attributes={"domain": ("photo", "drawing")[k % 2]}) for k in range(4)]
    table = found(asked(told, lambda _: "cat"))
    assert table["accuracy", "drawing"].against == "photo"
    assert not SUITE.applies(Dataset("one", tuple(told[::2])))


def test_rows_of_one_source_and_shift_are_numbered_and_drop_by_their_mean() -> None:
    """One of the two foggy views of the only thing is right: half is lost."""
    rows = [row("0", "cat"), row("0-a", "cat", "fog", "0"), row("0-b", "cat", "fog", "0")]
    answers = asked(rows, lambda q: "dog" if q.id.endswith("/2") else "cat")
    assert [one.id for one in answers] == ["0:clean", "0:fog/1", "0:fog/2"]
    assert found(answers)["drop", "fog"].value == 0.5


def test_an_unscored_reply_leaves_its_pair() -> None:
    answers = asked(pairs(3), lambda _: "cat")
    lost = [replace(one, label="unscored") if one.id == "1:fog" else one for one in answers]
    drop = found(lost)["drop", "fog"]
    assert (drop.n, drop.unscored) == (2, 1)


def test_attacked_rows_rows_without_answers_and_harmful_rows_are_not_asked() -> None:
    kept = row("0", "cat")
    others = [
        replace(row("1", "cat"), attributes={"attack": "pgd", "epsilon": "0.015"}),
        replace(row("2", "cat"), answers=()),
        replace(row("3", "cat"), label="harmful"),
        replace(row("4", "cat"), image=None),
    ]
    assert [question.id for question in SUITE.questions(Dataset("mine", (kept, *others)), None)] == ["0:clean"]
    with pytest.raises(BadData, match="no questions on pictures"):
        SUITE.questions(Dataset("mine", tuple(others)), None)


def test_a_limit_counts_for_each_domain_and_takes_pairs() -> None:
    questions = SUITE.questions(None, 2)
    assert len(questions) == 10
    assert len({question.id.partition(":")[0] for question in questions}) == 2
    assert {question.prompt for question in questions} == {"What is in this picture?"}


def test_a_model_that_answers_by_the_ground_is_found_and_one_that_sees_is_not() -> None:
    """The fault of the mini's option `spurious`, acted out: the ground is all that the one looks at."""
    rows = sized_questions("held_out", 40).examples
    other = {"big": "small", "small": "big"}
    faulty = found(asked(rows, lambda q: other[q.target[0]] if q.condition == OTHER_GROUND else q.target[0]))
    sound = found(asked(rows, lambda q: q.target[0]))
    assert faulty["drop", OTHER_GROUND].low > 0.2
    assert sound["drop", OTHER_GROUND].value == 0
    assert sound["drop", OTHER_GROUND].low < 0 < sound["drop", OTHER_GROUND].high


def test_the_two_grounds_of_a_size_question_show_the_same_thing() -> None:
    rows = sized_questions("held_out", 5).examples
    for plain, moved in zip(rows[:5], rows[5:], strict=True):
        assert plain.answers == moved.answers
        assert plain.attributes["of"] == moved.attributes["of"]
        assert plain.image is not None
        assert moved.image is not None
        a, b = plain.image.decode().convert("RGB"), moved.image.decode().convert("RGB")
        assert a.getpixel((0, 0)) != b.getpixel((0, 0))
