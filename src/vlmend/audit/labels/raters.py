"""What raters say of themselves: optional, given by the rater, kept apart from their labels and told only when asked.

One file a rater, which its owner alone may read. No page, report or label holds what is in it, but for the one report
that is asked for by the name of an attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vlmend.audit.people import known
from vlmend.core.files import write_file
from vlmend.core.jsontext import to_json
from vlmend.errors import BadData, BadParameter

__all__ = ["attributes_of", "keep_attributes", "rater_file"]

_TOLD = TypeAdapter(dict[str, str])


def rater_file(run: Path, name: str) -> Path:
    """Where a rater's attributes are kept: apart from the labels, so that these can be passed on without."""
    return run / "raters" / f"{name}.json"


def attributes_of(run: Path, name: str) -> dict[str, str]:
    """What a rater told, by attribute; nothing where nothing was told.

    Raises:
        BadData: The file holds something else.
    """
    file = rater_file(run, name)
    if not file.exists():
        return {}
    try:
        return _TOLD.validate_json(file.read_bytes())
    except (OSError, ValidationError) as problem:
        raise BadData(
            f"{file} holds no attributes of a rater.", "Delete it; `vlmend label --rater NAME=VALUE` writes it anew."
        ) from problem


def keep_attributes(run: Path, name: str, given: Sequence[str]) -> None:
    """Add what a rater tells, each as NAME=VALUE; NAME= takes it back. A file without any is deleted.

    Raises:
        BadParameter: Something else was given; nothing is kept then.
        RunProblem: It cannot be written.
    """
    told = attributes_of(run, name)
    for one in given:
        attribute, equals, value = (part.strip() for part in one.partition("="))
        if not attribute or not equals:
            raise BadParameter(f"{one!r} tells nothing of a rater.", "Write --rater NAME=VALUE, as in age=30-39.")
        told.pop(attribute, None)
        if known(value):
            told[attribute] = value
    if told:
        write_file(rater_file(run, name), to_json(told) + "\n")
    elif given:
        rater_file(run, name).unlink(missing_ok=True)
