"""fairness/group_outcomes: is a yes or no decision as right for people of one group as of another?

Zero-shot: a picture's score is its largest cosine with a text for yes less that with a text for no, and above 0 the
decision is yes. Beside it a linear probe on the pictures' embeddings, fitted on other people. By each attribute of the
rows that tells a group: AUC of each group, equity-scaled AUC, spread of AUC, demographic parity difference and
equalised odds difference, each with what chance gives.
Source: Luo et al., CVPR 2024 (Harvard-FairVLMed); Hardt, Price, Srebro, NeurIPS 2016 (equalised odds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.gaps import LEAST
from vlmend.audit.means import JUDGE, mean_row
from vlmend.audit.outcome_tables import outcome_frame
from vlmend.audit.people import check_clusters, check_sources, cluster_of, group_names, group_of, marked
from vlmend.audit.probing import out_of_fold
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.outcomes import Decided, by_chance, limits, outcomes, resampled_outcomes
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.data.outcomes import NO, OUTCOME, YES, people_outcomes
from vlmend.errors import BadData

__all__ = ["AUC", "ES_AUC", "ODDS", "PARITY", "SPREAD", "SUITE", "GroupOutcomes"]

AUC, ES_AUC, SPREAD, PARITY, ODDS = "auc", "es_auc", "auc_spread", "parity_difference", "odds_difference"

RATES: dict[str, tuple[Better, Unit]] = {
    "selection_rate": ("neither", "share"),
    "true_positive_rate": ("higher", "share"),
    "false_positive_rate": ("lower", "share"),
}

SCORE, TRUE, YES_SAID = "score", "answer is yes", "selection_rate"

PROBE = "probe_"
"""How the names of the probe's measures begin."""

ALL, UNKNOWN = "all", "cannot be read"

DRAWS, DEALINGS = 1000, 100

SAYS = {
    PARITY: "says yes for one group more often than for another by {value}",
    ODDS: "is right for one group more often than for another by {value} (equalised odds)",
}


class GroupOutcomes(SampleSuite[DualTarget]):
    """AUC, ES-AUC, parity and odds of a yes or no, zero-shot and by a linear probe, by every attribute of the rows."""

    name: ClassVar[str] = "fairness/group_outcomes"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "for whom a yes or no decision is right: AUC, ES-AUC, parity, odds (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return bool(_pictures(data)) and len({_outcome(row) for row in _texts(data)}) == 2

    def uses(self, data: Dataset) -> list[Example]:
        return [*_pictures(data), *_texts(data)]

    def sample_data(self) -> Dataset:
        pictures = (
            Example(f"{group}{k}", "", None, group, noise_image(16, 10 * k + len(group)),
                    attributes={OUTCOME: (YES, NO)[k % 2]})
            for group in ("man", "woman")
            for k in range(24)
        )  # fmt: skip
        texts = (Example(answer, f"a {answer}", attributes={OUTCOME: answer}) for answer in (YES, NO))
        return Dataset("few people and two answers", (*pictures, *texts))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = people_outcomes(split) if data is None else data
        pictures, texts = _pictures(given), _texts(given)
        names = group_names(pictures)
        _check(given, pictures, texts, names)
        rows = [row for answer in (YES, NO) for row in spread(_of(pictures, answer), limit)]
        bad = {row.id: why for row in rows if (why := problem_of(subject, row))}
        good = [row for row in rows if row.id not in bad]
        images = subject.embed_images([row.image for row in good if row.image is not None]).double()
        scores = _scores(subject, images, texts)
        truth, clusters = [_outcome(row) == YES for row in good], [cluster_of(row) for row in good]
        probed = out_of_fold(images.numpy(force=True), truth, clusters, seed=seed) or [None] * len(good)
        every = zip(good, scores, probed, strict=True)
        found = [one for row, score, probe in every for one in _samples(row, score, probe, names)]
        return [*found, *(Sample(name, UNKNOWN, name, "", reason=why) for name, why in bad.items())]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        found: list[Measure] = []
        for by in ("", PROBE) if any(PROBE + SCORE in sample.values for sample in samples) else ("",):
            for name in dict.fromkeys(sample.condition for sample in samples if sample.condition):
                found += self._attribute([one for one in samples if one.condition == name], name, by, seed)
            found += self._aucs([one for one in samples if not one.condition and one.group == ALL], ALL, by, seed)
        for group in dict.fromkeys(sample.group for sample in samples):
            for rate, (better, unit) in RATES.items():
                found.append(mean_row(self.axis, self.name, rate, group, samples, better, unit, seed))
        return found

    def _attribute(self, samples: Sequence[Sample], name: str, by: str, seed: int) -> Iterator[Measure]:
        """AUC of each group, then the measures over those that are large enough; `by` zero-shot or the probe."""
        for group in dict.fromkeys(sample.group for sample in samples):
            yield from self._aucs([one for one in samples if one.group == group], group, by, seed)
        ranked = _ranked(samples)
        decided = _decided(ranked, by)
        if len(decided.names) < 2:
            return
        value, frame = outcomes(decided), outcome_frame(decided)
        drawn = resampled_outcomes(decided, seed=seed, draws=DRAWS)
        floors = by_chance(decided, seed=seed, draws=DEALINGS)
        rows: dict[str, tuple[float, np.ndarray, str, Better]] = {
            ES_AUC: (float(value.es_auc[0]), drawn.es_auc, "es_auc", "higher"),
            SPREAD: (float(value.auc_spread[0]), drawn.auc_spread, "auc_spread", "lower"),
            PARITY: (frame.parity, drawn.parity, "parity", "lower"),
            ODDS: (frame.odds, drawn.odds, "odds", "lower"),
        }
        for kind, (own, again, floor, better) in rows.items():
            interval = limits(own, again, decided, spread=True)
            yield self._row(by + kind, name, interval, len(ranked), len(samples) - len(ranked), better, floors[floor])

    def _aucs(self, samples: Sequence[Sample], group: str, by: str, seed: int) -> Iterator[Measure]:
        """The AUC of one group, where it holds pictures of both answers."""
        scored = [sample for sample in samples if sample.values]
        decided = _decided([*scored], by)
        if len(set(decided.truth)) < 2:
            return
        one = Decided(decided.scores, decided.truth, decided.yes, [group] * len(scored), decided.clusters)
        value = float(outcomes(one).auc[0])
        drawn = resampled_outcomes(one, seed=seed, draws=DRAWS).auc
        interval = limits(value, drawn, one, spread=False)
        yield self._row(by + AUC, group, interval, len(scored), len(samples) - len(scored), "higher", 0.5)

    def _row(
        self, name: str, group: str, interval: Interval, n: int, unscored: int, better: Better, floor: float
    ) -> Measure:
        unit: Unit = "share" if name.removeprefix(PROBE) in (PARITY, ODDS) else "number"
        return Measure(
            self.axis, self.name, name, group, *interval, n, unscored, better, judge=JUDGE, unit=unit, floor=floor,
            says=SAYS.get(name, ""),
        )  # fmt: skip


