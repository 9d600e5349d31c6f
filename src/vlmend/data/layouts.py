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

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, zip_longest
from pathlib import Path

from vlmend.core.attacks import ATTACK, attributes_of_attack
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
    """Several sets as one, in turns, so that a limit takes from each; sets of one name are numbered."""
    doubled = sorted({a.name for a, b in combinations(sets, 2) if a.name == b.name and a.digest == b.digest})
    if doubled:
        raise BadData(f"The data set {', '.join(doubled)} is named twice.", "Name each once.")
    counts: Counter[str] = Counter()
    held: dict[str, Dataset] = {}
    for one in sets:
        counts[one.name] += 1
        held[one.name if counts[one.name] == 1 else f"{one.name} {counts[one.name]}"] = one
    links = _Links(held)
    named = [[_named(name, example, links) for example in one.examples] for name, one in held.items()]
    rows = tuple(e for e in chain.from_iterable(zip_longest(*named)) if e is not None)
    notes = tuple(f"{name}: {note}" for name, one in held.items() for note in one.notes)
    licences = "; ".join(dict.fromkeys(one.licence for one in sets if one.licence))
    return Dataset("+".join(held), rows, licences, notes, any(one.test_only for one in sets))


def _named(name: str, example: Example, links: _Links) -> Example:
    """With the set's name before its id and group; its link to the row that it was made of is kept."""
    attributes = dict(example.attributes)
    if "of" in attributes:
        attributes["of"] = links.of(name, example)
    group = f"{name}: {example.group}" if example.group else name
    return replace(example, id=f"{name}/{example.id}", group=group, attributes=attributes)


class _Links:
    """Which row of several sets, by name, another was made of."""

    def __init__(self, sets: Mapping[str, Dataset]) -> None:
        self._made = {name: {e.id: e.attributes.get("of") for e in one.examples} for name, one in sets.items()}
        origins = {name: _attacked_set(one) for name, one in sets.items()}
        self._origins = {name: origin for name, origin in origins.items() if origin}
        answers: defaultdict[str, defaultdict[str, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
        for name, origin in self._origins.items():
            for row in sets[name].examples:
                answers[origin][row.attributes.get("of", row.id)].add(row.answers)
        self._unlike = {origin for origin, rows in answers.items() if any(len(each) > 1 for each in rows.values())}

    def of(self, name: str, row: Example) -> str:
        """The new id of the row that a row of this set was made of.

        It is of the same set, unless that row was itself made of one of its name, as an attack leaves it; else of the
        set on which the attack was run, or of the only other that has it. Where no set has it, attacks on one set
        share a link that leads nowhere, unless they differ in the answers of a row: then those were two sets.
        """
        of, origin = row.attributes["of"], self._origins.get(name, "")
        if self._made[name].get(of, of) != of:
            return f"{name}/{of}"
        others = [other for other, made in self._made.items() if other != name and made.get(of, of) != of]
        if len(others) == 1 or origin in others:
            return f"{origin if origin in others else others[0]}/{of}"
        return f"{name}/{of}" if others or not origin or origin in self._unlike else f"{origin}/{of}"


def _attacked_set(data: Dataset) -> str:
    """The name of the set that an attack made this one of; empty where none did."""
    attacks = {told[ATTACK].rpartition("+")[2] for row in data.examples if (told := attributes_of_attack(row))}
    return next((data.name.removesuffix(f"-{one}") for one in sorted(attacks) if data.name.endswith(f"-{one}")), "")


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
