"""safety/data_toxicity: how much hateful wording captions hold, and how much of it a filter of pictures leaves.

Hate content rate: the share of captions whose score of a class lies at or above a threshold (0.5 in the table, every
twentieth in the curve); `any` is the largest score of a caption. Scores are those that rows bring, of the user's own
detector, else those of an offline scorer. Crossed with how unsafe the pictures are: the rate among captions whose
picture passes a filter at several cut-offs, and unsafe pictures by whom the caption names.
Source: Birhane et al., arXiv 2110.01963; Birhane et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2311.03449.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vlmend.audit.suites.fairness.representation import lexicon
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Curve, Measure, Point
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, Kind
from vlmend.errors import BadData, MissingExtra, SampleError
from vlmend.models.judging.scorers import THRESHOLD, have, picture_scores, scorer_id, text_scores

__all__ = ["ANY", "GIVEN", "PUNSAFE", "SUITE", "DataToxicity", "given_score", "words_of_row"]

GIVEN = ("hateful", "targeted", "aggressive", "toxicity")
"""Attributes of rows that are scores of their words, 0 to 1, as pysentimiento, Detoxify or Perspective give them."""

PUNSAFE = "punsafe"
"""The attribute that says how unsafe a picture is, 0 to 1, as LAION's sets have it."""

ANY = "any"
CAPTIONS, PICTURES = "captions", "pictures"
RATE, UNSAFE, PRECISION, RECALL = "hate_content_rate", "nsfw_rate", "detector_precision", "detector_recall"
CUTS = (0.1, 0.3, 0.5)
"""Scores of pictures below which a filter keeps them."""
STEPS = 20
WHOM = {"men": "names men", "women": "names women"}
SAYS = "holds toxic wording in {value} of its captions, says the scorer"


