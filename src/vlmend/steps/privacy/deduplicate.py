"""deduplicate: leaves one of all rows that say the same, so that nothing is learnt by heart for being repeated.

Three stages find pairs. Exact: the same pixels and the same words in the same places. Near: pictures whose perceptual
hashes differ in few bits, and words that share most of their shingles. Semantic: words whose sentence embeddings point
the same way. A row that is dropped always names a row that was kept and that it is a pair with: where A ~ B ~ C but not
A ~ C, dropping B alone is enough.

Kandpal et al. 2022, arXiv 2202.06539; Lee et al. 2022, arXiv 2107.06499; Abbas et al. 2023 (SemDeDup), arXiv
2303.09540; Slyman et al. 2024 (FairDeDup), arXiv 2404.16123.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from vlmend.core.contracts import AbstractStep, DataEdit, Dropped
from vlmend.core.examples import Dataset, Example
from vlmend.data.alike import BITS, Reading, pictures_alike, read_row, words_alike
from vlmend.errors import BadData, BadParameter, MissingExtra

__all__ = ["STEP", "Deduplicate"]

BLOCK = 4096
"""Embeddings compared at once."""

MOST_GROUPS = 20
"""Values that an attribute may have for its shares to be shown; more are ids rather than groups."""


@dataclass(frozen=True)
class Deduplicate(AbstractStep):
    """Drops exact, near and semantic duplicates. Rows with other labels or answers are never duplicates.

    Attributes:
        near: Whether near duplicates are looked for.
        hamming: Bits of 64 in which the hashes of near pictures may differ.
        jaccard: Share of shingles that near words have in common at least.
        semantic: Whether words that mean the same count as near too.
        eps: Semantic duplicates have a cosine above 1 - eps.
        match: row: pictures and words are both alike. picture: rows with pictures are told by these alone.
        fair_by: `group` or the name of an attribute: of duplicates the one stays whose group is least represented so
            far. Without it the first stays.
    """

    name: ClassVar[str] = "deduplicate"
    source: ClassVar[str] = "Kandpal et al. 2022, arXiv 2202.06539; Slyman et al. 2024, arXiv 2404.16123"
    idempotent: ClassVar[bool] = True

    near: bool = True
    hamming: int = 6
    jaccard: float = 0.8
    semantic: bool = False
    eps: float = 0.05
    match: Literal["row", "picture"] = "row"
    fair_by: str = ""

    def __post_init__(self) -> None:
        bad = [
            told
            for told, wrong in (
                (f"hamming={self.hamming}: 0 to 16 bits", not 0 <= self.hamming <= 16),
                (f"jaccard={self.jaccard:g}: above 0, at most 1", not 0 < self.jaccard <= 1),
                (f"eps={self.eps:g}: 0 to 1", not 0 <= self.eps <= 1),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("Thresholds are out of range.", "; ".join(bad) + ".")

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        groups = _groups(data, self.fair_by)
        read = {place: row for place, example in enumerate(data.examples) if (row := read_row(example)) is not None}
        alike: dict[object, list[int]] = defaultdict(list)
        for place, row in read.items():
            texts = () if self._by_picture(row) else row.texts
            alike[row.said, row.pixels, texts].append(place)
        classes = {places[0]: places for places in alike.values()}
        pairs, notes = self._pairs({place: read[place] for place in classes})
        dropped = _dropped(classes, pairs, groups)
        if len(read) < len(data.examples):
            unread = len(data.examples) - len(read)
            notes.append(f"{unread} rows with pictures that cannot be read were kept uncompared.")
        after = tuple(example for place, example in enumerate(data.examples) if place not in dropped)
        reasons = tuple(
            Dropped(data.examples[place], pair.why(data.examples[partner].id))
            for place, (partner, pair) in sorted(dropped.items())
        )
        made = replace(data, examples=after, notes=(*data.notes, *notes))
        return DataEdit(made, (), reasons, _tables(data, made, reasons, self.fair_by))

    def _by_picture(self, row: Reading) -> bool:
        return self.match == "picture" and bool(row.hashes)

    def _pairs(self, rows: Mapping[int, Reading]) -> tuple[dict[int, dict[int, _Pair]], list[str]]:
        """Pairs that are near or semantic duplicates, both ways, and what a reader must know."""
        pictures = pictures_alike(rows, self.hamming) if self.near or self.semantic else {}
        pairs = list(self._near(rows, pictures)) if self.near else []
        notes: list[str] = []
        if self.semantic:
            try:
                pairs += self._semantic(rows, pictures)
            except MissingExtra as problem:
                notes.append(f"The semantic stage was left out: {problem.message} {problem.hint}")
        found: dict[int, dict[int, _Pair]] = defaultdict(dict)
        for a, b, pair in pairs:
            found[a].setdefault(b, pair)
            found[b].setdefault(a, pair)
        return found, notes

    def _near(self, rows: Mapping[int, Reading], pictures: Mapping[int, set[int]]) -> Iterator[tuple[int, int, _Pair]]:
        """Each pair once, the later row first."""
        words = words_alike({place: row for place, row in rows.items() if not self._by_picture(row)}, self.jaccard)
        for a, row in rows.items():
            others = pictures[a] if self._by_picture(row) else words[a] & pictures.get(a, words[a])
            for b in sorted(others):
                other = rows[b]
                if row.said != other.said or not row.pictures_near(other, self.hamming):
                    continue
                wordless = bool(row.hashes) and not (row.words or other.words)
                shared = None if self._by_picture(row) or wordless else row.jaccard(other)
                if shared is None or shared >= self.jaccard:
                    yield a, b, _Pair("near", row.bits_apart(other), shared)

    def _semantic(
        self, rows: Mapping[int, Reading], pictures: Mapping[int, set[int]]
    ) -> Iterator[tuple[int, int, _Pair]]:
        """Pairs by the cosine of their words; where there are pictures, these must be near as well."""
        from vlmend.models.judging.sentences import encoder

        places = [place for place, row in rows.items() if row.words and not self._by_picture(row)]
        if not places:
            return
        vectors = encoder()([rows[place].words for place in places]).double()
        at = {place: k for k, place in enumerate(places)}
        plain = [place for place in places if not rows[place].hashes]
        later = [(a, b) for a in places for b in sorted(pictures.get(a, ())) if b in at]
        for start in range(0, len(plain), BLOCK):
            block = vectors[[at[place] for place in plain[start : start + BLOCK]]]
            before = vectors[[at[place] for place in plain[: start + BLOCK]]]
            above = (block @ before.T > 1 - self.eps).nonzero().tolist()
            later += [(plain[start + k], plain[j]) for k, j in above if j < start + k]
        for a, b in later:
            cosine = min(1.0, float(vectors[at[a]] @ vectors[at[b]]))
            if cosine > 1 - self.eps and rows[a].said == rows[b].said and rows[a].pictures_near(rows[b], self.hamming):
                yield a, b, _Pair("semantic", rows[a].bits_apart(rows[b]), cosine)


@dataclass(frozen=True)
class _Pair:
    """Why two rows are duplicates.

    Attributes:
        bits: In which the hashes of their pictures differ; None without pictures.
        share: Of shingles in common, or the cosine of their words; None where words were not compared.
    """

    stage: Literal["exact", "near", "semantic"]
    bits: int | None = None
    share: float | None = None

    def why(self, kept: str) -> str:
        """The reason, with the row that was kept."""
        told = [f"{self.bits} of {BITS} bits apart"] if self.bits is not None and self.stage != "exact" else []
        if self.share is not None:
            told.append(f"cosine {self.share:.3f}" if self.stage == "semantic" else f"{self.share:.3f} of shingles")
        return f"{self.stage}: as {kept}" + (f" ({', '.join(told)})" if told else "")


def _groups(data: Dataset, fair_by: str) -> list[str]:
    """The group of each row, empty where it is not known; no groups where fairness is not asked for.

    Raises:
        BadData: No row has this attribute.
    """
    groups = [_group(example, fair_by) for example in data.examples] if fair_by else []
    if fair_by and not any(groups):
        known = sorted({name for example in data.examples for name in example.attributes})
        raise BadData(
            f"No row of {data.name} has a {fair_by}.",
            "fair_by is `group` (a row's category) or the name of one of its attributes "
            f'({{"attributes": {{...}}}}); these rows have {", ".join(known) or "no attributes"}.',
        )
    return groups


def _group(example: Example, name: str) -> str:
    return example.group if name == "group" else example.attributes.get(name, "")


def _dropped(
    classes: Mapping[int, Sequence[int]], pairs: Mapping[int, Mapping[int, _Pair]], groups: Sequence[str]
) -> dict[int, tuple[int, _Pair]]:
    """For every row that goes one that stays, and the pair that they are.

    Args:
        classes: Exact duplicates, by the first of them.
        pairs: Between firsts.
        groups: Of each row; empty for the order of the data.
    """
    counts: Counter[str] = Counter()
    dropped: dict[int, tuple[int, _Pair]] = {}
    clusters = _clusters(classes, pairs)
    for cluster in sorted(clusters, key=lambda one: len(one) > 1 or len(classes[one[0]]) > 1):
        left = {place: member for member in cluster for place in classes[member]}
        while left:
            chosen = min(left, key=lambda place: (_represented(groups, counts, place), place))
            if groups:
                counts[groups[chosen]] += 1
            near = pairs.get(left[chosen], {})
            out = {place: near.get(first, _Pair("exact")) for place, first in left.items() if
                   first == left[chosen] or first in near}  # fmt: skip
            dropped |= {place: (chosen, pair) for place, pair in out.items() if place != chosen}
            left = {place: first for place, first in left.items() if place not in out}
    return dropped


def _represented(groups: Sequence[str], counts: Mapping[str, int], place: int) -> float:
    """How many rows of its group are kept so far; what is not known is no group and comes last."""
    if not groups:
        return 0
    return counts.get(groups[place], 0) if groups[place] else float("inf")


def _clusters(classes: Mapping[int, Sequence[int]], pairs: Mapping[int, Mapping[int, _Pair]]) -> list[list[int]]:
    """Firsts that hang together by pairs, each cluster and all of them in the order of the data."""
    seen: set[int] = set()
    found: list[list[int]] = []
    for first in sorted(classes):
        cluster, open_ = set[int](), [first]
        while open_:
            place = open_.pop()
            if place not in seen:
                seen.add(place)
                cluster.add(place)
                open_ += pairs.get(place, {})
        found += [sorted(cluster)] if cluster else []
    return found


def _tables(
    before: Dataset, after: Dataset, dropped: Sequence[Dropped], fair_by: str
) -> dict[str, list[dict[str, Any]]]:
    """What each stage dropped, and the shares of groups before and after."""
    stages = Counter(one.why.partition(":")[0] for one in dropped)
    found: dict[str, list[dict[str, Any]]] = {
        "stages": [{"stage": stage, "dropped": stages[stage]} for stage in ("exact", "near", "semantic")]
    }
    names = ["group", *sorted({name for example in before.examples for name in example.attributes})]
    for name in names:
        counts = [Counter(_group(example, name) for example in data.examples) for data in (before, after)]
        told = sorted(group for group in counts[0] if group)
        if told and (len(told) <= MOST_GROUPS or name == fair_by):
            found[f"shares by {name}"] = [
                {
                    name: group or "unknown", "rows before": counts[0][group],
                    "share before": counts[0][group] / len(before.examples), "rows after": counts[1][group],
                    "share after": counts[1][group] / len(after.examples),
                }
                for group in [*told, *([""] if counts[0][""] else [])]
            ]  # fmt: skip
    return found


STEP = Deduplicate
