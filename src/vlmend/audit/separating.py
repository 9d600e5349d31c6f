"""What tells pairs that were trained on from others of the same pool: the blind baseline first, then a model's scores.

Where the blind baseline tells them apart, or cannot be fitted, what a model's scores come to is void.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from vlmend.audit.blind import blind_scores
from vlmend.audit.means import JUDGE
from vlmend.core.contracts import AbstractSuite, Sample
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Better, Curve, Measure, Point, Unit
from vlmend.core.metrics.membership import ByCluster, Separation, roc, separation, set_separation, tpr_by_chance
from vlmend.core.metrics.stats import Interval, difference
from vlmend.errors import BadData

__all__ = [
    "BLIND",
    "MEMBER",
    "SET",
    "answered",
    "blind_columns",
    "cluster_of",
    "dealt",
    "dealt_answers",
    "excess_row",
    "few_answers",
    "pairs_of",
    "roc_curves",
    "rows_of",
    "separated",
    "separation_rows",
    "set_rows",
    "words_of",
]

MEMBER = {"yes": "member", "no": "non_member"}
"""Values of the attribute `member`, and the groups of samples that they make."""

BLIND = ("blind_words", "blind_pixels")

SET = 20
"""Pairs of a set, where sets are told apart rather than pairs."""

NOTHING = Interval(math.nan, math.nan, math.nan)

ROC_NOTE = (
    "On logarithmic axes: what counts is how many are caught at few false alarms. Dotted: by chance. blind_words and "
    "blind_pixels know no model. Curves have no intervals; the table has."
)
VOID_NOTE = "Scores of the model are void, since the blind baseline tells the two apart, or could not be had."

VOID = "is asked about pairs that can be told apart without it (AUROC {value}), so its membership scores are void"


def pairs_of(data: Dataset | None) -> list[Example]:
    """The rows with picture and words."""
    rows = () if data is None else data.examples
    return [row for row in rows if row.image is not None and words_of(row)]


def answered(data: Dataset | None) -> list[Example]:
    """The rows with picture, question and an answer."""
    rows = () if data is None else data.examples
    return [row for row in rows if row.image is not None and row.prompt and any(row.answers[:1])]


def dealt(
    data: Dataset | None, rows: Sequence[Example], what: str, fields: str, more: str = ""
) -> tuple[list[Example], list[Example]]:
    """Those of these rows that are members, and those that are not.

    Args:
        data: Where the rows are from.
        rows: Those that a suite can use.
        what: They are, for people.
        fields: Of each, beside its membership.
        more: Where some can be had.

    Raises:
        BadData: One of the two is missing.
    """
    members, others = ([row for row in rows if row.attributes.get("member") == value] for value in MEMBER)
    if not members or not others:
        named = f"{data.name} has {len(members)} members and {len(others)} non-members" if data else "No data are given"
        raise BadData(
            f"{named}: membership is told on {what} of which it is known.",
            f'Pass --data with rows that have {fields} and "attributes": {{"member": "yes"}} or "no", a random split '
            f"of one pool{more}.",
        )
    return members, others


def dealt_answers(data: Dataset | None) -> tuple[list[Example], list[Example]]:
    """The answered rows of members and of non-members.

    Raises:
        BadData: One of the two is missing.
    """
    return dealt(data, answered(data), "answers", "image, prompt, answers")


def few_answers() -> Dataset:
    """Eight answered rows, half of them members, for the contract checks."""
    rows = (
        Example(str(k), f"code {k}?", image=noise_image(16, k), answers=(f"{k} 1",),
                attributes={"member": ("yes", "no")[k % 2]})
        for k in range(8)
    )  # fmt: skip
    return Dataset("answers", tuple(rows))


def words_of(row: Example) -> str:
    """The text of a pair."""
    return row.caption or row.prompt


def cluster_of(row: Example) -> str:
    """What a pair is resampled with."""
    return row.attributes.get("cluster", row.id)


def blind_columns(
    rows: Sequence[Example], seed: int, known: Sequence[bool] | None = None
) -> dict[str, Sequence[float]]:
    """How much like a member each pair is by words and by pixels alone: columns by `BLIND`.

    Args:
        rows: Pairs.
        seed: Of the folds.
        known: Which are members; unless told, those of which the attribute says so.
    """
    found = blind_scores(
        [words_of(row) for row in rows], [row.image.decode() for row in rows if row.image is not None],
        [row.attributes["member"] == "yes" for row in rows] if known is None else known,
        [cluster_of(row) for row in rows], seed=seed,
    )  # fmt: skip
    return {name: [float(value) for value in column] for name, column in found.items()}


def separation_rows(
    suite: AbstractSuite[Sample], scores: Mapping[str, str], samples: Sequence[Sample], seed: int, *,
    kinds: tuple[str, str] = (MEMBER["yes"], MEMBER["no"]), void_says: str = VOID, judge: str = JUDGE,
) -> list[Measure]:  # fmt: skip
    """AUROC, TPR at 1 % FPR and balanced accuracy of the blind baseline and of each score, members against others.

    Args:
        suite: Whose rows they are.
        scores: What a score's AUROC says of the model, by the score's name; empty for nothing.
        samples: Of the two groups, with blind scores among their values.
        seed: Of resampling.
        kinds: The groups: whose scores should be high, and the others.
        void_says: What the blind baseline's AUROC says where it makes the scores void.
        judge: Who gave the scores.
    """
    found = {name: separated(name, samples, kinds, seed) for name in (*BLIND, *scores)}
    void = any(_told_apart(found[name].auroc) is not False for name in BLIND)
    says = {name: void_says if _told_apart(found[name].auroc) else "" for name in BLIND} | dict(scores)
    return [
        row
        for name in (*BLIND, *scores)
        for row in rows_of(
            suite, name, found[name], samples, kinds[1], "neither" if name in BLIND else "lower",
            says=says[name], void=void and name in scores, judge=judge,
        )
    ]  # fmt: skip


def set_rows(
    suite: AbstractSuite[Sample], scores: Mapping[str, str], samples: Sequence[Sample], seed: int, *, judge: str = JUDGE
) -> list[Measure]:
    """AUROC of whole sets of pairs by their mean score, for the blind baseline and for each score.

    A set is all members or all non-members; what is a hint in one pair adds up. Void where the blind baseline's lies
    above chance, of sets or of single pairs.

    Args:
        suite: Whose rows they are.
        scores: What the AUROC says of the model, by the score's name; empty for nothing.
        samples: Of the groups of `MEMBER`, with blind scores among their values.
        seed: Of sets and resampling.
        judge: Who gave the scores.
    """
    found: dict[str, Interval] = {}
    for name in (*BLIND, *scores):
        members, others = (_by_cluster(name, samples, group) for group in MEMBER.values())
        found[name] = set_separation(members, others, SET, seed=seed)
    kinds = (MEMBER["yes"], MEMBER["no"])
    blind = [found[name] for name in BLIND] + [separated(name, samples, kinds, seed).auroc for name in BLIND]
    void = any(_told_apart(one) is not False for one in blind)
    rows: list[Measure] = []
    for name, interval in found.items():
        n = sum(name in sample.values for sample in samples)
        known = not (void and name in scores) and not math.isnan(interval.value)
        told, n, floor = (interval, n, 0.5) if known else (NOTHING, 0, math.nan)
        rows.append(
            Measure(
                suite.axis, suite.name, f"auroc_of_sets_of_{SET}", name, *told, n, len(samples) - n,
                "neither" if name in BLIND else "lower", judge=judge, floor=floor, unit="number",
                says=scores.get(name, "") if known else "", ceiling=1.0,
            )
        )  # fmt: skip
    return rows


def roc_curves(
    suite: AbstractSuite[Sample], scores: Sequence[str], samples: Sequence[Sample], seed: int, *,
    kinds: tuple[str, str] = (MEMBER["yes"], MEMBER["no"]),
) -> list[Curve]:  # fmt: skip
    """Members caught against false alarms, of the blind baseline and of each score; void scores have none.

    Args:
        suite: Whose they are.
        scores: Names.
        samples: Of the two groups, with blind scores among their values.
        seed: Of resampling, which tells what is void.
        kinds: The groups: whose scores should be high, and the others.
    """
    void = any(_told_apart(separated(name, samples, kinds, seed).auroc) is not False for name in BLIND)
    found: list[Curve] = []
    for name in (*BLIND, *(() if void else scores)):
        own, other = (
            [one.values[name] for one in samples if name in one.values and one.group == group] for group in kinds
        )
        if points := roc(own, other):
            told = tuple(Point(x, y, math.nan, math.nan, len(own)) for x, y in points)
            note = ROC_NOTE if not void else f"{ROC_NOTE} {VOID_NOTE}"
            found.append(
                Curve(suite.name, "who is told apart", name, "false alarms", f"{kinds[0]}s caught".replace("_", " "),
                      told, note, diagonal=True, scale="log")
            )  # fmt: skip
    return found


def excess_row(
    suite: AbstractSuite[Sample], name: str, means: Sequence[Measure], pool: Sequence[Sample], unit: Unit, says: str
) -> Measure:
    """What members have beyond others in the mean: what moves all pairs alike is gone from it.

    Args:
        suite: Whose row it is.
        name: Of the row.
        means: The mean of each group, those of `MEMBER` among them.
        pool: The samples behind these two.
        unit: Of the means.
        says: What it says of the model.
    """
    own, other = (next((row for row in means if row.group == group and row.n), None) for group in MEMBER.values())
    known = own is not None and other is not None
    found = difference(_interval(own), _interval(other)) if own is not None and other is not None else NOTHING
    n = sum(bool(sample.values) for sample in pool) if known else 0
    return Measure(
        suite.axis, suite.name, name, MEMBER["yes"], *found, n, len(pool) - n, "lower",
        judge=JUDGE, unit=unit, floor=0.0 if known else math.nan, says=says if known else "",
    )  # fmt: skip


def _interval(row: Measure) -> Interval:
    return Interval(row.value, row.low, row.high)


def separated(score: str, samples: Sequence[Sample], kinds: tuple[str, str], seed: int) -> Separation:
    """How well a score tells samples of the first group from those of the second."""
    return separation(*(_by_cluster(score, samples, group) for group in kinds), seed=seed)


def _by_cluster(score: str, samples: Sequence[Sample], group: str) -> ByCluster:
    """A score of the samples of a group, by cluster."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        if score in sample.values and sample.group == group:
            found[sample.cluster].append(sample.values[score])
    return found


