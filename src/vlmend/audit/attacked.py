"""What suites about attacked rows share: their groups, the view attacked by itself, and how accuracy is told."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from vlmend import registry
from vlmend.attacks.wording import at_random
from vlmend.audit.means import FLOOR, mean_row
from vlmend.core.attack_notes import stood_still
from vlmend.core.attacks import ATTACK, WORDS, Budget, attributes_of_attack, random_signs
from vlmend.core.budget import as_seen
from vlmend.core.cautions import RISE
from vlmend.core.contracts import Sample
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Image
from vlmend.core.measures import Axis, Curve, Measure, Point
from vlmend.core.metrics.stats import paired_difference
from vlmend.core.splits import word_fraction
from vlmend.core.targets import Kind, Target, check_access
from vlmend.errors import BadData, NeedsAccess, SampleError
from vlmend.pictures.galleries import PHOTO

__all__ = [
    "CLEAN",
    "NOISE",
    "OF_SHIFT",
    "READERS",
    "TOLD",
    "attacked_by_itself",
    "curves_of",
    "group_of",
    "grouped",
    "measures_of",
    "scored",
]

OWN = "pgd"
"""The attack of a suite that has no data."""

READERS: Mapping[Kind, str] = {"dual": "robustness/adversarial", "chat": "robustness/attacked_questions"}
"""The suite of each kind that reads attacked rows."""

CLEAN, NOISE = "clean", "noise"
OF_SHIFT = ": "
"""Stands between the shift of pictures and what was done to them."""

STILL = "no step was made: loss or gradient was no finite number, or the gradient was 0 everywhere"
"""Why a row that was to be attacked has no score."""

ACCURACY = "accuracy"

X = "largest change of a pixel, in steps of 1/255"
NOTE = "Noise: random signs as large as the attack. An attack under which accuracy rises with its size did not work."

TOLD = 4
"""Near which epsilon the first sentence about a run tells, in steps of 8 bits."""


def group_of(row: Example) -> str:
    """`clean` or the shift, or the attack that made a row and what it might change.

    `pgd 4/255`, `text_swap 2 words`; of a picture under a shift `fog 3: pgd 4/255`.
    """
    told, shift = attributes_of_attack(row), row.attributes.get("shift", "")
    if not told:
        return shift or CLEAN
    named = _named(told[ATTACK], *_size(row), 0)
    return f"{shift}{OF_SHIFT}{named}" if shift else named


def _size(row: Example) -> tuple[int, int]:
    """How much an attack was allowed to change: steps of 8 bits, and words; 0 of a row that none made.

    Raises:
        BadData: The row tells neither, or something else.
    """
    told = attributes_of_attack(row)
    if not told:
        return 0, 0
    try:
        epsilon, words = Fraction(told.get("epsilon", "0")), int(told.get(WORDS, "0"))
    except (ValueError, ZeroDivisionError):
        epsilon, words = Fraction(-1), 0
    if not 0 <= epsilon <= 1 or words < 0 or not {"epsilon", WORDS} & told.keys():
        raise BadData(
            f"{row.id} has the attack {told[ATTACK]!r}, epsilon {told.get('epsilon', 'untold')} and words "
            f"{told.get(WORDS, 'untold')}.",
            'An attacked row says "epsilon" as a share of black to white, "4/255" or "0.0157", or "words" as a number.',
        )
    return round(epsilon * 255), words


def grouped(rows: Sequence[Example], data: Dataset, limit: int | None) -> list[tuple[str, Example]]:
    """The first rows of each group, group by group.

    A group is a `group_of`; where an attack went on for different numbers of steps, they stand in its name. Where the
    clean rows are there too, they are groups of their own once more, changed as much at random.

    Raises:
        BadData: No attack made any of them.
    """
    if not any(attributes_of_attack(row) for row in rows):
        raise BadData(
            f"{data.name} has no row that an attack made.",
            "Pass the folder that vlmend attack wrote, or no data: the suite then attacks the model itself.",
        )
    lengths: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        lengths[group_of(row)].add(row.attributes.get("steps", ""))
    held: defaultdict[str, list[Example]] = defaultdict(list)
    for row in rows:
        group, steps = group_of(row), row.attributes.get("steps", "")
        held[f"{group}, {steps} steps" if steps and len(lengths[group]) > 1 else group].append(row)
    for row in _at_random(rows):
        held[group_of(row)].append(row)
    return [(group, row) for group in sorted(held, key=_order) for row in held[group][:limit]]


def _at_random(rows: Sequence[Example]) -> list[Example]:
    """Clean rows changed as much as an attack might have changed them, without aim; each size once."""
    clean = {row.id: row for row in rows if not attributes_of_attack(row)}
    found: dict[tuple[str, int, int], Example] = {}
    for row in rows:
        size, of = _size(row), row.attributes.get("of", row.id)
        if any(size) and of in clean and (of, *size) not in found:
            try:
                found[of, *size] = _changed(clean[of], row, *size)
            except SampleError:
                continue  # the pictures are rows themselves, and unscored by name
    return list(found.values())


def _changed(clean: Example, attacked: Example, epsilon: int, words: int) -> Example:
    """Random signs at the size at which the picture was attacked, and words changed at random."""
    seed = int(word_fraction(f"{clean.id} {epsilon} {words}") * 2**32)
    told = {ATTACK: NOISE, "epsilon": f"{epsilon / 255:.6g}", "of": clean.id} | ({WORDS: str(words)} if words else {})
    told |= {"shift": shift} if (shift := clean.attributes.get("shift", "")) else {}
    made = replace(clean, id=f"{clean.id}@{NOISE} {epsilon} {words}", attributes=told)
    if words:
        made = replace(made, prompt=at_random(clean.prompt or PHOTO.format(clean.answers[0]), words, seed))
    if epsilon and clean.image is not None and attacked.image is not None:
        picture = as_seen(clean.image.decode(), attacked.image.decode())
        made = replace(made, image=Image.from_pixels(picture, clean.image.name))
        made = random_signs(made, Budget(epsilon / 255), seed)
    return made


def attacked_by_itself(
    subject: Target, data: Dataset, epsilons: Sequence[int], steps: int, limit: int, floor: float | None, seed: int
) -> list[Sample]:
    """The pictures as an attack on this very view left them, judged by it, beside clean ones and random signs.

    Args:
        subject: The view, mends included.
        data: What is attacked.
        epsilons: In steps of 8 bits.
        steps: Of the attack.
        limit: Pictures, evenly spread.
        floor: What a guess gets right; None where that is not known.
        seed: Of the attack.

    Raises:
        NeedsAccess: The view gives no gradients.
    """
    attack: Any = registry.make_attack(OWN, {})
    try:
        check_access(subject, OWN, attack.works_on, attack.needs)
    except NeedsAccess as problem:
        hint = "Pass --data with what vlmend attack made of another model: to be asked about that takes no gradients."
        raise NeedsAccess(problem.message, hint) from None
    found: list[Sample] = []
    chosen = spread([row for row in data.examples if attack.wants(row)], limit)
    for place, epsilon in enumerate(epsilons):
        made = attack.run(subject, data, Budget(epsilon / 255, steps), seed=seed, limit=limit)
        conditions = {**({} if place else {CLEAN: CLEAN}), NOISE: f"{NOISE} {epsilon}/255"}
        for row in made.examples:
            told = attributes_of_attack(row)
            for what, group in (*conditions.items(), ("attacked", f"{OWN} {epsilon}/255")):
                found.append(scored(group, row, told[what] == "right", floor))
        kept = {row.id for row in made.examples}
        groups = [*conditions.values(), f"{OWN} {epsilon}/255"]
        found += [scored(group, row, made.notes[-1], floor) for row in chosen if row.id not in kept for group in groups]
    return found


def scored(group: str, row: Example, found: bool | str, floor: float | None) -> Sample:
    """A row as a sample: right, wrong, or why it has no score; `floor` is what a guess gets right, if known.

    A row on which an attack made no step was not attacked, and has no score under it.
    """
    name, of = f"{row.id}@{group}", row.attributes.get("of", row.id)
    if stood_still(row) and _aimed(group):
        found = STILL
    if isinstance(found, str):
        return Sample(name, group, of, row.answers[0], reason=found)
    chance = {} if floor is None else {f"accuracy{FLOOR}": floor}
    return Sample(name, group, of, row.answers[0], {"accuracy": float(found), **chance})


def measures_of(
    axis: Axis, suite: str, samples: Sequence[Sample], seed: int, *, judge: str, says: str
) -> list[Measure]:
    """Accuracy by group, and how much it rises where an attack should do more.

    Args:
        axis, suite: Of the rows.
        samples: With `accuracy` of 0 or 1.
        seed: Of resampling.
        judge: Who told right from wrong.
        says: How the first sentence about a run begins; what was done to the pictures follows.
    """
    groups = sorted({sample.group for sample in samples}, key=_order)
    said = _said(groups)
    rows: list[Measure] = []
    for group in groups:
        row = mean_row(axis, suite, ACCURACY, group, samples, "higher", "share", seed, judge=judge)
        before = _shift(_parts(group)[0]) or CLEAN
        against = before if _aimed(group) and before in groups else ""
        rows.append(replace(row, says=f"{says}{said[group]}" if group in said else "", against=against))
    for name, line in _lines(groups).items():
        rows += _rise(axis, suite, name, line, samples, judge)
    return rows


def curves_of(suite: str, rows: Sequence[Measure]) -> list[Curve]:
    """Accuracy against epsilon, a line an attack, noise last, from clean pictures on; of rows of `measures_of`."""
    told = [(row, *_parts(row.group)) for row in rows if row.name == ACCURACY and row.n]
    starts = {attack: _point(row, 0) for row, attack, epsilon, words, _ in told if not epsilon and not words}
    lines: defaultdict[str, list[Point]] = defaultdict(list)
    for row, attack, epsilon, words, steps in told:
        if epsilon:
            lines[_named(attack, 0, words, steps)].append(_point(row, epsilon))
    return [
        Curve(suite, "accuracy against epsilon", name, X, "right", (*_start(starts, name), *points), NOTE)
        for name, points in lines.items()
    ]


def _start(starts: Mapping[str, Point], name: str) -> list[Point]:
    """Where a line begins: at pictures as they were, of its own shift."""
    before = _shift(name) or CLEAN
    return [starts[before]] if before in starts else []


def _point(row: Measure, epsilon: int) -> Point:
    return Point(float(epsilon), row.value, row.low, row.high, row.n)


def _named(attack: str, epsilon: int, words: int, steps: int) -> str:
    """The name of a group; what is 0 is left out."""
    size = [f"{epsilon}/255"] * bool(epsilon) + [f"{words} words"] * bool(words)
    return " ".join([attack, *size]) + f", {steps} steps" * bool(steps)


def _parts(group: str) -> tuple[str, int, int, int]:
    """Attack, epsilon in steps of 8 bits, words and steps of the attack, of a group's name; 0 where it has none."""
    found = re.fullmatch(r"(.*?)(?: (\d+)/255)?(?: (\d+) words)?(?:, (\d+) steps)?", group)
    assert found is not None
    return found[1], int(found[2] or 0), int(found[3] or 0), int(found[4] or 0)


