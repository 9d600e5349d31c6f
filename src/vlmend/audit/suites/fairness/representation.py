"""fairness/representation: who is in a data set, next to which occupations, and in which words?

People are counted by what captions and prompts say and by the labels that rows carry, never by a classifier. What is
not known is a category of its own and no group. Word lists and their sources are in `representation.json`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import combinations, product
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Measure, Unit
from vlmend.core.metrics.representation import associations, ita
from vlmend.core.metrics.resampling import cluster_bootstrap, mean_interval
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, Kind
from vlmend.errors import BadData, SampleError

__all__ = ["SUITE", "Representation", "lexicon"]

Gender = Literal["men", "women", "both", "neutral"]

UNKNOWN = "unknown"
"""What stands for an attribute that a row does not have."""

AND = " & "
TO = " -> "

WORDS, OCCUPATIONS, DATED, SKIN, REFERENCE = "words", "occupations", "dated words", "skin region", "reference"
"""Groups of samples that are not attributes."""

CROSSED = "crossed"
"""Condition of samples that cross two attributes."""

MENTIONS = 10
"""Mentions of an occupation beside a gendered word from which its association is shown."""

MOST_VALUES = 20
"""Values of an attribute above which it is taken for an id rather than a group."""

MOST_CROSSED = 8
"""Values of an attribute up to which it is crossed with others."""

NOT_GROUPS = {
    "cluster", "reference", "skin_region", "attack", "epsilon", "largest", "right before", "success", "of",
}  # fmt: skip
"""Attributes that say something else: how rows hang together, and what an attack noted."""


class Representation(SampleSuite[Dataset]):
    """Shares of men and women in the words, of given groups, of their crossings; nPMI with occupations; dated words."""

    name: ClassVar[str] = "fairness/representation"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "data"
    needs: ClassVar[Access] = "rows"
    about: ClassVar[str] = "who is in a data set, beside which occupations, in which words"

    def applies(self, data: Dataset) -> bool:
        return any(_text(row) or _attributes(row) for row in data.examples)

    def samples(
        self, subject: Dataset, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        if not self.applies(subject):
            raise BadData(
                f"{subject.name} has no words and no groups.",
                'Pass rows with "caption" or "prompt", or with "category" or "attributes".',
            )
        rows = [row for row in subject.examples if REFERENCE not in row.attributes][:limit]
        found = [_words(row) for row in rows] + [_dated(row) for row in rows]
        found += [sample for row in rows for sample in _occupations(row)]
        names = _names(rows)
        for name in names:
            found += _attribute(rows, name)
        small = [name for name in names if len({_value(row, name) for row in rows} - {UNKNOWN}) <= MOST_CROSSED]
        for one, other in combinations(small, 2):
            found += [_crossed(row, one, other) for row in rows]
        found += [_skin(row) for row in rows if "skin_region" in row.attributes]
        return found + [_reference(row, names) for row in subject.examples if REFERENCE in row.attributes]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        found: list[Measure] = []
        references = {sample.condition: sample.values for sample in samples if sample.group == REFERENCE}
        for group in dict.fromkeys(sample.group for sample in samples):
            of_group = [sample for sample in samples if sample.group == group]
            if group == WORDS:
                found += self._gender_rows(of_group, seed)
            elif group == DATED:
                found += self._dated_rows(of_group, seed)
            elif group == OCCUPATIONS:
                found += self._association_rows(of_group, seed)
            elif group == SKIN:
                degrees = [(s.values["ita"], s.cluster) for s in of_group if s.values]
                interval = cluster_bootstrap([value for value, _ in degrees], [c for _, c in degrees], seed=seed)
                found.append(self._row("ita", group, interval, len(degrees), len(of_group) - len(degrees), "number"))
            elif group != REFERENCE:
                found += self._shares(of_group, group, seed)
                found += self._ratios(of_group, group, references.get(group, {}), seed)
        return found

    def _gender_rows(self, samples: Sequence[Sample], seed: int) -> Iterator[Measure]:
        unscored = sum(not sample.label for sample in samples)
        scored = [sample for sample in samples if sample.label]
        for label in ("men", "women", "both", "neutral"):
            yield self._row(label, WORDS, _share(scored, {label}, seed), len(scored), unscored, hit=label)
        either = [sample for sample in scored if sample.label in ("men", "women")]
        row = self._row("women_of_gendered", WORDS, _share(either, {"women"}, seed), len(either), 0, hit="women")
        yield replace(row, says="names women in {value} of the rows that name one gender")

    def _dated_rows(self, samples: Sequence[Sample], seed: int) -> Iterator[Measure]:
        scored = [sample for sample in samples if sample.label]
        unscored = len(samples) - len(scored)
        labels = {sample.label for sample in scored} - {"none"}
        yield self._row(DATED.replace(" ", "_"), DATED, _share(scored, labels, seed), len(scored), unscored)
        terms = Counter(term for sample in scored for term in _terms_of(sample))
        for term, _ in sorted(terms.items(), key=lambda item: (-item[1], item[0])):
            with_term = {sample.label for sample in scored if term in _terms_of(sample)}
            name = f"dated_{_slug(term.partition(TO)[0])}"
            yield self._row(name, DATED, _share(scored, with_term, seed), len(scored), unscored, hit=term)

    def _association_rows(self, samples: Sequence[Sample], seed: int) -> Iterator[Measure]:
        counts = Counter((sample.condition, sample.label) for sample in samples)
        names = sorted({sample.condition for sample in samples})
        table = np.array([[counts[name, gender] for gender in ("men", "women")] for name in names], np.float64)
        found = associations(table, seed=seed)
        for r, name in enumerate(names):
            mentions = int(table[r].sum())
            for c, gender in enumerate(("men", "women")):
                if mentions >= MENTIONS:
                    interval = Interval(*(float(part[r, c]) for part in found))
                    yield self._row(f"npmi_{gender}", name, interval, mentions, 0, "number", hit=gender)

    def _shares(self, samples: Sequence[Sample], group: str, seed: int) -> Iterator[Measure]:
        scored = [sample for sample in samples if sample.label]
        labels = sorted({sample.label for sample in scored})
        if samples[0].condition == CROSSED:  # cells that nobody is in are shown too
            parts = [{label.split(AND)[k] for label in labels} - {UNKNOWN} for k in (0, 1)]
            labels = sorted({*labels, *(AND.join(pair) for pair in product(*parts))})
        if not labels:
            yield self._row("share", group, Interval(math.nan, math.nan, math.nan), 0, len(samples))
        for label in labels:
            share = _share(scored, {label}, seed)
            unscored = len(samples) - len(scored)
            yield self._row(f"share_{_slug(label)}", group, share, len(scored), unscored, hit=label)

    def _ratios(
        self, samples: Sequence[Sample], group: str, reference: Mapping[str, float], seed: int
    ) -> Iterator[Measure]:
        """Each share among rows whose group is known, as a multiple of the share that was declared."""
        known = [sample for sample in samples if sample.label not in ("", UNKNOWN)]
        for label, share in sorted(reference.items()):
            if known and share > 0:
                value, low, high = _share(known, {label}, seed)
                ratio = Interval(value / share, low / share, high / share)
                rest = len(samples) - len(known)
                yield self._row(f"ratio_{_slug(label)}", group, ratio, len(known), rest, "number", hit=label)

    def _row(
        self, name: str, group: str, interval: Interval, n: int, unscored: int, unit: Unit = "share", hit: str = ""
    ) -> Measure:
        """Shares of rows are not compared row by row: what changes between two data sets is which rows there are."""
        return Measure(
            self.axis, self.name, name, group, *interval, n, unscored,
            "lower" if group == DATED else "neither", (hit,) if hit else (), "rows", unit=unit,
        )  # fmt: skip


@dataclass(frozen=True)
class Lexicon:
    """Patterns of whole words; of dated terms with what to write instead."""

    men: re.Pattern[str]
    women: re.Pattern[str]
    occupations: Mapping[str, re.Pattern[str]]
    dated: Mapping[str, re.Pattern[str]]


@cache
def lexicon() -> Lexicon:
    """The word lists of `representation.json`."""
    held = json.loads(
        resources.files("vlmend.audit.suites.fairness").joinpath("representation.json").read_text("utf-8")
    )
    return Lexicon(
        _pattern(held["men"]),
        _pattern(held["women"]),
        {name: _pattern([name, f"{name}s"]) for name in held["occupations"]},
        {f"{one['term']}{TO}{one['replacement']}": _pattern(one["forms"]) for one in held["dated"]},
    )


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Whole words; parts of hyphenated ones are none."""
    longest = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])", re.IGNORECASE)


