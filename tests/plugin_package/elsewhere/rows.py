"""A data set with one field."""

from __future__ import annotations

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Row, text

__all__ = ["ADAPTER"]


def _convert(row: Row, place: Place) -> list[Draft]:
    return [Draft(text(row, "words"))]


ADAPTER = Adapter(
    "elsewhere_rows", "utility", "Rows from elsewhere", "nobody", "https://example.org", "MIT", ("*.jsonl",), _convert,
    "Write it.", unlabelled=None,
)  # fmt: skip
