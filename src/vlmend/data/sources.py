"""Readers of data files: JSONL rows to a `Dataset`, with every bad row named at once.

A folder that `writing.write_data` made holds such a file, `data.jsonl`, and beside it `data.json`, which says what the
set is called, its licence, its notes, whether it is for testing only, and the digest of its words. Its pictures are
named by theirs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vlmend.core.examples import ACCEPTED, GROUPS_BY, INFERRED, Dataset, Example
from vlmend.core.splits import Split
from vlmend.data.jsonrow import JsonRow, Problem, example_of, problems_of
from vlmend.data.requests import Kind, builtin_requests
from vlmend.data.rows import read_text
from vlmend.errors import BadData, SampleError

__all__ = ["DESCRIPTION", "DIGITS", "IMAGES", "ROWS", "Description", "builtin_dataset", "read_jsonl"]

ROWS = "data.jsonl"
"""The rows in a folder of ours."""

DESCRIPTION = "data.json"
"""What is said of all of them."""

IMAGES = "images"
"""Folder of its pictures."""

DIGITS = 32
"""Of a picture's digest that its name holds."""

SHOWN = 5
"""Bad rows that an error lists in full."""


class Description(BaseModel):
    """What `data.json` says of the rows beside it; `digest` is that of the set as it was written, `words` without
    pictures, which may come later."""

    model_config = ConfigDict(extra="ignore")

    name: str
    licence: str = ""
    notes: tuple[str, ...] = ()
    digest: str = ""
    words: str = ""
    test_only: bool = False


def read_jsonl(file: Path) -> Dataset:
    """Read rows; image paths count from the file's folder and are opened when asked.

    Lines end at a line feed alone: U+2028 and its like are text inside a row. A byte-order mark tells the encoding.

    Raises:
        BadData: The file cannot be read, holds no row, or holds rows that mean nothing.
    """
    if file.is_dir():
        return read_jsonl(file / ROWS)
    try:
        lines = read_text(file).split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadData(
            f"{file} cannot be read ({problem}).", f"Pass a JSONL file in UTF-8, or a folder with {ROWS}."
        ) from problem
    examples: list[Example] = []
    bad: list[str] = []
    hints: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row, told = _row(line)
        if row is not None:
            example, told = example_of(row, f"row-{number}", file.parent)
            examples += [example] if example is not None else []
        bad += [f"line {number}: {one.what}" for one in told]
        hints |= dict.fromkeys(one.hint for one in told if one.hint)
    doubled = [name for name, count in Counter(example.id for example in examples).items() if count > 1]
    if bad or doubled or not examples:
        what = "; ".join(bad[:SHOWN]) or (
            f"{len(doubled)} ids occur twice, as {doubled[0]!r}" if doubled else "no rows"
        )
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        form = 'Each line is {"prompt": "...", "label": "harmful" or "benign" or absent, "image": path or absent}.'
        raise BadData(f"{file} has rows that cannot be used ({what}{more}).", " ".join([*hints, form]))
    return _sourced(_described(Dataset(file.stem, tuple(examples)), file))


def _sourced(data: Dataset) -> Dataset:
    """With a note where a model told groups of people: it belongs to every number by group."""
    count = sum(row.attributes.get(GROUPS_BY, "") in (INFERRED, ACCEPTED) for row in data.examples)
    note = f"A model inferred the groups of {count} of {len(data.examples)} rows: its errors are part of what is told."
    return replace(data, notes=(*data.notes, note)) if count else data


def builtin_dataset(kinds: tuple[Kind, ...], split: Split) -> Dataset:
    """Built-in requests of one split as a data set: what mends are fitted on where no data is given."""
    examples = tuple(
        Example(r.id, r.prompt, "harmful" if kind == "harmful" else "benign", r.category)
        for kind in kinds
        for r in builtin_requests(kind, split)
    )
    return Dataset(f"builtin-{'-'.join(kinds)}-{split}", examples, "Apache-2.0")


def _row(line: str) -> tuple[JsonRow | None, list[Problem]]:
    try:
        return JsonRow.model_validate_json(line), []
    except ValidationError as problem:
        return None, problems_of(problem)


def _described(data: Dataset, file: Path) -> Dataset:
    """The set under the name and the terms that stand beside its rows, if it is one of ours."""
    beside = file.parent / DESCRIPTION
    if file.name != ROWS or not beside.is_file():
        return data
    try:
        said = Description.model_validate_json(beside.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as problem:
        raise BadData(
            f"{beside} does not say what the rows beside it are ({problem}).",
            "Restore it, or move the rows to a folder of their own to read them without name and terms.",
        ) from problem
    found = Dataset(said.name, data.examples, said.licence, said.notes, said.test_only)
    changed = ROWS if said.words not in ("", found.digest_of_words) else _changed_picture(found)
    if changed:
        raise BadData(
            f"{changed} in {file.parent} is not as it was written.",
            f"The command that made the set puts it right. To read the rows as they are, take {DESCRIPTION} away.",
        )
    return found


def _changed_picture(data: Dataset) -> str:
    """The first picture under a name that holds the digest of another; one that is not there may still come."""
    for image in (image for example in data.examples for image in example.every_image):
        path = image.source
        if isinstance(path, Path) and path.parent.name == IMAGES and len(path.stem) == DIGITS:
            try:
                same = image.digest.startswith(path.stem)
            except SampleError:
                continue
            if not same:
                return f"{IMAGES}/{path.name}"
    return ""
