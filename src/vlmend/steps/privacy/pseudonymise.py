"""pseudonymise: puts made-up names, addresses and numbers in the place of those that point to somebody.

What is found and how: `data.personal`. What stands in its place, under a secret key: `data.surrogates`.

Yermilov, Raheja and Chernodub 2023, arXiv 2306.05561 (rules against language models).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from vlmend.core.contracts import AbstractStep, Changed, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.secrets import read_secret
from vlmend.data.personal import KINDS, Finder, Found, PersonalKind, bank_of
from vlmend.data.surrogates import Surrogates
from vlmend.errors import BadParameter, UsageError

__all__ = ["STEP", "TRIAL", "Pseudonymise"]

TRIAL = "trial"
"""In place of a key file: a key that follows from the seed, to try the step out."""

SHORTEST = 16
"""Bytes of a key."""


@dataclass(frozen=True)
class Pseudonymise(AbstractStep):
    """Replaces names, addresses and numbers of people by made-up ones, the same for the same.

    Prompt, caption, answers, earlier turns, group and attributes are read; ids and pictures are not.

    Attributes:
        key: File that holds the secret, at least 16 bytes, that nobody else may read; `trial` for a key from the seed.
        kinds: What is replaced, by spaces.
        names: File of names, one a line, that are found wherever they stand.
        link: corpus: one person has one stand-in in all rows. row: another in each, so that rows cannot be linked.
        locale: Whose names the stand-ins are, as Faker calls it.
        model: A spaCy model whose people count too, by folder or name.
    """

    name: ClassVar[str] = "pseudonymise"
    source: ClassVar[str] = "Yermilov et al. 2023, arXiv 2306.05561"
    quick: ClassVar[Mapping[str, Any]] = {"key": TRIAL}

    key: str = ""
    kinds: str = " ".join(KINDS)
    names: str = ""
    link: Literal["corpus", "row"] = "corpus"
    locale: str = "en_US"
    model: str = ""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds.split() if kind not in KINDS]
        if unknown or not self.kinds.split():
            raise BadParameter(f"There is no kind of personal data {', '.join(unknown) or '(none named)'}.",
                               f"kinds are some of: {' '.join(KINDS)}.")  # fmt: skip

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        key = self._secret(seed)
        kinds = cast("list[PersonalKind]", self.kinds.split())
        finder = Finder(kinds, _lines(self.names), model=self.model)
        made = Surrogates(key, bank_of((self.locale,)), finder.gender, finder.is_given)
        tally = _Tally()
        pairs = [(row, self._row(row, finder, made, tally)) for row in data.examples]
        changed = tuple(Changed(row, after, f"replaced: {tally.told(row.id)}") for row, after in pairs if after != row)
        notes = (*data.notes, *self._notes(data, finder))
        new = replace(data, examples=tuple(after for _, after in pairs), notes=notes)
        return DataEdit(new, changed, tables={"found": tally.table(kinds)}, secret=True)

    def _row(self, row: Example, finder: Finder, made: Surrogates, tally: _Tally) -> Example:
        texts = list(_texts(row))
        scope = row.id if self.link == "row" else ""
        after = [
            tally.replaced(row.id, text, found, [made.of(one.kind, one.text, scope) for one in found])
            for text, found in zip(texts, finder(*texts), strict=True)
        ]
        return row if after == texts else _with_texts(row, after)

    def _secret(self, seed: int) -> bytes:
        """The key.

        Raises:
            UsageError: There is none, it is short, or others may read it.
        """
        if self.key == TRIAL:
            return hashlib.sha256(f"vlmend pseudonymise {seed}".encode()).digest()
        how = "Make one: (umask 077; head -c 32 /dev/urandom > pseudonyms.key), and say --set key=pseudonyms.key."
        if not self.key:
            raise UsageError("pseudonymise needs a secret key: without one anybody could try names out.", how)
        return read_secret(Path(self.key), how, SHORTEST)

    def _notes(self, data: Dataset, finder: Finder) -> Iterator[str]:
        if self.key == TRIAL:
            yield "The key follows from the seed: whoever knows that can try names out. For trials alone."
        pictures = sum(bool(row.every_image) for row in data.examples)
        if pictures:
            yield f"Words and faces in the pictures of {pictures} rows were left as they are."
        named = sum(bool(finder(re.sub(r"[\W_]+", " ", row.id).title())[0]) for row in data.examples)
        if named:
            yield f"The ids of {named} rows look as if they named somebody; ids are left as they are."


@dataclass
class _Tally:
    """What was replaced: counts by row, stand-ins by what they stand for."""

    rows: dict[PersonalKind, set[str]] = field(default_factory=lambda: defaultdict(set))
    places: dict[str, dict[PersonalKind, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    stands: dict[PersonalKind, dict[str, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )

    def replaced(self, row: str, text: str, found: Sequence[Found], made: Sequence[str]) -> str:
        """The text with the stand-ins in it."""
        for one, stand in zip(found, made, strict=True):
            self.rows[one.kind].add(row)
            self.places[row][one.kind] += 1
            self.stands[one.kind][stand.casefold()].add(one.text.casefold())
        for one, stand in reversed([*zip(found, made, strict=True)]):
            text = text[: one.start] + stand + text[one.end :]
        return text

    def told(self, row: str) -> str:
        """How many of which kind in one row."""
        return ", ".join(f"{count} {kind}" for kind, count in self.places[row].items())

    def table(self, kinds: Sequence[PersonalKind]) -> list[dict[str, Any]]:
        """Counts by kind; none of what was found."""
        return [
            {
                "kind": kind, "rows": len(self.rows[kind]),
                "places": sum(counts[kind] for counts in self.places.values()),
                "different": len({text for texts in self.stands[kind].values() for text in texts}),
                "sharing a stand-in": sum(len(texts) for texts in self.stands[kind].values() if len(texts) > 1),
            }
            for kind in kinds
        ]  # fmt: skip


def _lines(file: str) -> list[str]:
    """The names of a file.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        return [line.strip() for line in Path(file).read_text("utf-8").splitlines() if line.strip()] if file else []
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"The names in {file} cannot be read ({problem}).", "One name a line, in UTF-8.") from problem


def _texts(row: Example) -> Iterator[str]:
    """Every text of a row, in the order in which `_with_texts` takes them."""
    yield from (row.prompt, row.caption or "", row.group)
    yield from (turn.text for turn in row.turns)
    yield from row.answers
    yield from row.attributes.values()


def _with_texts(row: Example, texts: Sequence[str]) -> Example:
    prompt, caption, group, *rest = texts
    turns = tuple(replace(turn, text=text) for turn, text in zip(row.turns, rest, strict=False))
    rest = rest[len(turns) :]
    answers, values = tuple(rest[: len(row.answers)]), rest[len(row.answers) :]
    return replace(
        row, prompt=prompt, caption=None if row.caption is None else caption, group=group, turns=turns,
        answers=answers, attributes=dict(zip(row.attributes, values, strict=True)),
    )  # fmt: skip


STEP = Pseudonymise
