"""fairness/disentanglement: do single axes of an encoder stand for single factors, and are its decisions even-handed?

Factors are what the rows say of a picture: gender, tone, occupation. Two readings of the embedding: its own axes of
largest variance, and its principal axes. MIG and DCI say how separate factors lie, unfairness how far zero-shot
decisions of a group lie from those of all. Separate axes do not make decisions fair: read both.
Source: Chen et al., 2018 (MIG); Eastwood and Williams, ICLR 2018 (DCI); Locatello et al., NeurIPS 2019,
arXiv 1905.13662 (unfairness).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vlmend.audit.means import FLOOR, JUDGE
from vlmend.audit.people import check_sources, cluster_of, group_names, group_of, marked
from vlmend.audit.suites.fairness.retrieval_skew import queries_of
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.metrics.disentangling import dci, mig, unfairness
from vlmend.core.metrics.resampling import expanded_percentile
from vlmend.core.metrics.skew import dealt
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData
from vlmend.pictures.galleries import people_by_cell

__all__ = ["DCI_NAMES", "MIG", "SUITE", "UNFAIR", "Disentanglement"]

Array = npt.NDArray[np.float64]

MIG, UNFAIR = "mig", "unfairness"

DCI_NAMES = ("dci_disentanglement", "dci_completeness", "dci_accuracy")

AXES = 16
"""Of each reading."""

READINGS = ("own axes", "principal axes")

TARGETS = ("occupation", "profession")
"""Factors that are no group of people."""

DECISION = "decision"

PICTURES, FORESTS, UNREADABLE = "pictures", "forests", "cannot be read"

DRAWS, DEALINGS = 150, 30

SAYS = "sends groups to other texts than everybody by {value} (total variation)"


class Disentanglement(SampleSuite[DualTarget]):
    """MIG of each factor, DCI, and the unfairness of zero-shot decisions toward each group, beside shuffled codes."""

    name: ClassVar[str] = "fairness/disentanglement"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "whether single axes stand for single factors, and decisions are even (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return len(_factors(_pictures(data))) > 1

    def uses(self, data: Dataset) -> list[Example]:
        return [*_pictures(data), *queries_of(data)]

    def sample_data(self) -> Dataset:
        rows = (
            Example(str(k), image=noise_image(16, k), caption=("a cook", "a judge")[k % 3 % 2],
                    attributes={"gender": ("man", "woman")[k % 2], "tone": ("dark", "light")[k // 2 % 2]})
            for k in range(9)
        )  # fmt: skip
        return Dataset("few people", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = people_by_cell(split) if data is None else data
        pictures = _pictures(given)
        factors = _factors(pictures)
        bad = {row.id: why for row in pictures if (why := problem_of(subject, row) or _unknown(row, factors))}
        good = [row for row in pictures if row.id not in bad]
        if len(factors) < 2 or len(good) < 4:
            raise BadData(
                f"{given.name} has {len(good)} pictures of known factors: {', '.join(factors) or 'none'}.",
                'Pass pictures with "attributes" of two factors or more, such as gender and occupation, each with two '
                "values or more, and texts or captions among which to decide.",
            )
        check_sources(given, good)
        images = subject.embed_images([row.image for row in good if row.image is not None]).double().numpy()
        said = _decisions(subject, given, images)
        codes = _codes(images)
        kept = {row.id for row in spread(good, limit)}
        found = [
            _sample(row, factors, {name: table[k] for name, table in codes.items()}, said[k] if said else "")
            for k, row in enumerate(good)
            if row.id in kept
        ]
        forests = _forests(codes, good, factors, seed)
        return [*found, *forests, *(Sample(name, UNREADABLE, name, "", reason=why) for name, why in bad.items())]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        pictures = [one for one in samples if one.group == PICTURES and one.values]
        lost = sum(not one.values for one in samples if one.group in (PICTURES, UNREADABLE))
        found = [*_gaps(self, pictures, lost, seed), *_unfair(self, pictures, lost, seed)]
        for one in samples:
            if one.group == FORESTS:
                found += [_forest_row(self, one, name) for name in DCI_NAMES]
        return found or [_row(self, MIG, "all", Interval(*[float("nan")] * 3), 0, lost, "higher", float("nan"))]


def _pictures(data: Dataset) -> list[Example]:
    return [row for row in data.examples if row.image is not None]


def _factors(pictures: Sequence[Example]) -> list[str]:
    """Groups of people, then what they do."""
    told = [name for name in TARGETS if len({row.attributes.get(name, "") for row in pictures} - {""}) > 1]
    return [*group_names(pictures), *told[:1]]


def _unknown(row: Example, factors: Sequence[str]) -> str:
    lacking = next((name for name in factors if not group_of(row, name)), "")
    return f"its {lacking} is not known" if lacking else ""


def _decisions(subject: DualTarget, data: Dataset, images: Array) -> list[str]:
    """The nearest text of each picture, among captions and texts; nothing with fewer than two."""
    texts = list(dict.fromkeys(
        [str(row.caption) for row in _pictures(data) if row.caption] + [row.prompt for row in queries_of(data)]
    ))  # fmt: skip
    if len(texts) < 2:
        return []
    near = images @ subject.embed_texts(texts).double().numpy().T
    return [texts[place] for place in near.argmax(1)]


def _codes(images: Array) -> dict[str, Array]:
    """Both readings, each of the `AXES` axes of largest variance."""
    own = images[:, np.sort(np.argsort(-images.var(0), kind="stable")[:AXES])]
    centred = images - images.mean(0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2][:AXES].T
    return dict(zip(READINGS, (own, turned), strict=True))


def _sample(row: Example, factors: Sequence[str], codes: dict[str, Array], said: str) -> Sample:
    values = {f"{name} {k:02d}": float(value) for name, code in codes.items() for k, value in enumerate(code)}
    told = {name: marked(row, group_of(row, name)) for name in factors} | ({DECISION: said} if said else {})
    return Sample(row.id, PICTURES, cluster_of(row), json.dumps(told, ensure_ascii=False), values)


def _forests(codes: dict[str, Array], rows: Sequence[Example], factors: Sequence[str], seed: int) -> list[Sample]:
    """DCI of each reading of all pictures, beside that of codes shuffled among them."""
    clusters = [cluster_of(row) for row in rows]
    told = [[group_of(row, name) for row in rows] for name in factors]
    found: list[Sample] = []
    for name, table in codes.items():
        own = dci(table, told, clusters, seed=seed)
        chance = dci(np.random.default_rng(seed).permutation(table), told, clusters, seed=seed)
        values = dict(zip(DCI_NAMES, own, strict=True))
        values |= {kind + FLOOR: value for kind, value in zip(DCI_NAMES, chance, strict=True)}
        found.append(Sample(f"{FORESTS}:{name}", FORESTS, name, name, values, condition=name))
    return found


def _forest_row(suite: Disentanglement, one: Sample, name: str) -> Measure:
    nothing = float("nan")
    value = one.values.get(name, nothing)
    n, lost = (1, 0) if one.values else (0, 1)
    floor = one.values.get(name + FLOOR, nothing)
    return _row(suite, name, one.condition, Interval(value, nothing, nothing), n, lost, "higher", floor)


def _read(pictures: Sequence[Sample], reading: str) -> Array:
    names = sorted(name for name in pictures[0].values if name.startswith(reading))
    return np.array([[one.values[name] for name in names] for one in pictures])


def _told(pictures: Sequence[Sample]) -> dict[str, list[str]]:
    rows = [json.loads(one.text) for one in pictures]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _weights(pictures: Sequence[Sample], seed: int) -> Iterator[Array]:
    """Bootstrap resamples of whole clusters, as how often each picture counts."""
    places = {name: k for k, name in enumerate(dict.fromkeys(one.cluster for one in pictures))}
    member = np.array([places[one.cluster] for one in pictures])
    rng, n = np.random.default_rng(seed), len(places)
    for _ in range(DRAWS):
        yield rng.multinomial(n, np.full(n, 1 / n))[member].astype(np.float64)


def _around(value: float, drawn: Sequence[float], people: int) -> Interval:
    """Resamples lie above a number that finite bins push up, so they are moved until their mean is the number."""
    estimates = np.asarray(drawn)
    return expanded_percentile((estimates - np.nanmean(estimates) + value).clip(0, 1), value, people, 0.95)


def _gaps(suite: Disentanglement, pictures: Sequence[Sample], lost: int, seed: int) -> Iterator[Measure]:
    """MIG of each factor in each reading; chance shuffles the codes."""
    if not pictures:
        return
    rng, people = np.random.default_rng(seed), len({one.cluster for one in pictures})
    for reading in READINGS:
        codes = _read(pictures, reading)
        for factor, told in _told(pictures).items():
            if factor == DECISION or len(set(told)) < 2:
                continue
            value = mig(codes, told)
            drawn = [mig(codes, told, weights) for weights in _weights(pictures, seed)]
            chance = float(np.mean([mig(rng.permutation(codes), told) for _ in range(DEALINGS)]))
            interval = _around(value, drawn, people)
            yield _row(suite, MIG, f"{reading}: {factor}", interval, len(pictures), lost, "higher", chance)


def _unfair(suite: Disentanglement, pictures: Sequence[Sample], lost: int, seed: int) -> Iterator[Measure]:
    """Of each factor that is a group of people; chance deals its groups among pictures of one occupation."""
    told = _told(pictures) if pictures else {}
    said, people = told.get(DECISION), len({one.cluster for one in pictures})
    for factor, own in told.items():
        if said is None or factor in (DECISION, *TARGETS):
            continue
        value, strata = unfairness(said, own), next((told[name] for name in TARGETS if name in told), [""] * len(own))
        drawn = [unfairness(said, own, weights) for weights in _weights(pictures, seed)]
        chance = float(np.mean([unfairness(said, row) for row in dealt(own, strata, seed=seed, draws=DEALINGS)]))
        yield _row(suite, UNFAIR, factor, _around(value, drawn, people), len(pictures), lost, "lower", chance, SAYS)


def _row(
    suite: Disentanglement, name: str, group: str, interval: Interval, n: int, lost: int, better: Better,
    floor: float, says: str = "",
) -> Measure:  # fmt: skip
    return Measure(
        suite.axis, suite.name, name, group, *interval, n, lost, better, judge=JUDGE, unit="number", floor=floor,
        says=says, ceiling=1.0,
    )  # fmt: skip


SUITE = Disentanglement()
