"""What an attack writes down: on each row, and in the notes of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from vlmend.core.budget import LEVELS, Budget
from vlmend.core.examples import Example

__all__ = [
    "ATTACK", "BESIDE", "CARRIER", "CONTROL", "L2", "READING", "WORDS", "attributes_of_attack", "notes_of_attack",
    "notes_of_rows", "stood_still",
]  # fmt: skip

ATTACK = "attack"
"""The attribute that attacked rows are told by, with the attack's name.

Beside it stand `epsilon`, `steps`, `largest` (the change that was made), `clean`, `noise` and `attacked` (`right` or
`wrong`: the row as it was, changed as much at random, and under the attack), `success` (clean right, attacked wrong),
`forward`, `backward` (passes), `dropped` (steps) and `of` (the row); where the prompt was changed, `request` is what is
wanted, which judges go on reading."""

WORDS = "words"
"""The attribute that says how many words an attack was allowed to change; pixel attacks have none."""

L2 = "l2"
"""The attribute with the Euclidean length of the change over all pixels and channels, each from 0 to 1, of rows whose
pixels were moved: the distortion of Carlini et al. 2023. `largest` is its length in the largest norm."""

CARRIER = "carrier"
"""The attribute that names what carries a request to the model: typographic, optimised. Suites ask it beside the
request as text and beside pictures without content."""

BESIDE = "beside"
"""The attribute of a find of a red team that says what came with its words: text, photo, blank, noise, own, drawn."""

CONTROL = "control"
"""The attribute of rows that stand beside attacked ones as their control."""

READING = "reading"
"""Its value where a picture of harmless words is to be read; the answer of the row is what it says."""


def attributes_of_attack(example: Example) -> Mapping[str, str]:
    """What an attack noted on a row; empty where none was at work."""
    return example.attributes if ATTACK in example.attributes else {}


def stood_still(example: Example) -> bool:
    """Whether an attack on pixels made no step at all on a row, which was then not attacked."""
    told = attributes_of_attack(example)
    counts = [told.get(name, "") for name in ("steps", "backward", "dropped")]
    if WORDS in told or not all(count.isdecimal() for count in counts):
        return False
    steps, backward, dropped = map(int, counts)
    looks = backward // (steps + 1)  # of each climb one pass may look at where it led
    return backward > 0 and dropped >= backward - looks


def _size(budget: Budget, rows: Sequence[Example]) -> str:
    """What was allowed, for people."""
    words = {row.attributes[WORDS] for row in rows if WORDS in row.attributes}
    pixels = any(float(row.attributes["epsilon"]) for row in rows)
    if not pixels and not words:
        return "pictures drawn anew"
    told = [f"epsilon {budget.levels}/{LEVELS}"] if pixels else []
    return ", ".join([*told, *(f"{count} words" for count in sorted(words)), f"{budget.steps} steps"])


def notes_of_attack(
    name: str, target: str, budget: Budget, seed: int, rows: Sequence[Example], unfit: int, bad: Mapping[str, str]
) -> list[str]:
    """What an attack did and what it could not do, for people.

    Args:
        name: Of the attack.
        target: Whom it attacked.
        budget: In whole steps of 8 bits.
        seed: Of its draws.
        rows: As it left them.
        unfit: Rows that it does not want.
        bad: Why others failed, by id.
    """
    forward, backward, dropped = (sum(int(r.attributes[k]) for r in rows) for k in ("forward", "backward", "dropped"))
    notes = [
        f"Attacked by {name} on {target}: {_size(budget, rows)}, seed {seed}, "
        f"{forward} forward and {backward} backward passes of one row, judging aside."
    ]
    notes += _distortion(rows)
    if dropped:
        notes.append(
            f"{dropped} steps were dropped, since loss or gradient was no finite number, or the gradient 0 everywhere."
        )
    if still := sum(map(stood_still, rows)):
        notes.append(
            f"On {still} of {len(rows)} rows no step was made: they were not attacked, and are no part of the shares."
        )
    return [*notes, *notes_of_rows(unfit, bad)]


def _distortion(rows: Sequence[Example]) -> list[str]:
    """How long changes of pixels were, over all rows and where they turned one; none where no pixels were moved."""
    moved = [(float(row.attributes[L2]), row.attributes["success"] == "true") for row in rows if L2 in row.attributes]
    if not moved:
        return []
    turned = [size for size, success in moved if success]
    told = f", {median(turned):.3g} on the {len(turned)} that were turned" if turned else ""
    return [
        f"L2 distortion, pixels from 0 to 1: median {median(size for size, _ in moved):.3g} on {len(moved)} rows{told}."
    ]


def notes_of_rows(unfit: int, bad: Mapping[str, str]) -> list[str]:
    """How many rows were left out, and why: those that an attack does not want, and those that failed, by name."""
    notes: list[str] = []
    if unfit:
        notes.append(f"{unfit} rows have no right answer, or nothing that this attack changes, and were left out.")
    if bad:
        told = "; ".join(f"{row}: {why}" for row, why in list(bad.items())[:5])
        notes.append(f"{len(bad)} rows could not be attacked and were left out ({told}).")
    return notes