def _text(row: Example) -> str:
    return "\n".join(text for text in (row.caption or "", row.prompt) if text.strip())


def _gender(text: str) -> Gender:
    men, women = bool(lexicon().men.search(text)), bool(lexicon().women.search(text))
    return "both" if men and women else "men" if men else "women" if women else "neutral"


def _cluster(row: Example) -> str:
    """Rows of one cluster, or of one picture file, depend on each other."""
    own = row.attributes.get("cluster", "")
    if own or row.image is None or not isinstance(row.image.source, Path):
        return own or row.id
    return str(row.image.source)


def _sample(row: Example, group: str, label: str, reason: str = "", condition: str = "") -> Sample:
    name = f"{row.id}/{group}" + (f"/{condition}" if condition else "")
    return Sample(name, group, _cluster(row), _text(row)[:200], {}, label, reason, condition)


def _words(row: Example) -> Sample:
    text = _text(row)
    return _sample(row, WORDS, _gender(text) if text else "", "" if text else "no words")


def _dated(row: Example) -> Sample:
    text = _text(row)
    terms = [term for term, pattern in lexicon().dated.items() if pattern.search(text)]
    return _sample(row, DATED, ("; ".join(terms) or "none") if text else "", "" if text else "no words")


def _terms_of(sample: Sample) -> set[str]:
    return set(sample.label.split("; ")) - {"none", ""}


