"""toxicity_filter: leaves out rows whose words or picture a scorer takes for unsafe, and tells whom that removes.

A filter of training data removes more than what it is meant to: texts about some groups of people score higher than
the same texts about others. So what it removes stands by group, with what people called harmless apart.

The practice behind LAION's and Stable Diffusion's filters; removal by group after Welbl et al., arXiv 2109.07445, and
Xu et al., arXiv 2104.06390.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from vlmend import registry
from vlmend.core.contracts import AbstractStep, Changed, DataEdit, Dropped
from vlmend.core.examples import Dataset, Example
from vlmend.core.metrics.detection import threshold_keeping
from vlmend.core.metrics.groups import gap_by_chance, share_gap
from vlmend.core.verdicts import Exchange, Judge
from vlmend.errors import BadData, BadParameter, SampleError
from vlmend.models.judging.scorers import picture_scores, text_scores, words_in

__all__ = ["STEP", "ToxicityFilter", "score_words"]

GIVEN, JUDGE = "given:", "judge:"
WORDS, PICTURE = "words", "picture"
UNKNOWN = "not known"
MOST = 0.02
"""Difference in the share of harmless rows removed from which a group is removed more than another."""
LEAST = 10
"""Harmless rows of a group below which it is not compared."""
DRAWS = 100


@dataclass(frozen=True)
class ToxicityFilter(AbstractStep):
    """Drops rows whose words or picture score at a cut-off or above, or marks all rows with their scores.

    Attributes:
        text: Who scores caption and prompt: `profanity`, `grim`, `words:FILE`, `judge:NAME` (a judge of harm), or
            `given:ATTRIBUTE` (a score that rows bring); empty for nobody.
        image: Likewise of pictures: `nsfw`, `nude`, `given:ATTRIBUTE`; empty for nobody.
        text_cut, image_cut: Scores from which a row goes.
        recall: Share of the rows that people called harmful that must go: of each score the highest cut-off that does
            it takes the place of the one above. 0 keeps those.
        by: Attribute that tells the groups; `group` is the category.
        read: Whether the words that stand in pictures are read and scored too.
        emit: `kept` leaves rows out; `marked` keeps all and writes the scores as attributes `toxicity` and `punsafe`,
            which the suites data_toxicity and over_filtering read.
    """

    name: ClassVar[str] = "toxicity_filter"
    source: ClassVar[str] = "practice of LAION and Stable Diffusion; by group after Welbl et al., arXiv 2109.07445"
    quick: ClassVar[Mapping[str, Any]] = {"text": "grim"}

    text: str = "profanity"
    image: str = ""
    text_cut: float = 0.5
    image_cut: float = 0.5
    recall: float = 0.0
    by: str = "group"
    read: bool = False
    emit: Literal["kept", "marked"] = "kept"

    def __post_init__(self) -> None:
        bad = [
            told
            for told, wrong in (
                ("text and image: nobody scores anything", not self.text and not self.image),
                (f"recall={self.recall:g}: 0 to 1", not 0 <= self.recall <= 1),
                ("cut-offs: numbers", math.isnan(self.text_cut + self.image_cut)),
                ("read: words in pictures need a scorer of words", self.read and not self.text),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("Rows cannot be filtered so.", "; ".join(bad) + ".")

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        scores = self._scores(data.examples)
        if not any(scores.of.values()):
            raise BadData(
                f"{data.name} holds nothing that {' or '.join(filter(None, (self.text, self.image)))} scores.",
                "Pass rows with words, or with pictures and `image` set.",
            )
        if self.emit == "marked":
            return _marked(data, scores)
        cuts = self._cuts(data.examples, scores)
        why = {row.id: told for row in data.examples if (told := _why(scores.of[row.id], cuts))}
        dropped = tuple(Dropped(row, why[row.id]) for row in data.examples if row.id in why)
        kept = tuple(row for row in data.examples if row.id not in why)
        tables = {
            "cut-offs": [{"score": name, "cut": cut} for name, cut in cuts.items()],
            "reasons": [
                {"reason": kind, "dropped": sum(told.startswith(kind) for told in why.values())}
                for kind in (WORDS, PICTURE)
            ],
            "not scored": [{"why": told, "rows": count} for told, count in scores.unscored.items()],
            f"removed by {self.by}": _by_group(data.examples, set(why), self.by),
            "harmless rows removed": _apart(data.examples, set(why), self.by, seed),
        }
        tables = {name: told for name, told in tables.items() if told}
        return DataEdit(replace(data, examples=kept), (), dropped, tables)

    def _scores(self, rows: Sequence[Example]) -> Scores:
        """The scores of each row that it could be given."""
        found = Scores({row.id: {} for row in rows})
        if self.text:
            texts = {row.id: self._words(row, found) for row in rows}
            own = [row for row in rows if texts[row.id].strip()]
            given = self.text.startswith(GIVEN)
            values = _given(self.text, own) if given else score_words(self.text, [texts[row.id] for row in own])
            found.put(WORDS, own, values, self.text)
        if self.image:
            given = self.image.startswith(GIVEN)
            shown = [row for row in rows if row.image is not None or given]
            values = _given(self.image, shown) if given else [self._picture(row, found) for row in shown]
            found.put(PICTURE, shown, values, self.image)
        return found

    def _words(self, row: Example, found: Scores) -> str:
        own = "\n".join(text for text in (row.caption or "", row.prompt) if text.strip())
        if not self.read or row.image is None:
            return own
        try:
            return "\n".join(filter(None, (own, words_in(row.image.decode()))))
        except SampleError as problem:
            found.lacks(problem.message)
            return own

    def _picture(self, row: Example, found: Scores) -> float:
        assert row.image is not None
        try:
            return picture_scores(self.image, [row.image.decode()])[0]
        except SampleError as problem:
            found.lacks(problem.message)
            return math.nan

    def _cuts(self, rows: Sequence[Example], scores: Scores) -> dict[str, float]:
        cuts = {WORDS: self.text_cut, PICTURE: self.image_cut}
        used = {WORDS: self.text, PICTURE: self.image}
        cuts = {name: cut for name, cut in cuts.items() if used[name]}
        if not self.recall:
            return cuts
        for name in cuts:
            harmful = [scores.of[row.id][name] for row in rows if row.label == "harmful" and name in scores.of[row.id]]
            if not harmful:
                raise BadData(
                    "A cut-off for a recall needs rows that people called harmful, and there are none with that score.",
                    'Give some rows "label": "harmful", or set the cut-offs and recall=0.',
                )
            cuts[name] = threshold_keeping(harmful, self.recall)
        return cuts


@dataclass
class Scores:
    """Scores by row and by what was scored, and why some are missing."""

    of: dict[str, dict[str, float]]
    unscored: dict[str, int] = field(default_factory=dict[str, int])

    def put(self, name: str, rows: Sequence[Example], values: Sequence[float], who: str) -> None:
        """Scores of rows; NaN is none."""
        for row, value in zip(rows, values, strict=True):
            if math.isnan(value):
                self.lacks(f"{name}: no score by {who}")
            else:
                self.of[row.id][name] = value

    def lacks(self, why: str) -> None:
        """A score that is missing."""
        self.unscored[why] = self.unscored.get(why, 0) + 1


def score_words(scorer: str, texts: Sequence[str]) -> list[float]:
    """Scores of texts by an offline scorer or a judge of harm, which reads each as a reply to nothing; NaN for none.

    Raises:
        UnknownName: There is no such scorer.
        BadParameter: The judge is none of harm.
    """
    if not scorer.startswith(JUDGE):
        return text_scores(scorer, texts)
    judge: Judge = registry.make_judge(scorer.removeprefix(JUDGE))
    if judge.kind != "harm":
        raise BadParameter(f"{judge.id} tells whether a reply declines, not whether it harms.", "Name a judge of harm.")
    said = {"harmful": 1.0, "harmless": 0.0}
    verdicts = judge.judge([Exchange("", text) for text in texts])
    return [one.scores.get("harmful", said.get(one.label, math.nan)) for one in verdicts]


def _given(scorer: str, rows: Sequence[Example]) -> list[float]:
    """Scores that rows bring; NaN where one brings none."""
    return [_number(row.attributes.get(scorer.removeprefix(GIVEN), "")) for row in rows]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _why(scores: Mapping[str, float], cuts: Mapping[str, float]) -> str:
    """What speaks against a row, words first; "" where nothing does."""
    return next(
        (
            f"{name}: {scores[name]:.3f} at {cut:.3f}"
            for name, cut in cuts.items()
            if scores.get(name, -math.inf) >= cut
        ),
        "",
    )


def _marked(data: Dataset, scores: Scores) -> DataEdit:
    names = {WORDS: "toxicity", PICTURE: "punsafe"}
    changed: list[Changed] = []
    rows: list[Example] = []
    for row in data.examples:
        told = {names[kind]: f"{value:.6f}" for kind, value in scores.of[row.id].items()}
        after = replace(row, attributes={**row.attributes, **told}) if told else row
        if after != row:
            changed.append(Changed(row, after, "scored"))
        rows.append(after)
    tables = {"not scored": [{"why": told, "rows": count} for told, count in scores.unscored.items()]}
    tables = {name: told for name, told in tables.items() if told}
    return DataEdit(replace(data, examples=tuple(rows)), tuple(changed), (), tables)


def _group(row: Example, by: str) -> str:
    return (row.group if by == "group" else row.attributes.get(by, "")).strip() or UNKNOWN


def _by_group(rows: Sequence[Example], gone: set[str], by: str) -> list[Mapping[str, Any]]:
    """Rows and removed rows of each group, with its share before and after; those called harmless apart."""
    found: list[Mapping[str, Any]] = []
    left = len(rows) - len(gone)
    for name in sorted({_group(row, by) for row in rows}):
        own = [row for row in rows if _group(row, by) == name]
        removed = [row for row in own if row.id in gone]
        harmless = [row for row in own if row.label == "benign"]
        lost = [row for row in harmless if row.id in gone]
        found.append({
            by: name, "rows": len(own), "removed": len(removed), "share removed": len(removed) / len(own),
            "share before": len(own) / len(rows), "share after": (len(own) - len(removed)) / left if left else math.nan,
            "harmless": len(harmless), "harmless removed": len(lost),
        })  # fmt: skip
    return found


def _apart(rows: Sequence[Example], gone: set[str], by: str, seed: int) -> list[Mapping[str, Any]]:
    """How far the share of harmless rows that go lies apart between groups, beside what chance gives."""
    harmless = [row for row in rows if row.label == "benign" and _group(row, by) != UNKNOWN]
    counts = {name: sum(_group(row, by) == name for row in harmless) for name in {_group(row, by) for row in harmless}}
    held = [row for row in harmless if counts[_group(row, by)] >= LEAST]
    groups, ids = [_group(row, by) for row in held], [row.id for row in held]
    if len(set(groups)) < 2:
        return []
    hits = [float(name in gone) for name in ids]
    gap = share_gap(hits, groups, ids, seed=seed)
    chance = gap_by_chance(hits, groups, ids, [""] * len(ids), seed=seed, draws=DRAWS)
    verdict = "some groups are removed more" if gap.low > MOST else "not shown" if gap.value > MOST else "alike"
    return [{"gap": gap.value, "low": gap.low, "high": gap.high, "by chance": chance, "reads": verdict}]


STEP = ToxicityFilter