@dataclass(frozen=True)
class DataToxicity(SampleSuite[Dataset]):
    """Hate content rates by class, among captions whose pictures pass a filter, by whom they name; detector precision.

    Attributes:
        scorer: Of words that bring no score.
        pictures: The scorer of pictures that bring none.
    """

    name: ClassVar[str] = "safety/data_toxicity"
    axis: ClassVar[Axis] = "safety"
    works_on: ClassVar[Kind] = "data"
    needs: ClassVar[Access] = "rows"
    about: ClassVar[str] = "hateful or toxic wording of captions, and what a filter of pictures leaves of it"
    quick: ClassVar[Mapping[str, Any]] = {"scorer": "grim"}

    scorer: str = "profanity"
    pictures: str = "nsfw"

    def applies(self, data: Dataset) -> bool:
        return any(words_of_row(row) for row in data.examples)

    def samples(
        self, subject: Dataset, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        if not self.applies(subject):
            raise BadData(f"{subject.name} has no words.", 'Pass rows with "caption" or "prompt".')
        rows = subject.examples[:limit]
        unsafe = self._pictures(rows)
        found = [self._with_picture(sample, unsafe) for sample in self._captions(rows)]
        given = any(PUNSAFE in row.attributes for row in rows)
        scorer = "" if given else self.pictures
        return [*found, *(_picture(row, unsafe[row.id], scorer) for row in rows if row.id in unsafe)]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        captions = [sample for sample in samples if sample.group == CAPTIONS]
        classes = _classes(captions)
        found = [self._rate(name, name, captions, seed) for name in classes]
        for cut in CUTS:
            kept = [sample for sample in captions if sample.values.get(PUNSAFE, 1) < cut]
            if kept:
                found.append(self._rate(ANY, f"any, pictures below {cut:g}", kept, seed))
        for whom, told in WHOM.items():
            named = [sample for sample in captions if sample.condition == whom]
            if any(ANY in sample.values for sample in named):
                found.append(self._rate(ANY, f"any, {told}", named, seed))
        found += self._against_people(captions, seed)
        pictures = [sample for sample in samples if sample.group == PICTURES]
        for whom, told in {"": "", **WHOM}.items():
            own = [sample for sample in pictures if not whom or sample.condition == whom]
            if own:
                found.append(self._row(UNSAFE, f"pictures, {told}" if told else PICTURES, PUNSAFE, own, seed))
        return found

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        captions = [sample for sample in samples if sample.group == CAPTIONS and ANY in sample.values]
        return [
            Curve(
                self.name, "Hate content rate over the threshold", name, "threshold", "share of captions",
                tuple(self._point(name, k / STEPS, captions, seed) for k in range(STEPS + 1)),
            )
            for name in _classes(captions) if captions
        ]  # fmt: skip

    def _captions(self, rows: Sequence[Example]) -> Iterator[Sample]:
        given = [name for name in GIVEN if any(name in row.attributes for row in rows)]
        scored = [] if given else text_scores(self.scorer, [words_of_row(row) for row in rows])
        for k, row in enumerate(rows):
            plain = Sample(f"{row.id}/caption", CAPTIONS, _cluster(row), words_of_row(row)[:200], condition=_whom(row))
            if not words_of_row(row):
                yield replace(plain, reason="no words")
                continue
            values = {name: given_score(row, name) for name in given} or {_short(self.scorer): scored[k]}
            if lacking := [name for name, value in values.items() if math.isnan(value)]:
                yield replace(plain, reason=f"no score from 0 to 1: {', '.join(lacking)}")
            else:
                label = row.label or ""
                yield replace(plain, values={ANY: max(values.values()), **values}, label=label)

    def _pictures(self, rows: Sequence[Example]) -> dict[str, float | str]:
        """How unsafe each picture is, by row, or why that is not known."""
        if any(PUNSAFE in row.attributes for row in rows):
            found = {row.id: given_score(row, PUNSAFE) for row in rows if row.image or PUNSAFE in row.attributes}
            return {name: f"no {PUNSAFE} from 0 to 1" if math.isnan(value) else value for name, value in found.items()}
        pictured = [row for row in rows if row.image is not None]
        if not have(self.pictures):
            return {row.id: f"{self.pictures} is not installed (extra moderation)" for row in pictured}
        return {row.id: self._score(row) for row in pictured}

    def _score(self, row: Example) -> float | str:
        assert row.image is not None
        try:
            return picture_scores(self.pictures, [row.image.decode()])[0]
        except (SampleError, MissingExtra) as problem:
            return problem.message

    def _with_picture(self, sample: Sample, unsafe: Mapping[str, float | str]) -> Sample:
        value = unsafe.get(sample.id.removesuffix("/caption"))
        return (
            replace(sample, values={**sample.values, PUNSAFE: value})
            if isinstance(value, float) and sample.values
            else sample
        )

    def _rate(self, name: str, group: str, samples: Sequence[Sample], seed: int) -> Measure:
        row = self._row(RATE, group, name, samples, seed)
        return replace(row, says=SAYS if group == ANY else "")

    def _row(self, name: str, group: str, value: str, samples: Sequence[Sample], seed: int) -> Measure:
        """The share at or above the threshold; rows of two sets are not compared row by row."""
        scored = [sample for sample in samples if value in sample.values]
        hits = [float(sample.values[value] >= THRESHOLD) for sample in scored]
        return self._measure(name, group, hits, scored, len(samples) - len(scored), seed)

    def _measure(
        self, name: str, group: str, hits: Sequence[float], scored: Sequence[Sample], unscored: int, seed: int
    ) -> Measure:
        interval = mean_interval(hits, [sample.cluster for sample in scored], seed=seed)
        judge = self._judge(self.scorer if name != UNSAFE else self.pictures, scored)
        better = "higher" if name in (PRECISION, RECALL) else "lower"
        return Measure(self.axis, self.name, name, group, *interval, len(hits), unscored, better, judge=judge)

    def _judge(self, scorer: str, scored: Sequence[Sample]) -> str:
        """Who scored: a scorer leaves its name among the values."""
        own = any(_short(scorer) in sample.values for sample in scored)
        return scorer_id(scorer) if own and have(scorer) else "scores of the rows"

    def _against_people(self, captions: Sequence[Sample], seed: int) -> list[Measure]:
        """Where rows bring people's labels: what is flagged and harmful, of the flagged and of the harmful."""
        told = [sample for sample in captions if sample.label]
        flagged = [sample for sample in told if sample.values[ANY] >= THRESHOLD]
        harmful = [sample for sample in told if sample.label == "harmful"]
        rest = len(captions) - len(told)
        found: list[Measure] = []
        if flagged:
            hits = [float(sample.label == "harmful") for sample in flagged]
            found.append(self._measure(PRECISION, ANY, hits, flagged, rest, seed))
        if harmful:
            hits = [float(sample.values[ANY] >= THRESHOLD) for sample in harmful]
            found.append(self._measure(RECALL, ANY, hits, harmful, rest, seed))
        return found

    def _point(self, name: str, threshold: float, samples: Sequence[Sample], seed: int) -> Point:
        scored = [sample for sample in samples if name in sample.values]
        hits = [float(sample.values[name] >= threshold) for sample in scored]
        value, low, high = mean_interval(hits, [sample.cluster for sample in scored], seed=seed)
        return Point(threshold, value, low, high, len(hits))


def words_of_row(row: Example) -> str:
    """What is scored of a row: its caption, else its prompt."""
    return (row.caption or row.prompt).strip()


def given_score(row: Example, name: str) -> float:
    """A score that a row brings; NaN where it brings none, or no number from 0 to 1."""
    try:
        value = float(row.attributes.get(name, "nan"))
    except ValueError:
        return math.nan
    return value if 0 <= value <= 1 else math.nan


def _classes(samples: Sequence[Sample]) -> list[str]:
    """`any`, and where there are several the classes themselves."""
    named = dict.fromkeys(name for sample in samples for name in sample.values if name not in (ANY, PUNSAFE))
    return [ANY, *named] if len(named) > 1 else [ANY]


def _short(scorer: str) -> str:
    """The name of a scorer without its file."""
    return scorer.partition(":")[0]


def _picture(row: Example, found: float | str, scorer: str) -> Sample:
    plain = Sample(f"{row.id}/picture", PICTURES, _cluster(row), words_of_row(row)[:200], condition=_whom(row))
    if isinstance(found, str):
        return replace(plain, reason=found)
    return replace(plain, values={PUNSAFE: found} | ({scorer: found} if scorer else {}))


def _cluster(row: Example) -> str:
    return row.attributes.get("cluster") or row.id


def _whom(row: Example) -> str:
    """men, women, or "" for both and neither."""
    men, women = bool(lexicon().men.search(words_of_row(row))), bool(lexicon().women.search(words_of_row(row)))
    return "" if men == women else "men" if men else "women"


SUITE = DataToxicity()
