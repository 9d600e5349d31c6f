"""JSON text that strict parsers read."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vlmend.core.jsontext import plain, to_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


@given(VALUES)
def test_any_value_is_read_back_by_a_strict_parser(value: Any) -> None:
    assert json.loads(to_json(value), parse_constant=refuse) == plain(value)


@given(VALUES)
def test_finite_values_stay_and_others_are_null(value: Any) -> None:
    """Python's own text, read with its words for what JSON has not as null, is the slow way."""
    assert plain(value) == json.loads(json.dumps(value), parse_constant=lambda _: None)


def test_by_hand() -> None:
    assert plain({"a": (math.nan, 1.5), "b": [{"c": -math.inf}], "d": None}) == {
        "a": [None, 1.5], "b": [{"c": None}], "d": None,
    }  # fmt: skip
