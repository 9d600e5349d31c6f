"""What methods that fine-tune on pictures of people share: whose group is known, and batches of each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlmend.core.examples import Dataset
from vlmend.errors import BadData
from vlmend.methods.contrastive import AbstractContrastive
from vlmend.pictures.galleries import people_and_things
from vlmend.pictures.named import NamedPictures, named_pictures
from vlmend.training.batches import chosen

__all__ = ["AbstractGrouped", "Grouped", "few_people_and_things", "group_counts", "grouped_pictures"]


@dataclass(frozen=True)
class Grouped:
    """Named pictures, and the group of those that show somebody of one.

    Attributes:
        named: The pictures.
        groups: Of each; empty where it shows nobody, or nobody whose group is known.
    """

    named: NamedPictures
    groups: tuple[str, ...]

    @property
    def known(self) -> dict[str, list[int]]:
        """Places of the pictures of each group."""
        names = sorted({group for group in self.groups if group})
        return {name: [place for place, group in enumerate(self.groups) if group == name] for name in names}

    def words(self, places: Sequence[int]) -> list[str]:
        """The texts of the pictures there."""
        return [self.named.texts[self.named.right[place]] for place in places]


@dataclass(frozen=True)
class AbstractGrouped(AbstractContrastive):
    """Contrastive fine-tuning beside a term on groups. For one seed all see the same batches."""

    data: ClassVar[str] = "pictures with their names, and the group of people; training"
    draws: ClassVar[str] = "grouped"

    batch: int = 48

    def builtin(self) -> Dataset:
        """Men and women of 20 professions in training views, and a view of each known object without a group."""
        return people_and_things()

    def sample_data(self) -> Dataset:
        """Eight people, and two objects."""
        return few_people_and_things()

    def people(self, places: Sequence[int], size: int, key: str) -> list[int]:
        """So many of these pictures; the key decides which, whatever the method."""
        return chosen(places, size, f"{self.draws}:{key}")


def few_people_and_things() -> Dataset:
    """Eight people of the built-in pictures and two objects, for quick checks."""
    rows = people_and_things().examples
    people = [row for row in rows if row.group][:80:10]
    return Dataset("few-people-and-things", (*people, *rows[-2:]))


def grouped_pictures(data: Dataset) -> Grouped:
    """The rows that have an image and a right answer (the name), with their category as group.

    Raises:
        BadData: There are fewer than two names, fewer than two groups, or a group of a single picture.
    """
    named = named_pictures(data)
    held = Grouped(named, tuple(row.group for row in data.examples if row.image is not None and row.answers))
    group_counts(data.name, held.groups)
    return held


def group_counts(name: str, groups: Sequence[str]) -> Mapping[str, int]:
    """Pictures of each group; those of none are not counted.

    Raises:
        BadData: There are fewer than two groups, or a group of a single picture.
    """
    counts = Counter(group for group in groups if group)
    if len(counts) < 2 or min(counts.values()) < 2:
        told = ", ".join(f"{count} of {group}" for group, count in sorted(counts.items())) or "none"
        raise BadData(
            f"{name} has pictures of {len(counts)} groups ({told}) that can be used here.",
            "Pass rows with image and category (the group, none for what shows nobody), and answers (the name) where "
            "names are learnt: two groups or more, of two pictures or more each.",
        )
    return counts