def rows_of(
    suite: AbstractSuite[Sample], score: str, found: Separation, samples: Sequence[Sample], others: str, better: Better,
    *, says: str = "", void: bool = False, judge: str = JUDGE,
) -> list[Measure]:  # fmt: skip
    """AUROC, TPR at 1 % FPR and balanced accuracy as rows; what is void or not known is shown as unscored.

    Args:
        suite: Whose rows they are.
        score: Its name.
        found: The three numbers.
        samples: Behind them.
        others: The group that alarms about are false.
        better: Of all three.
        says: What the AUROC says.
        void: Whether the numbers mean nothing.
        judge: Who gave the scores.
    """
    scored = sum(score in s.values for s in samples)
    false = sum(score in s.values for s in samples if s.group == others)
    told: dict[str, tuple[Interval, Unit, float, str]] = {
        "auroc": (found.auroc, "number", 0.5, says),
        "tpr_at_1_fpr": (found.tpr, "share", tpr_by_chance(false), ""),
        "balanced_accuracy": (found.accuracy, "share", 0.5, ""),
    }
    rows: list[Measure] = []
    for name, (interval, unit, floor, said) in told.items():
        known = not void and not math.isnan(interval.value)
        interval, n, floor = (interval, scored, floor) if known else (NOTHING, 0, math.nan)
        rows.append(
            Measure(
                suite.axis, suite.name, name, score, *interval, n, len(samples) - n, better,
                judge=judge, unit=unit, floor=floor, says=said, ceiling=1.0,
            )
        )  # fmt: skip
    return rows


def _told_apart(auroc: Interval) -> bool | None:
    """Whether the whole interval lies above chance; None where nobody knows."""
    if math.isnan(auroc.value):
        return None
    return (auroc.value if math.isnan(auroc.low) else auroc.low) > 0.5