def _shift(name: str) -> str:
    """The shift of the pictures of a group or a line, by its name; empty where there is none."""
    return name.rpartition(OF_SHIFT)[0]


def _aimed(group: str) -> bool:
    """Whether a group was changed against a model."""
    attack, epsilon, words, _ = _parts(group)
    return attack.rpartition(OF_SHIFT)[2] != NOISE and bool(epsilon or words)


def _said(groups: Sequence[str]) -> dict[str, str]:
    """What was done to the groups that the first sentence tells: of each attack the size nearest to `TOLD`, or words.

    Pictures under a shift are not told where there are others.
    """
    aimed = [group for group in groups if _aimed(group)]
    chosen = [group for group in aimed if not _shift(_parts(group)[0])] or aimed
    sizes = [epsilon for _, epsilon, *_ in map(_parts, chosen) if epsilon]
    size = min(sizes, key=lambda one: (abs(one - TOLD), one), default=0)
    found: dict[str, str] = {}
    for group in chosen:
        whole, epsilon, words, steps = _parts(group)
        shift, _, attack = whole.rpartition(OF_SHIFT)
        if epsilon in (0, size):
            pixels = [f"a change of up to {epsilon}/255 by {attack}"] * bool(epsilon)
            changed = [f"{words} words changed" + f" by {attack}" * (not epsilon)] * bool(words)
            told = f" under {' and '.join([*pixels, *changed])}" + f" in {steps} steps" * bool(steps)
            found[group] = told + f" ({shift})" * bool(shift)
    return found


