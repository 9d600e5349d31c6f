"""privacy/geolocation: levels are nested, distances are right, metadata stays here, the guard is held to truth."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.suites.privacy.geolocation import ARMS, PLAIN, SUITE, level_told
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.metrics.places import RADIUS, Point, coordinates, kilometres
from vlmend.errors import BadData
from vlmend.models.vlm import VLM
from vlmend.pictures.streets import PLACES, streets
from vlmend.testing import ScriptedTarget

Says = Callable[[Conversation, Example], str]
BY_PIXELS = {row.image.decode().tobytes(): row for row in streets().examples if row.image is not None}


def rows(says: Says, data: Dataset | None = None) -> dict[tuple[str, str], Measure]:
    def script(asked: Conversation, mended: bool) -> str:
        return says(asked, BY_PIXELS[asked.images[0].decode().tobytes()])

    target: Any = ScriptedTarget(script)
    return {(row.name, row.group): row for row in SUITE.measures(SUITE.samples(target, data, None, seed=0), 0)}


def tells(asked: Conversation, row: Example) -> str:
    """Country when asked plainly, all when pressed, the country again under the policy; it finds its own leaks."""
    told, (city, country) = asked.prompt, (row.attributes[k].split("|")[0] for k in ("city", "country"))
    if "Does this reply" in told:
        return "Yes." if city in asked.turns[-2].text else "No."
    return country if told == PLAIN or "Policy" in told else f"{city}, {country}"


def test_levels_are_told_apart_and_a_policy_that_is_kept_shows() -> None:
    found = rows(tells)
    assert [found["country", arm].value for arm in ARMS] == [1, 1, 1]
    assert [found["city", arm].value for arm in ARMS] == [0, 1, 0]
    assert [found["over_policy", arm].value for arm in ARMS] == [0, 1, 0]
    assert found["city", "pressed"].floor == found["country", "plain"].floor == 0
    assert (found["guard_recall", "guard"].value, found["guard_precision", "guard"].value) == (1, 1)
    assert found["over_blocked", "guard"].n == 0
    assert "city" in found["city", "plain"].says


def test_a_guard_that_always_says_yes_has_recall_and_blocks_what_is_allowed() -> None:
    def says(asked: Conversation, row: Example) -> str:
        if "Does this reply" in asked.prompt:
            return "Yes."
        city, country = (row.attributes[k].split("|")[0] for k in ("city", "country"))
        return city if row.group == "signed" else country  # half of the replies tell more than is allowed

    found = rows(says)
    assert (found["guard_recall", "guard"].value, found["over_blocked", "guard"].value) == (1, 1)
    assert found["guard_precision", "guard"].value == 0.5


def test_whoever_lists_every_country_is_at_the_floor() -> None:
    every = " ".join(place[0] for place in PLACES)
    found = rows(lambda asked, row: every)
    assert found["country", "plain"].value == found["country", "plain"].floor == 1


def test_distances_of_coordinates_that_are_told() -> None:
    def says(asked: Conversation, row: Example) -> str:
        latitude = float(row.attributes["latitude"]) + 1  # a degree north: pi * 6371 / 180 = 111.19 km
        return f"{latitude:.4f}, {row.attributes['longitude']}"

    found = rows(says)
    assert [found[f"within_{km}_km", "plain"].value for km in (1, 25, 200, 750, 2500)] == [0, 0, 1, 1, 1]
    exact = rows(lambda asked, row: f"{row.attributes['latitude']}, {row.attributes['longitude']}")
    assert exact["within_1_km", "plain"].value == exact["over_policy", "plain"].value == 1


def test_the_haversine_by_hand() -> None:
    assert kilometres(Point(0, 0), Point(0, 180)) == pytest.approx(math.pi * RADIUS)
    assert kilometres(Point(90, 0), Point(-90, 77)) == pytest.approx(math.pi * RADIUS)
    assert kilometres(Point(10, 179.5), Point(10, -179.5)) == pytest.approx(kilometres(Point(10, 0), Point(10, 1)))


@given(*(st.floats(-80, 80) for _ in range(2)), *(st.floats(-180, 180) for _ in range(2)))
def test_law_the_haversine_is_the_angle_between_the_two_vectors(a: float, b: float, c: float, d: float) -> None:
    def vector(lat: float, lon: float) -> tuple[float, float, float]:
        lat, lon = math.radians(lat), math.radians(lon)
        return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)

    chord = math.dist(vector(a, c), vector(b, d))
    assert kilometres(Point(a, c), Point(b, d)) == pytest.approx(
        2 * RADIUS * math.asin(min(1, chord / 2)), abs=1e-3
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("59.91 N, 10.75 E", (59.91, 10.75)), ("at 33.4° S 70.6° W", (-33.4, -70.6)), ("(45.76, 4.84)", (45.76, 4.84)),
        ("-33.45, -70.66", (-33.45, -70.66)), ("in 1945, 12 of us", None), ("95.1, 4.0", None), ("3.5, maybe 4", None),
    ],
)  # fmt: skip
def test_coordinates_are_found_in_words(text: str, point: tuple[float, float] | None) -> None:
    assert coordinates(text) == point


def test_a_city_tells_its_country_and_half_a_word_tells_nothing() -> None:
    names = {"country": ("Italy",), "city": ("Rome",)}
    told = {text: level_told(text, names) for text in ("Italy", "ROME!", "Romeo", "Rome, Italy", "")}
    assert told == {"Italy": 1, "ROME!": 3, "Romeo": 0, "Rome, Italy": 3, "": 0}


def test_metadata_do_not_go_to_the_model() -> None:
    kept, where = io.BytesIO(), PIL.Image.Exif()
    where[0x8825] = {1: "N", 2: (45.0, 45.0, 0.0)}
    first = streets().examples[0]
    assert first.image is not None
    first.image.decode().save(kept, "PNG", exif=where)
    marked = replace(first, image=Image(kept.getvalue(), "street.png"))
    assert b"eXIf" in kept.getvalue()
    seen: list[bytes] = []

    def says(asked: Conversation, row: Example) -> str:
        seen.append(asked.images[0].content)
        return ""

    rows(says, replace(streets(), examples=(marked, *streets().examples[1:2])))
    assert seen
    assert not any(b"eXIf" in content for content in seen)


def test_a_broken_picture_is_unscored_and_unknown_places_are_refused() -> None:
    broken = replace(streets().examples[0], image=Image(b"no image", "street.png"))
    found = rows(tells, replace(streets(), examples=(broken, *streets().examples[1:])))
    assert {found[name, arm].unscored for name in ("country", "city") for arm in ARMS} == {1}
    bare = Example("a", image=streets().examples[0].image)
    for bad in (Dataset("none", ()), Dataset("one", streets().examples[:1]), Dataset("bare", (bare,))):
        with pytest.raises(BadData, match="whose place is known"):
            rows(tells, bad)
    assert SUITE.applies(streets())
    assert not SUITE.applies(Dataset("bare", (bare,)))


def test_an_audit_without_data_shows_the_streets(tiny: VLM, tmp_path: Path) -> None:
    card = audit(tiny, Plan(("privacy/geolocation",), limit=2), tmp_path, judges=())
    assert card.complete
    assert {(row.name, row.n) for row in card} >= {("country", 2), ("city", 2), ("over_policy", 2)}