def _outcome(row: Example) -> str:
    return row.attributes.get(OUTCOME, "").strip().casefold()


def _pictures(data: Dataset) -> list[Example]:
    return [row for row in data.examples if row.image is not None and _outcome(row) in (YES, NO)]


def _texts(data: Dataset) -> list[Example]:
    """What yes and no are said with."""
    return [row for row in data.examples if row.image is None and row.prompt and _outcome(row) in (YES, NO)]


def _of(rows: Sequence[Example], answer: str) -> list[Example]:
    return [row for row in rows if _outcome(row) == answer]


def _check(data: Dataset, pictures: Sequence[Example], texts: Sequence[Example], names: Sequence[str]) -> None:
    held = [len(_of(rows, answer)) for rows in (pictures, texts) for answer in (YES, NO)]
    if min(held) == 0 or not names:
        raise BadData(
            f"{data.name} holds {held[0]} pictures whose {OUTCOME} is {YES} and {held[1]} whose is {NO}, {held[2]} and "
            f"{held[3]} texts for these, and attributes of two groups or more: {', '.join(names) or 'none'}.",
            f'Pass pictures with "attributes": {{"{OUTCOME}": "{YES}" or "{NO}", "race": ...}}, and rows without image '
            f"whose prompt says what {YES} and what {NO} look like, with the same attribute {OUTCOME}.",
        )
    check_sources(data, pictures)
    for name in names:
        check_clusters(data, pictures, name)


def _scores(subject: DualTarget, images: Float[Tensor, "picture width"], texts: Sequence[Example]) -> list[float]:
    """Largest cosine with a text for yes less largest with one for no."""
    yes, no = (
        (images @ subject.embed_texts([row.prompt for row in _of(texts, answer)]).double().T).amax(1)
        for answer in (YES, NO)
    )
    return (yes - no).tolist()


def _samples(row: Example, score: float, probe: float | None, names: Sequence[str]) -> Iterator[Sample]:
    """The picture once for all, and once for each attribute that tells its group."""
    true = _outcome(row) == YES
    rate = "true_positive_rate" if true else "false_positive_rate"
    values = {SCORE: score, TRUE: float(true), YES_SAID: float(score > 0), rate: float(score > 0)}
    if probe is not None:
        values |= {PROBE + SCORE: probe, PROBE + YES_SAID: float(probe > 0)}
    yield Sample(row.id, ALL, cluster_of(row), row.caption or "", values)
    for name in names:
        if group := group_of(row, name):
            told = f"{name}: {marked(row, group)}"
            yield Sample(f"{row.id}:{name}", told, cluster_of(row), row.caption or "", values, condition=name)


def _ranked(samples: Sequence[Sample]) -> list[Sample]:
    """Those of groups with enough pictures of either answer; samples that could not be scored are not among them."""
    held = Counter((one.group, one.values[TRUE]) for one in samples if one.values)
    return [one for one in samples if one.values and min(held[one.group, 1.0], held[one.group, 0.0]) >= LEAST]


def _decided(samples: Sequence[Sample], by: str) -> Decided:
    return Decided(
        [one.values[by + SCORE] for one in samples], [one.values[TRUE] == 1 for one in samples],
        [one.values[by + YES_SAID] == 1 for one in samples], [one.group for one in samples],
        [one.cluster for one in samples],
    )  # fmt: skip


SUITE = GroupOutcomes()