def _order(group: str) -> tuple[bool, tuple[str, int, int, int]]:
    """Clean first, then by attack, epsilon, words and steps."""
    return group != CLEAN, _parts(group)


def _lines(groups: Sequence[str]) -> dict[str, list[str]]:
    """Groups along which an attack may do ever more, by name: larger epsilon, more words, or more steps alone."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for group in groups:
        attack, epsilon, words, steps = _parts(group)
        if _aimed(group):
            lines[_named(attack, 0, words, steps)] += [group] * bool(epsilon)
            lines[f"{_named(attack, epsilon, 0, steps)}, more words"] += [group] * bool(words)
            lines[f"{_named(attack, epsilon, words, 0)}, more steps"] += [group] * bool(steps)
    return {name: line for name, line in lines.items() if len(line) > 1}


def _rise(
    axis: Axis, suite: str, name: str, groups: Sequence[str], samples: Sequence[Sample], judge: str
) -> list[Measure]:
    """The most that accuracy gains from a group to the next on the same rows; nothing where no row is in both."""
    right = {
        group: {s.cluster: s.values["accuracy"] > 0 for s in samples if s.group == group and s.values}
        for group in groups
    }
    shared = [(right[low], right[high], sorted(right[low].keys() & right[high])) for low, high in pairwise(groups)]
    shared = [each for each in shared if each[2]]
    if not shared:
        return []
    found = [paired_difference([low[k] for k in both], [high[k] for k in both]) for low, high, both in shared]
    most, n = max(found, key=lambda one: one.value), min(len(both) for _, _, both in shared)
    return [Measure(axis, suite, RISE, name, *most, n, 0, "lower", judge=judge, floor=0.0)]
