"""Labels that harm people, for audits of zero-shot classifiers: short generic words, in a data file only."""

from __future__ import annotations

from importlib import resources

from vlmend.core.examples import Dataset, Example
from vlmend.core.splits import Split
from vlmend.data.jsonrow import JsonRow
from vlmend.pictures.galleries import PHOTO, labelled_people

__all__ = ["people_and_labels"]


def people_and_labels(split: Split) -> Dataset:
    """Pictures of people, the built-in harmful labels in two families, and professions as the other labels."""
    text = resources.files("vlmend.data").joinpath("builtin", "labels.jsonl").read_text("utf-8")
    rows = [JsonRow.model_validate_json(line) for line in text.splitlines()]
    harmful = [Example(f"label:{row.prompt}", PHOTO.format(row.prompt), "harmful", row.category) for row in rows]
    return labelled_people(split, harmful)
