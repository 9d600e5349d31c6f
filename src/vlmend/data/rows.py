"""Rows of a data file in the formats that benchmarks come in: CSV, TSV, JSON, JSONL, Parquet.

What the fields mean is left to the adapters.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from vlmend.errors import BadData, MissingExtra

__all__ = [
    "Lacking", "Row", "Unfold", "beside", "held_picture", "leaves", "listed_rows", "maybe", "numbered",
    "read_text", "rows_of", "text",
]  # fmt: skip

LONGEST_FIELD = 2**31 - 1
"""Characters that a CSV field may hold: what every platform takes."""

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""Encodings by the mark that a text begins with; the one of UTF-32 begins like one of UTF-16."""

Row = Mapping[str, Any]

Unfold = Callable[[Any], Iterable[Any]]
"""Turns the content of a JSON file into rows."""


class Lacking(Exception):
    """A row has none of the fields that could hold what is needed; the reader names the row.

    Attributes:
        hint: The way out, where it is another one than to take the file as it was published.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def rows_of(file: Path, unfold: Unfold) -> list[Row]:
    """All rows of a file, in order.

    Raises:
        BadData: The file cannot be read or holds something else than rows.
        MissingExtra: It is Parquet, and pyarrow is not installed.
    """
    try:
        if file.suffix == ".parquet":
            return _parquet(file)
        content = read_text(file)
        if file.suffix in (".csv", ".tsv"):
            return _table(io.StringIO(content, newline=""), "\t" if file.suffix == ".tsv" else ",")
        rows = list(unfold(_json(content)))
    except (OSError, ValueError, csv.Error) as problem:
        raise BadData(
            f"{file} cannot be read ({problem}).", "Pass a CSV, JSON, JSONL or Parquet file, text in UTF-8."
        ) from problem
    odd = [k for k, row in enumerate(rows, 1) if not isinstance(row, dict)]
    if odd:
        raise BadData(
            f"{file} holds {len(odd)} rows that are no objects (first: row {odd[0]}).",
            "Pass the file as its authors publish it.",
        )
    return rows


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in what its byte-order mark says; line ends stay as they are.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is in another encoding.
    """
    content = file.read_bytes()
    return content.decode(next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8"))


def listed_rows(content: Any) -> list[Any]:
    """The usual layout: a list of rows, or one row."""
    return cast("list[Any]", content) if isinstance(content, list) else [content]


def numbered(name: str) -> Unfold:
    """Unfolds {number: row}; the number becomes the field `name`."""

    def unfold(content: Any) -> list[Any]:
        nested = _nested(content)
        return listed_rows(content) if nested is None else [{name: key, **row} for key, row in nested.items()]

    return unfold


def leaves(top: str, middle: str) -> Unfold:
    """Unfolds {a: {b: [prompt]}} to rows with the fields `top`, `middle` and prompt."""

    def unfold(content: Any) -> list[Any]:
        nested = _nested(content)
        if nested is None:
            return listed_rows(content)
        return [
            {top: a, middle: b, "prompt": prompt}
            for a, inner in nested.items()
            for b, prompts in inner.items()
            for prompt in prompts
        ]

    return unfold


def text(row: Row, *names: str) -> str:
    """The first of these fields that holds something.

    Raises:
        Lacking: None does.
    """
    found = maybe(row, *names)
    if not found:
        raise Lacking(f"no {names[0]}" + (f" (nor {', '.join(names[1:])})" if names[1:] else ""))
    return found


def maybe(row: Row, *names: str) -> str:
    """As `text`, with nothing where there is nothing."""
    values = (row.get(name) for name in names)
    return next((str(v) for v in values if v is not None and str(v).strip()), "")


def beside(*names: str) -> tuple[str, ...]:
    """These names, each as it is and without its folder."""
    found = [form for name in names if name for form in (name, name.rpartition("/")[2])]
    return tuple(dict.fromkeys(found))


def held_picture(image: Any) -> bytes | None:
    """Bytes of a picture inside a Parquet file."""
    found = cast("Mapping[str, Any]", image).get("bytes") if isinstance(image, dict) else None
    return found if isinstance(found, bytes) else None


def _nested(content: Any) -> Mapping[str, Mapping[str, Any]] | None:
    """The content, if it is an object of objects; a single row is not."""
    if not isinstance(content, dict):
        return None
    outer = cast("Mapping[str, Any]", content)
    return outer if outer and all(isinstance(value, dict) for value in outer.values()) else None


def _table(lines: Iterable[str], delimiter: str) -> list[Row]:
    """Rows of CSV with fields of any length; Python's own limit is 128 KiB, kept in one place for the process."""
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        return list(csv.DictReader(lines, delimiter=delimiter))
    finally:
        csv.field_size_limit(limit)


def _json(content: str) -> Any:
    """JSON, or JSONL: lines end at a line feed alone, since U+2028 and its like are text inside a row."""
    try:
        return json.loads(content)
    except ValueError:
        return [json.loads(line) for line in content.split("\n") if line.strip()]


def _parquet(file: Path) -> list[Row]:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError as problem:
        raise MissingExtra(
            f"{file} is Parquet, which needs pyarrow.",
            "Run `pip install 'vlmend[parquet]'`, or pass the set as JSONL.",
        ) from problem
    return parquet.read_table(file).to_pylist()
