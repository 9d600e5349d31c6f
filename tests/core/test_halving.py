"""The halves end at the bad item, the good ones are done, and what is nobody's fault is raised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.halving import by_halves


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_each_good_item_is_done_once_and_each_bad_one_is_told_alone(good: list[bool]) -> None:
    done: list[int] = []

    def work(items: list[int]) -> list[str]:
        for item in items:
            if not good[item]:
                raise ValueError(item)
        done.extend(items)
        return [f"done {item}" for item in items]

    found = by_halves([*range(len(good))], work, lambda problem: True, lambda item, problem: f"bad {item} {problem}")
    assert found == [f"done {k}" if fine else f"bad {k} {k}" for k, fine in enumerate(good)]
    assert sorted(done) == [k for k, fine in enumerate(good) if fine]


def test_what_is_no_items_fault_is_raised_at_once() -> None:
    asked: list[int] = []

    def work(items: list[int]) -> list[str]:
        asked.append(len(items))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        by_halves([1, 2, 3], work, lambda problem: isinstance(problem, ValueError), lambda item, problem: "")
    assert asked == [3]


def test_an_empty_batch_has_nobody_to_blame() -> None:
    def work(items: list[int]) -> list[str]:
        raise ValueError("nothing works")

    with pytest.raises(ValueError, match="nothing works"):
        by_halves([], work, lambda problem: True, lambda item, problem: "")
