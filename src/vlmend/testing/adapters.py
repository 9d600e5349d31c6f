"""The contract of data adapters: where a set comes from, on which terms, and that other rows are refused."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vlmend.core.files import write_file
from vlmend.data.adapter import Adapter, Kind, Pictures
from vlmend.data.catalogue import adapter_table, adapters, listed_adapters
from vlmend.errors import BadData, UnknownName
from vlmend.testing.laws import Laws, bound, refused, require, settle

__all__ = ["AdapterTrial", "check_adapter", "laws_of_adapter"]


@dataclass(frozen=True)
class AdapterTrial:
    """An adapter.

    Attributes:
        adapter: The adapter.
        registered: Whether it was named.
        docs: The folder that holds `data.md`, or None.
    """

    adapter: Adapter
    registered: bool
    docs: Path | None


def check_adapter(plugin: str | Adapter, docs: Path | None = None) -> None:
    """Hold a data adapter to its contract; that it reads the set's own rows is for tests of its own.

    Args:
        plugin: The name of its set, or the adapter.
        docs: The folder that holds `data.md`, a table of all sets; without one no row is asked for.

    Raises:
        UnknownName: No set has that name.
        AssertionError: It breaks laws; all of them are named, with what was seen.
    """
    settle(laws_of_adapter(plugin, docs))


def laws_of_adapter(plugin: str | Adapter, docs: Path | None = None) -> Laws:
    """The laws that hold for this adapter, by name, as `check_adapter` runs them."""
    known = adapters()
    if isinstance(plugin, str) and plugin not in known:
        raise UnknownName(f"There is no data set {plugin!r}.", "See: vlmend list data.")
    adapter = known[plugin] if isinstance(plugin, str) else plugin
    laws = [says_what_it_is, says_what_pictures_are_to_it, strange_rows_are_refused]
    if isinstance(plugin, str):
        laws.append(it_stands_in_the_tables)
    return bound(adapter.name, AdapterTrial(adapter, isinstance(plugin, str), docs), laws)


# --- the laws


def says_what_it_is(trial: AdapterTrial) -> None:
    """Name, title, authors, place, terms, and how to get it."""
    one = trial.adapter
    said = {
        "name": one.name, "title": one.title, "paper": one.paper, "repository": one.repository,
        "licence": one.licence, "how": one.how, "files": "".join(one.files) or str(one.made or ""),
    }  # fmt: skip
    empty = [name for name, text in said.items() if not text.strip()]
    require(not empty, f"it does not say its {', '.join(empty)}")
    require(one.kind in get_args(Kind), f"it is of kind {one.kind!r}")
    require(one.name == one.name.strip().lower() and ":" not in one.name, f"{one.name!r} cannot be asked for by --data")


def says_what_pictures_are_to_it(trial: AdapterTrial) -> None:
    """Where they are optional, it says what a reading without them means."""
    one = trial.adapter
    require(one.pictures in get_args(Pictures), f"pictures are {one.pictures!r} to it")
    require(one.pictures != "optional" or bool(one.as_text), "it does not say what a reading without pictures means")


def strange_rows_are_refused(trial: AdapterTrial) -> None:
    """A file of other rows is no such set: the error says which set was looked for, and how to get it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "strange.jsonl"
        write_file(file, json.dumps({"no_such_field": 1}) + "\n")
        problem = refused(BadData, lambda: trial.adapter.read(file), "a file of other rows")
    require(trial.adapter.title in problem.message, f"the refusal does not say what it is not: {problem.message}")


def it_stands_in_the_tables(trial: AdapterTrial) -> None:
    """In that of `vlmend list data`, in the one that the docs take over, and in the docs."""
    name = trial.adapter.name
    require(any(row["name"] == name for row in listed_adapters()), "vlmend list data does not show it")
    require(f"| `{name}` |" in adapter_table(), "the table of data sets has no row of it")
    if trial.docs is not None:
        page = trial.docs / "data.md"
        require(f"`{name}`" in page.read_text("utf-8"), f"{page.name} does not name it")
