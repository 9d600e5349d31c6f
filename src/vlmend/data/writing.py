"""Writes a data set to a folder that reads again as the same set, and what a step made of it as a report.

data.jsonl    the rows, as `sources.read_jsonl` reads them
images/       the pictures, byte for byte, named by their digest
data.json     name, licence, notes, digest, whether it is for testing only
report.json   what a step kept, changed and dropped, and why; report.md is the same for people
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from vlmend.core.contracts import DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import make_folder, replacing, write_file
from vlmend.core.images import Image
from vlmend.core.jsontext import to_json
from vlmend.core.picture_files import opened
from vlmend.data.editing import report_page, report_values
from vlmend.data.jsonrow import Problem, example_of, problems_of, row_of
from vlmend.data.sources import DESCRIPTION, DIGITS, IMAGES, ROWS, SHOWN, Description, read_jsonl
from vlmend.errors import BadData, RunProblem, SampleError, UsageError

__all__ = ["PAGE", "REPORT", "write_data"]

REPORT = "report.json"
PAGE = "report.md"


def write_data(dataset: Dataset, folder: Path, edit: DataEdit | None = None) -> None:
    """Write a data set; with an edit also the report of what a step did.

    All or nothing: everything is written beside the folder, which then gets its name. A folder that holds this very set
    gets the report alone, and what a fault changed in it is put right. A picture that cannot be read keeps its old
    path, so that it can still come.

    Raises:
        UsageError: The folder holds something else.
        BadData: There is no row, or rows that could not be read again.
        RunProblem: The disk is full or the folder cannot be written.
    """
    _check(dataset)
    said = Description(
        name=dataset.name, licence=dataset.licence, notes=dataset.notes, digest=dataset.digest,
        words=dataset.digest_of_words, test_only=dataset.test_only,
    )  # fmt: skip
    texts = {} if edit is None else {REPORT: to_json(report_values(edit), indent=2) + "\n", PAGE: report_page(edit)}
    try:
        if _holds(folder, said):
            if not _intact(folder):
                _fill(dataset, folder, {})
            _add(folder, texts)
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f".{folder.name}-{os.getpid()}")
        try:
            make_folder(beside)
            _fill(dataset, beside, texts | {DESCRIPTION: said.model_dump_json(indent=2) + "\n"})
            if folder.is_dir():
                folder.rmdir()
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except UnicodeEncodeError as problem:
        raise BadData(
            f"{dataset.name} holds text that is no Unicode ({problem}).", "Replace the lone surrogates in it."
        ) from problem
    except OSError as problem:
        raise RunProblem(
            f"The data cannot be written to {folder} ({problem.strerror or problem}).",
            "Make room or choose another --out; nothing is left half written.",
        ) from problem


def _check(dataset: Dataset) -> None:
    """Refuse what `read_jsonl` would not read again, all rows at once."""
    bad: list[str] = []
    for example in dataset.examples:
        bad += [f"{example.id}: {problem.what}" for problem in _problems(example)]
    if bad or not dataset.examples:
        what = "; ".join(bad[:SHOWN]) or "it has no rows"
        raise BadData(
            f"{dataset.name} cannot be written as data that reads again: {what}.",
            "Every row needs an id of its own, and a prompt, picture, caption, turn or attribute.",
        )


def _problems(example: Example) -> list[Problem]:
    if example.image is None and example.more_images:
        return [Problem("more_images without an image: the first would be read again as the image")]
    try:
        row = row_of(example, lambda image: "x")
    except ValidationError as problem:
        return problems_of(problem)
    return example_of(row, example.id, Path())[1]


def _holds(folder: Path, said: Description) -> bool:
    """Whether the folder holds this very set; False where it is not there or empty.

    Raises:
        UsageError: It holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    file = folder / DESCRIPTION
    try:
        held = Description.model_validate_json(file.read_text("utf-8"))
        same = held.model_copy(update={"words": said.words}) == said and (folder / ROWS).is_file()
    except (OSError, ValueError):
        same = False
    if not same:
        raise UsageError(f"{folder} holds other data.", "Choose another --out, or remove that folder first.")
    return True


def _intact(folder: Path) -> bool:
    """Whether the set that a folder says it holds can be read."""
    try:
        read_jsonl(folder)
    except BadData:
        return False
    return True


def _add(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        write_file(folder / name, text)


def _fill(dataset: Dataset, folder: Path, texts: Mapping[str, str]) -> None:
    """Pictures first, then the rows that name them, then what is said of them."""
    shelf = _Shelf(folder)
    with replacing(folder / ROWS) as lines:
        for example in dataset.examples:
            values = row_of(example, shelf.put).model_dump(mode="json", exclude_defaults=True)
            lines.write((json.dumps(values | {"prompt": example.prompt}, ensure_ascii=False) + "\n").encode())
    _add(folder, texts)


class _Shelf:
    """Where pictures go: each once, under its digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}

    def put(self, image: Image) -> str:
        """Write the bytes unless they are there, and give the path that a row says."""
        try:
            content, digest = image.content, image.digest
        except SampleError:
            return str(Path(os.fsdecode(image.source)).absolute())
        if digest not in self._names:
            self._names[digest] = f"{IMAGES}/{digest[:DIGITS]}{_suffix(image, content)}"
            file = self._folder / self._names[digest]
            write_file(file, content, sync=False)
        return self._names[digest]


def _suffix(image: Image, content: bytes) -> str:
    """The usual ending of the picture's format; `.bin` for what is no picture."""
    try:
        with opened(content, image.name) as picture:
            kind = (picture.format or "bin").lower()
    except SampleError:
        return ".bin"
    return {"jpeg": ".jpg", "mpo": ".jpg"}.get(kind, f".{kind}")