def _occupations(row: Example) -> Iterator[Sample]:
    """One sample for each occupation that is named beside words for men or for women, and not for both."""
    text = _text(row)
    gender = _gender(text)
    if gender in ("men", "women"):
        for name, pattern in lexicon().occupations.items():
            if pattern.search(text):
                yield _sample(row, OCCUPATIONS, gender, condition=name)


def _attributes(row: Example) -> dict[str, str]:
    """What a row says of who is in it, its group included."""
    told = {name: value for name, value in row.attributes.items() if name not in NOT_GROUPS}
    own = (WORDS, OCCUPATIONS, DATED, SKIN)
    named = {f"{name} (given)" if name in own else name: value for name, value in told.items()}
    return ({"group": row.group} if row.group else {}) | named


def _value(row: Example, name: str) -> str:
    return _attributes(row).get(name, "").strip() or UNKNOWN


def _names(rows: Sequence[Example]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in _attributes(row)))


def _attribute(rows: Sequence[Example], name: str) -> list[Sample]:
    values = [_value(row, name) for row in rows]
    many = len(set(values))
    if many > MOST_VALUES:
        reason = f"{many} values: rather ids than groups"
        return [Sample(f"attribute/{name}", name, name, name, {}, "", reason)]
    return [_sample(row, name, value) for row, value in zip(rows, values, strict=True)]


def _crossed(row: Example, one: str, other: str) -> Sample:
    values = (_value(row, name).replace(AND, " and ") for name in (one, other))
    return _sample(row, f"{one} x {other}", AND.join(values), condition=CROSSED)


def _skin(row: Example) -> Sample:
    """The typology angle of the region that the row names as left, top, right, bottom in pixels."""
    try:
        left, top, right, bottom = (int(part) for part in row.attributes["skin_region"].split(","))
        if row.image is None:
            return _sample(row, SKIN, "", "no picture")
        pixels = np.asarray(row.image.decode())[max(0, top) : bottom, max(0, left) : right]
    except (ValueError, SampleError) as problem:
        return _sample(row, SKIN, "", f"{problem}")
    if not pixels.size:
        return _sample(row, SKIN, "", "the region lies outside the picture")
    return Sample(f"{row.id}/{SKIN}", SKIN, _cluster(row), _text(row)[:200], {"ita": ita(pixels)})


def _reference(row: Example, names: Sequence[str]) -> Sample:
    """The shares that a row declares for an attribute: attributes `reference` (its name) and a share a value.

    Raises:
        BadData: They are no shares of an attribute of these rows.
    """
    name = row.attributes[REFERENCE]
    try:
        shares = {key: float(value) for key, value in row.attributes.items() if key != REFERENCE}
    except ValueError:
        shares = {}
    if name not in names or not shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1):
        raise BadData(
            f"Row {row.id} declares no shares of an attribute: {dict(row.attributes)}.",
            'Write {"reference": "gender", "woman": "0.5", "man": "0.5"}: an attribute of the rows, and shares that '
            "are 1 in all.",
        )
    return Sample(f"reference/{name}", REFERENCE, name, _text(row)[:200], shares, REFERENCE, condition=name)


def _share(samples: Sequence[Sample], labels: set[str], seed: int) -> Interval:
    """Wilson's interval where samples are independent; where some share a cluster, clusters are resampled."""
    hits = [float(sample.label in labels) for sample in samples]
    return mean_interval(hits, [sample.cluster for sample in samples], seed=seed)


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_").lower()


SUITE = Representation()
