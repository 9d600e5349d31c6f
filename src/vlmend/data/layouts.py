"""Any data set by one line of text: a JSONL file, a public benchmark on disk, or one from the hub.

    FILE.jsonl                          rows {"prompt", "label", "image", ...} (`sources.read_jsonl`)
    FOLDER                              a data set that vlmend wrote (`writing.write_data`)
    NAME:PATH[:IMAGES]                  a benchmark's file or folder, and its pictures
    NAME or NAME::IMAGES                the same from the Hugging Face hub
    jailbreak_llms:PATH:CAPTIONS.jsonl  requests with the images whose captions are most like them
    A + B                               several of these as one, a row of each in turn

The names and what they need are in `catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from vlmend.core.examples import Dataset, Example
from vlmend.data.adapter import Adapter
from vlmend.data.catalogue import adapters
from vlmend.data.hub import Fetch, fetch_snapshot, from_hub
from vlmend.data.pairing import Encode, pair_by_similarity
from vlmend.data.sources import read_jsonl
from vlmend.errors import BadData, BadParameter, UnknownName

__all__ = ["PLUS", "read_data"]

PLUS = " + "


def read_data(text: str, *, encode: Encode | None = None, fetch: Fetch = fetch_snapshot) -> Dataset:
    """Read the data set that a line of text names; of several, ids and groups begin with the set's name.

    Args:
        encode: Tells how alike texts are; needed to pair requests with captions only.
        fetch: Gets files from the hub.

    Raises:
        UnknownName: There is no such benchmark.
        BadData: The files are not there, are something else, or lack pictures.
        BadParameter: Captions are given without `encode`.
        EnvironmentProblem: The hub does not hand the files out.
    """
    parts = text.split(PLUS)
    if len(parts) > 1:
        return _combined([read_data(part, encode=encode, fetch=fetch) for part in parts])
    name, colon, rest = text.partition(":")
    if name not in adapters():
        path = Path(text)
        if len(name) > 1 and not path.exists() and (colon or not path.suffix):  # one letter: a drive
            raise UnknownName(
                f"{text!r} names no data that can be read.",
                f"Write FILE.jsonl, FOLDER, NAME:PATH or NAME, with NAME one of {', '.join(adapters())}.",
            )
        return _lent(read_jsonl(path))
    adapter = adapters()[name]
    place, _, images = rest.partition(":")
    if adapter.pictures == "paired" and images:
        if encode is None:
            raise BadParameter(
                f"{text!r} asks for pictures by the likeness of captions, which needs a sentence encoder.",
                f"Pass encode=..., or write {name}:{place} for the words alone.",
            )
        return pair_by_similarity(_read(adapter, place, None, fetch), Path(images), encode)
    return _lent(_read(adapter, place, Path(images) if images else None, fetch))


def _lent(data: Dataset) -> Dataset:
    """With a note on harmful rows that have no picture: `alignment_gap` lends them built-in ones."""
    harmful = data.labelled("harmful")
    without = sum(example.image is None for example in harmful)
    note = f"{without} of {len(harmful)} harmful rows borrow a built-in picture where one is shown: they have none."
    return replace(data, notes=(*data.notes, note)) if without and note not in data.notes else data


def _combined(sets: Sequence[Dataset]) -> Dataset:
    """Several sets as one, in turns, so that a limit takes from each."""
    doubled = sorted({one.name for one in sets if [other.name for other in sets].count(one.name) > 1})
    if doubled:
        raise BadData(f"The data set {', '.join(doubled)} is named twice.", "Name each once.")
    ids = {one.name: {example.id for example in one.examples} for one in sets}
    named = [[_named(one.name, example, ids) for example in one.examples] for one in sets]
    rows = tuple(e for e in chain.from_iterable(zip_longest(*named)) if e is not None)
    notes = tuple(f"{one.name}: {note}" for one in sets for note in one.notes)
    licences = "; ".join(dict.fromkeys(one.licence for one in sets if one.licence))
    return Dataset("+".join(one.name for one in sets), rows, licences, notes, any(one.test_only for one in sets))


def _named(name: str, example: Example, ids: Mapping[str, set[str]]) -> Example:
    """With the set's name before its id and group; its link to the row that it was made of is kept."""
    attributes = dict(example.attributes)
    if "of" in attributes:
        attributes["of"] = _origin(name, example.id, attributes["of"], ids)
    group = f"{name}: {example.group}" if example.group else name
    return replace(example, id=f"{name}/{example.id}", group=group, attributes=attributes)


def _origin(name: str, own: str, of: str, ids: Mapping[str, set[str]]) -> str:
    """The new id of row `of`: of the same set, unless it is the row itself; else of the only other that has it."""
    others = [other for other, held in ids.items() if other != name and of in held]
    return f"{others[0]}/{of}" if len(others) == 1 and (of == own or of not in ids[name]) else f"{name}/{of}"


def _read(adapter: Adapter, place: str, images: Path | None, fetch: Fetch) -> Dataset:
    if adapter.made is not None:
        if place:
            raise BadData(f"{adapter.title} is drawn anew each time, and read from no file.", f"Write {adapter.name}.")
        return adapter.made()
    if place:
        return adapter.read(Path(place), images)
    if adapter.hub is None:
        raise BadData(
            f"{adapter.title} was not found on the hub, so it needs a path.",
            f"{adapter.how} Then write {adapter.name}:PATH.",
        )
    folder = from_hub(adapter.hub, f"{adapter.how} Then write {adapter.name}:PATH.", fetch)
    data = adapter.read(folder, images)
    return replace(data, notes=(f"From the hub: {adapter.hub.id}, snapshot {folder.name}.", *data.notes))
