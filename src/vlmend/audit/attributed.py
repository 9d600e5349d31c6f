"""What the suites of attribution share: samples with the numbers of a map, their rows, and the curves of its checks.

Each picture has a person in a known place. The share of a map that lies there stands beside the person's share of the
picture, a map of the centre, which needs no model, and the map of the same model with shuffled weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmend.audit.explaining.checks import HIDDEN, faithful, place_values, sanity_values, shuffled
from vlmend.audit.explaining.maps import COMPLETE, heat_of
from vlmend.audit.explaining.shown import Explainable, shown
from vlmend.audit.gaps import gap_row
from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.people import cluster_of, group_of, told_groups
from vlmend.core.contracts import AbstractSuite, Sample
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.measures import Better, Curve, Measure, Point, Unit
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.targets import problem_of
from vlmend.errors import BadData, BadImage
from vlmend.pictures.regions import BOX

__all__ = ["attributed_samples", "attribution_curves", "attribution_rows", "placed_rows", "some_people"]

JUDGE = "integrated gradients"
NOBODY = "no group"

ROWS: dict[str, tuple[Better, Unit]] = {
    "share": ("neither", "share"), "over_centre": ("higher", "share"), "over_shuffled": ("higher", "share"),
    "pointed": ("neither", "share"), "complete": ("higher", "share"), "correlation": ("neither", "number"),
    "deletion_gain": ("higher", "number"), "insertion_gain": ("higher", "number"),
}  # fmt: skip
"""What each picture has numbers of; by chance the last ones are 0."""

SAYS = "has {{value}} of what speaks for its texts on the person ({})"
GAP = "share_gap"

DRAWN = ("deleted", "at_random", "inserted")
X, Y = "share of the picture", "share of the score"
NOTE = (
    "The score of the whole picture is 100 %, that of its mean colour 0. In the order of a map that "
    "marks what counts it falls faster than in a random one, and rises faster where cells are put back."
)


def some_people(data: Dataset, most: int) -> Dataset:
    """So many built-in people at most: as many of each group, evenly spread."""
    groups = list(dict.fromkeys(row.group for row in data.examples))
    of_each = [spread([row for row in data.examples if row.group == one], most // len(groups)) for one in groups]
    return replace(data, examples=tuple(row for rows in of_each for row in rows))


def placed_rows(data: Dataset) -> list[Example]:
    """Rows that may say where the person is: with a box, or with a further picture, which may be a mask."""
    return [row for row in data.examples if row.image is not None and (BOX in row.attributes or row.more_images)]


def attributed_samples(target: Explainable, data: Dataset, limit: int | None, seed: int) -> list[Sample]:
    """The map of each picture and what it is worth, as numbers.

    Raises:
        BadData: No row says where the person is.
        MissingExtra: captum is not installed.
        ModelProblem: No map can be made of this model.
    """
    told = told_groups(data)
    rows = placed_rows(told)
    if not rows:
        raise BadData(
            f"{data.name} has {len(data.examples)} rows, and none says where the person is.",
            f'Pass rows with image, a caption or answers, and "attributes": {{"{BOX}": "left upper right lower"}} in '
            "pixels, or the person's mask as a further image (white on black).",
        )
    groups = dict.fromkeys(map(_group, rows))
    chosen = [row for group in groups for row in [one for one in rows if _group(one) == group][:limit]]
    blind = shuffled(target, seed)
    return [_sample(target, blind, row, seed) for row in chosen]


def attribution_rows(suite: AbstractSuite[Sample], samples: Sequence[Sample], seed: int) -> list[Measure]:
    """The means of each group, and how far the shares on the person lie apart between groups."""
    groups = list(dict.fromkeys(sample.group for sample in samples))
    rows = [
        mean_row(suite.axis, suite.name, name, group, samples, better, unit, seed, judge=JUDGE,
                 says=SAYS.format(_plain(group)) if name == "share" else "")
        for group in groups
        for name, (better, unit) in ROWS.items()
    ]  # fmt: skip
    known = [sample for sample in samples if sample.group != NOBODY]
    gap = gap_row(suite, GAP, " and ".join(dict.fromkeys(one.group for one in known)), known, "share", seed)
    return rows if gap is None else [*rows, replace(gap, judge=JUDGE)]


def attribution_curves(suite: str, samples: Sequence[Sample]) -> list[Curve]:
    """How the score falls and comes back in the order of the maps and in a random one; none where nothing is explained.

    Shares are of the mean change of all pictures.
    """
    known = [sample for sample in samples if sample.values]
    change = sum(one.values["deleted_0"] - one.values[f"deleted_{len(HIDDEN) - 1}"] for one in known)
    if not known or change <= 0:
        return []
    points = {name: _points(name, known, change / len(known)) for name in DRAWN}
    hidden, back = "score while it is hidden", "score while it is put back"
    drawn = [
        (hidden, "as the maps rank", points["deleted"]), (hidden, "at random", points["at_random"]),
        (back, "as the maps rank", points["inserted"]), (back, "at random", _mirrored(points["at_random"])),
    ]  # fmt: skip
    return [Curve(suite, title, name, X, Y, line, NOTE) for title, name, line in drawn]


def _sample(target: Explainable, blind: Explainable, row: Example, seed: int) -> Sample:
    """The numbers of one picture; none where it cannot be read, or says nothing of the person's place."""
    found = Sample(row.id, _group(row), cluster_of(row), row.caption or row.prompt or row.id)
    try:
        problem = problem_of(target, replace(row, more_images=()))
        if problem:
            return replace(found, reason=problem)
        seen = shown(target, row)
        if seen.region is None or not seen.region.any():
            return replace(found, reason="Nothing of the person lies in what the model sees, or there is no mask.")
    except BadImage as bad:
        return replace(found, reason=bad.message)
    heat = heat_of(target, seen, "integrated_gradients")
    placed = place_values(seen, heat)
    if not placed:
        return replace(found, text=seen.text, reason="Nothing in the picture speaks for the text.")
    random_heat = heat_of(blind, shown(blind, row, seen.text), "integrated_gradients", steps=heat.steps)
    sane = sanity_values(seen, heat, random_heat)
    curves = faithful(seen, heat, seed)
    values = {
        "share": placed["share"], f"share{FLOOR}": placed["area"], "pointed": placed["pointed"],
        f"pointed{FLOOR}": placed["area"], "over_centre": placed["share"] - placed["centre"],
        "complete": float(heat.error <= COMPLETE), **curves.values,
    }  # fmt: skip
    values |= {"correlation": sane["correlation"]} if "correlation" in sane else {}
    if "share_shuffled" in sane:
        values["over_shuffled"] = placed["share"] - sane["share_shuffled"]
    by_chance = ("over_centre", "over_shuffled", "correlation", "deletion_gain", "insertion_gain")
    values |= {f"{name}{FLOOR}": 0.0 for name in by_chance if name in values}
    drawn = {f"{name}_{k}": value for name in DRAWN for k, value in enumerate(getattr(curves, name))}
    return replace(found, text=seen.text, values=values | drawn)


def _points(name: str, samples: Sequence[Sample], change: float) -> tuple[Point, ...]:
    found: list[Point] = []
    for k, share in enumerate(HIDDEN):
        left = [(s.values[f"{name}_{k}"] - s.values[f"deleted_{len(HIDDEN) - 1}"]) / change for s in samples]
        found.append(Point(share, *mean_interval(left, [s.cluster for s in samples], seed=0), len(samples)))
    return tuple(found)


def _mirrored(points: Sequence[Point]) -> tuple[Point, ...]:
    """What is hidden at random as what is shown at random."""
    return tuple(replace(point, x=1 - point.x) for point in reversed(points))


def _plain(group: str) -> str:
    """A group's name in a sentence that has a place for a value: braces of its own are none."""
    return group.replace("{", "{{").replace("}", "}}")


def _group(row: Example) -> str:
    return group_of(row) or NOBODY
