"""Does a model still answer when pictures or questions come from elsewhere? Accuracy by domain, and what each costs.

Every domain of the data is held against the first one, or against rows without a shift: on the same questions where
rows say what they were made of, else on all of both. Replies are matched strictly and leniently, since strict matching
punishes right answers, and more so of generated text (Agrawal et al., Findings of EACL 2023, arXiv 2205.12191).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from statistics import fmean

from vlmend.audit.matching import holds, plain, same
from vlmend.audit.shifted import CLEAN
from vlmend.audit.suite import Answer, Question, Suite, earlier
from vlmend.core.attacks import attributes_of_attack
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Measure
from vlmend.core.metrics.resampling import mean_interval, paired_bootstrap
from vlmend.core.metrics.stats import Interval, difference, paired_difference
from vlmend.core.splits import Split
from vlmend.core.verdicts import UNREAD, Verdict
from vlmend.errors import BadData
from vlmend.pictures.galleries import QUESTION, shifted_objects

__all__ = ["SHIFTED", "SUITE", "ShiftedQuestions"]

SHIFTED = "every shift"
"""The group of every domain but the one that the others are held against."""

COUNT = 100
"""Built-in pictures of each domain."""

NOTHING = Interval(math.nan, math.nan, math.nan)

SAYS = {
    CLEAN: "answered {value} of the questions on ordinary pictures right",
    SHIFTED: "answered {value} of those on shifted ones right",
}


class ShiftedQuestions(Suite):
    """Accuracy by domain, strict and lenient, what each domain costs, and what its answers alone allow."""

    name = "robustness/shifted_questions"
    axis = "robustness"
    about = "questions on ordinary and on shifted pictures, or of several domains: accuracy, and what a shift costs"
    max_new_tokens = 16

    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        rows = _builtin(split) if data is None else self.uses(data)
        if not rows:
            raise BadData(
                f"{data.name if data else 'The data'} holds no questions on pictures with known answers.",
                'Give rows with "image" and "answers", and "attributes": {"shift": "fog"} on those from elsewhere.',
            )
        domains = _domains(rows)
        chosen = [row for domain in domains for row in [one for one in rows if _domain(one) == domain][:limit]]
        return [
            Question(
                name, row.prompt or QUESTION, _domain(row), CLEAN if _domain(row) == domains[0] else SHIFTED, row.group,
                row.image, row.answers, **earlier(row, True),
            )
            for name, row in zip(_names(chosen), chosen, strict=True)
        ]  # fmt: skip

    def applies(self, data: Dataset) -> bool:
        return len(_domains(self.uses(data))) > 1

    def uses(self, data: Dataset) -> tuple[Example, ...]:
        return tuple(
            row
            for row in data.examples
            if row.image is not None and row.answers and row.label != "harmful" and not attributes_of_attack(row)
        )

    def verdict(self, question: Question, reply: str) -> Verdict:
        if same(reply, question.target):
            return Verdict("right", "is the answer")
        held = holds(reply, question.target)
        return Verdict("right" if held else "wrong", "holds the answer" if held else "lacks the answer")

    def measures(self, samples: Sequence[Answer], seed: int) -> list[Measure]:
        first = [answer for answer in samples if answer.group == CLEAN]
        elsewhere = [answer for answer in samples if answer.group == SHIFTED]
        shifts = {name: [a for a in elsewhere if a.condition == name] for name in _conditions(elsewhere)}
        if len(shifts) > 1:
            shifts = {SHIFTED: elsewhere, **shifts}
        ordinary = "".join(_conditions(first))
        rows = self._accuracies(ordinary, first, "", seed) if first else []
        for place, (group, answers) in enumerate(shifts.items()):
            found = self._accuracies(group, answers, ordinary, seed)
            rows += found if place == 0 else [replace(row, says="") for row in found]
        return [*rows, *(row for group, answers in shifts.items() for row in self._costs(group, answers, first, seed))]

    @property
    def judge_id(self) -> str:
        return "an answer, alone or among other words"

    def _accuracies(self, group: str, answers: Sequence[Answer], against: str, seed: int) -> list[Measure]:
        """Lenient and strict accuracy of a domain, and replies that are no answer."""
        lenient = self._share("accuracy", group, answers, _right, seed)
        floor = max(self.floor(answers), _most_common(answers))
        says = SAYS[answers[0].group]
        compared = "none" if group == SHIFTED else "share"
        return [
            replace(lenient, hit=("right",), floor=floor, says=says, against=against, compared=compared),
            replace(self._share("strict_accuracy", group, answers, _exact, seed), floor=floor, against=against),
            *self.readability_rows(group, answers, seed),
        ]

    def _costs(self, group: str, answers: Sequence[Answer], first: Sequence[Answer], seed: int) -> list[Measure]:
        """What a domain costs in accuracy, and how much of that no answer of the first domain could have saved."""
        if not first:
            return []
        listed = {plain(answer) for one in first if one.label not in UNREAD for answer in one.target}
        within = self._share("answer_list_ceiling", group, answers, lambda one: _reachable(one, listed), seed)
        known = [answer for answer in answers if _reachable(answer, listed)]
        return [
            self._drop("drop", group, answers, first, _right, seed),
            self._drop("strict_drop", group, answers, first, _exact, seed),
            *([self._drop("drop_within_answer_list", group, known, first, _right, seed)] if within.value < 1 else []),
            replace(within, better="neither"),
        ]

    def _drop(
        self, name: str, group: str, answers: Sequence[Answer], first: Sequence[Answer],
        hit: Callable[[Answer], bool], seed: int,
    ) -> Measure:  # fmt: skip
        """Accuracy in the first domain less accuracy here: on the questions of both where there are any."""
        before, after = (_by_source(side, hit) for side in (first, answers))
        shared = [source for source in before if source in after]
        if shared:
            old, new = [before[source] for source in shared], [after[source] for source in shared]
            lost, n = _paired(new, old, seed), len(shared)
        else:
            sides = [self._share(name, group, side, hit, seed) for side in (first, answers)]
            lost = difference(*(Interval(side.value, side.low, side.high) for side in sides))
            n = sides[1].n if sides[0].n else 0
        unscored = sum(answer.label in UNREAD for answer in answers)
        return Measure(self.axis, self.name, name, group, *(lost if n else NOTHING), n, unscored, "lower", floor=0.0)

    def _share(
        self, name: str, group: str, answers: Sequence[Answer], hit: Callable[[Answer], bool], seed: int
    ) -> Measure:
        scored = [answer for answer in answers if answer.label not in UNREAD]
        value = mean_interval([float(hit(answer)) for answer in scored], list(map(_source, scored)), seed=seed)
        return Measure(self.axis, self.name, name, group, *value, len(scored), len(answers) - len(scored), "higher")


def _builtin(split: Split) -> list[Example]:
    """Some objects plain and under each shift; the last word of a name is enough."""
    return [
        replace(row, answers=tuple(dict.fromkeys((row.answers[0], row.answers[0].split()[-1]))))
        for row in shifted_objects(split, COUNT).examples
    ]


def _domain(row: Example) -> str:
    return row.attributes.get("shift") or row.attributes.get("domain") or CLEAN


def _domains(rows: Sequence[Example]) -> list[str]:
    """In the order of the data, but rows without a shift before all others."""
    return sorted(dict.fromkeys(map(_domain, rows)), key=lambda domain: domain != CLEAN)


def _names(rows: Sequence[Example]) -> list[str]:
    """Of each row what it was made of and its domain, numbered where several have both in common."""
    sources = [f"{row.attributes.get('of', row.id)}:{_domain(row)}" for row in rows]
    counts, seen = Counter(sources), Counter[str]()
    for place, source in enumerate(sources):
        if counts[source] > 1:
            seen[source] += 1
            sources[place] = f"{source}/{seen[source]}"
    return sources


def _source(answer: Answer) -> str:
    """What the row of an answer was made of."""
    return re.sub(rf":{re.escape(answer.condition)}(/\d+)?$", "", answer.asked or answer.id)


def _conditions(answers: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.condition for answer in answers))


def _right(answer: Answer) -> bool:
    return answer.label == "right"


def _exact(answer: Answer) -> bool:
    return same(answer.reply, answer.target)


def _reachable(answer: Answer, listed: Collection[str]) -> bool:
    return any(plain(one) in listed for one in answer.target)


def _most_common(answers: Sequence[Answer]) -> float:
    """Share that is right by the one answer that is right most often."""
    asked = [{plain(one) for one in answer.target} for answer in answers if answer.label not in UNREAD]
    counts = Counter(one for each in asked for one in each)
    return max(counts.values()) / len(asked) if asked else math.nan


def _by_source(answers: Sequence[Answer], hit: Callable[[Answer], bool]) -> dict[str, float]:
    """The share of hits of each source."""
    hits: dict[str, list[float]] = {}
    for answer in answers:
        if answer.label not in UNREAD:
            hits.setdefault(_source(answer), []).append(float(hit(answer)))
    return {source: fmean(every) for source, every in hits.items()}


def _paired(before: Sequence[float], after: Sequence[float], seed: int) -> Interval:
    """The change on the same sources: Tango's interval where each was asked once, else by resampling sources."""
    if set(before) | set(after) <= {0.0, 1.0}:
        return paired_difference([bool(one) for one in before], [bool(one) for one in after])
    return paired_bootstrap(before, after, seed=seed)


SUITE = ShiftedQuestions()
