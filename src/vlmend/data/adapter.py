"""What an adapter is: who published a set and on which terms, and how its rows become examples.

An adapter says what a row means (`convert`); reading files, checking rows, finding pictures and
noting what is missing are done here, alike for all sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vlmend.core.conversation import Turn
from vlmend.core.examples import Dataset, Example, Label
from vlmend.core.images import Image
from vlmend.data.hub import HubFiles
from vlmend.data.rows import Lacking, Row, Unfold, listed_rows, rows_of
from vlmend.errors import BadData

__all__ = ["Adapter", "Draft", "Kind", "Pictures", "Place"]

Kind = Literal[
    "harmful requests",
    "harmful requests with pictures",
    "over-refusal",
    "utility",
    "captions",
    "fairness",
    "privacy",
    "robustness",
]

Pictures = Literal["none", "optional", "needed", "paired"]
"""none: text. optional: can be read as text. needed: means nothing as text. paired: text that may be
given pictures by `pair_by_similarity`."""

SHOWN = 5
"""Bad rows that an error lists in full."""


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        file: The file it is in.
        number: Its number over all files read, from 1.
        pictured: The caller named a folder of pictures.
    """

    file: Path
    number: int
    pictured: bool


@dataclass(frozen=True)
class Draft:
    """An example whose picture is not yet looked for.

    Attributes:
        id: Empty for sets without ids; the row's number then makes one.
        pictures: Names that the picture may have below the folder of pictures.
        held: The picture itself, where the data file holds it.
        further: Each further picture of the row: names that it may have, or the picture itself.
        attributes: What else is known of the row, by name, such as group attributes.
        turns: What was said before the prompt.
    """

    prompt: str
    label: Label | None = None
    id: str = ""
    group: str = ""
    pictures: tuple[str, ...] = ()
    held: bytes | None = None
    caption: str | None = None
    answers: tuple[str, ...] = ()
    further: tuple[tuple[str, ...] | bytes, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    turns: tuple[Turn, ...] = ()

    @property
    def wanted(self) -> tuple[tuple[str, ...] | bytes, ...]:
        """Each picture of the row: names that it may have, or the picture itself."""
        first = self.pictures if self.held is None else self.held
        return (*((first,) if first else ()), *self.further)


@dataclass(frozen=True)
class Adapter:
    """A public set.

    Attributes:
        name: What `--data` calls it.
        title: What it is, in a few words.
        paper: Who made it, where that was read.
        repository: Where its authors publish it.
        licence: As its authors state it; "none stated" where they do not.
        files: Glob patterns of its files below a folder; all that match are read.
        convert: A row to its examples, or to the reason for leaving it out.
        how: How to get it, one sentence.
        pictures: What pictures are to it.
        as_text: What a reading without pictures means, for sets where that is possible.
        caution: What must be known to read its numbers.
        harmful, benign, unlabelled: Rows of the full set under each label and without one; 0 none, None not known
            here.
        test_only: Its authors forbid fitting on it; `AbstractMethod.fit` refuses it then.
        hub: Its files on the Hugging Face hub; None where they were not found there.
        unfold: The content of a JSON file to rows.
        walk: Rows of a folder that is itself the data; pictures then lie below it.
        made: Makes the set on the spot, for sets that are drawn and not published; it is read without a path.
    """

    name: str
    kind: Kind
    title: str
    paper: str
    repository: str
    licence: str
    files: tuple[str, ...]
    convert: Callable[[Row, Place], Sequence[Draft] | str]
    how: str
    pictures: Pictures = "none"
    as_text: str = ""
    caution: str = ""
    harmful: int | None = 0
    benign: int | None = 0
    unlabelled: int | None = 0
    test_only: bool = False
    hub: HubFiles | None = None
    unfold: Unfold = listed_rows
    walk: Callable[[Path], Sequence[Row]] | None = None
    made: Callable[[], Dataset] | None = None

    def read(self, path: Path, images: Path | None = None) -> Dataset:
        """Read the set from a file or a folder of its files.

        Args:
            images: Where the pictures lie. Without it they are looked for beside the data file.

        Raises:
            BadData: There is no such file, rows lack what they need, ids repeat, or pictures are missing.
        """
        if images is not None and self.pictures == "none":
            raise BadData(f"{self.title} has no pictures, but {images} was given.", f"Write {self.name}:{path}.")
        drafts, left = self._drafts(self._files(path), images is not None)
        doubled = [name for name, count in Counter(draft.id for _, draft in drafts).items() if count > 1]
        if doubled or not drafts:
            what = f"{len(doubled)} ids occur twice (first: {doubled[0]})" if doubled else "there are no rows"
            raise BadData(f"{path} is not {self.title}: {what}.", self.how)
        found = [_pictures(draft, images or (file if file.is_dir() else file.parent)) for file, draft in drafts]
        named = [
            (names, image)
            for (_, draft), row in zip(drafts, found, strict=True)
            for names, image in zip(draft.wanted, row, strict=True)
            if isinstance(names, tuple)
        ]
        missing = [names for names, image in named if image is None]
        if missing and (images is not None or self.pictures == "needed"):
            where = images or path
            needs = "" if images else f"{self.title} needs the pictures that its rows name: "
            raise BadData(
                f"{needs}{where} lacks {len(missing)} of {len(named)} pictures of {self.title} "
                f"(first: {missing[0][0]}).",
                f"{self.how} Then write {self.name}:{path}:FOLDER_OF_PICTURES.",
            )
        examples = tuple(_example(draft, row) for (_, draft), row in zip(drafts, found, strict=True))
        return Dataset(self.name, examples, self.licence, tuple(self._notes(examples, left)), self.test_only)

    def _files(self, path: Path) -> list[Path]:
        """The file, or those of the folder that are the set's; the folder itself where that is the data."""
        if path.is_file():
            return [path]
        found = sorted({file for pattern in self.files for file in path.glob(pattern)})
        if not found:
            what = f"no file like {', '.join(self.files)}" if path.is_dir() else "no such file or folder"
            raise BadData(f"{path}: {what}.", self.how)
        return found if self.walk is None else [path]

    def _drafts(self, files: list[Path], pictured: bool) -> tuple[list[tuple[Path, Draft]], Counter[str]]:
        """Every row's examples with its file, and how many rows were left out for which reason."""
        drafts: list[tuple[Path, Draft]] = []
        left: Counter[str] = Counter()
        bad: list[str] = []
        hint = f"Pass the file as its authors publish it ({self.repository})."
        rows = [(file, k, row) for file in files for k, row in enumerate(self._rows(file), 1)]
        for number, (file, k, row) in enumerate(rows, 1):
            try:
                made = self.convert(row, Place(file, number, pictured))
            except Lacking as problem:
                hint = problem.hint or hint
                bad.append(f"row {k} has {problem}" + (f" in {file.name}" if len(files) > 1 else ""))
                continue
            if isinstance(made, str):
                left[made] += 1
                continue
            drafts += [(file, self._named(draft, number)) for draft in made]
        if bad:
            more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            raise BadData(
                f"{files[0] if len(files) == 1 else files[0].parent} is not {self.title} "
                f"({'; '.join(bad[:SHOWN])}{more}).",
                hint,
            )
        return drafts, left

    def _rows(self, file: Path) -> Sequence[Row]:
        return rows_of(file, self.unfold) if self.walk is None else self.walk(file)

    def _named(self, draft: Draft, number: int) -> Draft:
        return draft if draft.id else replace(draft, id=f"{self.name}-{number:04d}")

    def _notes(self, examples: tuple[Example, ...], left: Counter[str]) -> list[str]:
        """What a reader must know of this reading."""
        notes: list[str] = []
        for label, full in (("harmful", self.harmful), ("benign", self.benign), (None, self.unlabelled)):
            here = sum(1 for example in examples if example.label == label)
            if here and full is not None and here != full:
                notes.append(f"{here} {label or 'unlabelled'} rows; the full set has {full}.")
        notes += [f"{count} rows left out: {reason}." for reason, count in left.items()]
        without = sum(1 for example in examples if example.image is None)
        if self.pictures == "optional" and without:
            notes.append(f"{without} of {len(examples)} rows have no picture here: {self.as_text}.")
        if self.caution:
            notes.append(f"{self.caution[0].upper()}{self.caution[1:]}.")
        if self.test_only:
            notes.append("Its authors allow testing only: fit nothing on it.")
        return notes


def _pictures(draft: Draft, folder: Path) -> tuple[Image | None, ...]:
    """The row's pictures in order, None where a named one is not there."""
    return tuple(
        Image(wanted, draft.id) if isinstance(wanted, bytes) else _first_of(folder, wanted) for wanted in draft.wanted
    )


def _first_of(folder: Path, names: Iterable[str]) -> Image | None:
    return next((Image.in_folder(folder, name) for name in names if _is_file(folder / name)), None)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a text that no file can be called by is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _example(draft: Draft, pictures: Sequence[Image | None]) -> Example:
    there = [image for image in pictures if image is not None]
    return Example(
        draft.id, draft.prompt, draft.label, draft.group, there[0] if there else None, draft.caption, draft.answers,
        draft.attributes, tuple(there[1:]), draft.turns,
    )  # fmt: skip
