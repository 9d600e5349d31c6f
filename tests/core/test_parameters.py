"""Parameters from text: a fraction is a number where one is asked for, and nothing else is."""

from __future__ import annotations

import pytest

from vlmend.errors import BadParameter
from vlmend.registry import make_method, make_step


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), (" 8 / 255", 8 / 255), ("0.5", 0.5), ("1", 1.0)])
def test_a_fraction_is_a_number(text: str, value: float) -> None:
    assert make_method("fare", {"epsilon": text}).parameters["epsilon"] == value


@pytest.mark.parametrize("text", ["8/0", "a/b", "8/", "1/2/3"])
def test_what_is_no_fraction_is_refused_where_it_is_told(text: str) -> None:
    with pytest.raises(BadParameter, match="epsilon"):
        make_method("fare", {"epsilon": text})


def test_words_that_look_like_a_fraction_stay_words() -> None:
    assert make_step("pseudonymise", {"key": "4/255"}).parameters["key"] == "4/255"
    with pytest.raises(BadParameter, match="steps"):
        make_method("fare", {"steps": "8/4"})
