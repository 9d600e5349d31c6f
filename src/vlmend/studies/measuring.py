"""What a setting is judged by: safety, its price and what is left of sight, on one set of questions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vlmend import registry
from vlmend.audit.suite import Answer, Suite, question_suite, share
from vlmend.core.examples import Dataset
from vlmend.core.measures import Better, Measure
from vlmend.core.mend import Mend
from vlmend.core.splits import Split
from vlmend.core.verdicts import DECLINED, UNSAFE
from vlmend.studies.asking import Asker, Panel, changed, panel

__all__ = ["Outcome", "Panels", "Sizes", "front", "loops", "measure", "panels", "suite_for", "suite_panel", "table_row"]


def suite_for(what: str) -> Suite:
    """The suite that stands for harm, over-refusal or sight in comparisons of mends."""
    suites = (registry.suite(name) for name in registry.names("suites"))
    return next(one for one in suites if isinstance(one, Suite) and one.stands_for == what)


@dataclass(frozen=True)
class Sizes:
    """How many questions of each kind, and how long replies may be.

    Attributes:
        harmful, lookalike, ordinary, pictures: Questions; None is all.
        new_tokens: Longest reply.
    """

    harmful: int | None
    lookalike: int | None
    ordinary: int | None
    pictures: int | None
    new_tokens: int = 24


@dataclass(frozen=True)
class Panels:
    """The questions of one split."""

    harmful: Panel
    harmless: Panel
    naming: Panel


@dataclass(frozen=True)
class Outcome:
    """What one setting does.

    Attributes:
        unsafe, unsafe_text: Harmful requests answered, with their image and as text.
        lookalike, lookalike_text, ordinary, ordinary_text: Harmless requests declined.
        naming: Pictures named right.
        repetition: Replies to image requests that loop.
        answers: All of it, for paired tests.
    """

    unsafe: Measure
    unsafe_text: Measure
    lookalike: Measure
    lookalike_text: Measure
    ordinary: Measure
    ordinary_text: Measure
    naming: Measure
    repetition: Measure
    answers: tuple[Answer, ...]

    @property
    def rows(self) -> dict[str, Measure]:
        """The measures by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "answers"}


def panels(sizes: Sizes, split: Split, data: Dataset | None = None) -> Panels:
    """The built-in questions of a split; harmful and harmless ones from the user's data where given."""
    harm, refusal, sight = suite_for("harm"), suite_for("over-refusal"), suite_for("sight")
    kept = [q for q in refusal.questions(None, sizes.lookalike, split) if q.group == "lookalike"]
    kept += [q for q in refusal.questions(None, sizes.ordinary, split) if q.group == "ordinary"]
    if data is not None and refusal.applies(data):
        kept += refusal.questions(data, sizes.lookalike)
    return Panels(
        panel(harm, harm.questions(data, sizes.harmful, split)),
        panel(refusal, kept),
        panel(sight, sight.questions(None, sizes.pictures, split)),
    )


def measure(asker: Asker, asked: Panels, mends: Sequence[Mend] = ()) -> Outcome:
    """Ask the panels of one setting: text and original image only."""
    harm = asker.ask(asked.harmful.only("query", "original"), mends)
    harmless = asker.ask(asked.harmless, mends)
    named = asker.ask(asked.naming, mends)

    def unsafe(condition: str) -> Measure:
        rows = [a for a in harm if a.condition == condition]
        return _share("unsafe_rate", condition, rows, UNSAFE, "lower")

    def declined(group: str, condition: str) -> Measure:
        rows = [a for a in harmless if (a.group, a.condition) == (group, condition)]
        return _share("refusal_rate", f"{group}:{condition}", rows, DECLINED, "lower")

    return Outcome(
        unsafe=unsafe("original"),
        unsafe_text=unsafe("query"),
        lookalike=declined("lookalike", "original"),
        lookalike_text=declined("lookalike", "query"),
        ordinary=declined("ordinary", "original"),
        ordinary_text=declined("ordinary", "query"),
        naming=_share("accuracy", "naming", named, {"right"}, "higher"),
        repetition=loops([a for a in (*harm, *harmless) if a.condition == "original"]),
        answers=(*harm, *harmless, *named),
    )


def loops(answers: Sequence[Answer]) -> Measure:
    """Share of replies that repeat themselves: the same four words more than three times, or one word in two."""
    judged = [replace(a, label="loops" if a.reason == "loops" else "scored") for a in answers]
    return share("utility", "repetition", "repetition_rate", "original", judged, {"loops"}, "lower", 0)


def table_row(base: Outcome, mended: Outcome) -> dict[str, Any]:
    """Measures with the paired tests against the base, as JSON values."""
    tests = {
        "unsafe": (UNSAFE, "harmful", "original"),
        "lookalike": (DECLINED, "lookalike", "original"),
        "ordinary": (DECLINED, "ordinary", "original"),
        "naming": ({"right"}, "naming", "original"),
    }
    found: dict[str, Any] = {name: asdict(row) for name, row in mended.rows.items()}
    found["tests"] = {
        name: asdict(changed(_of(base, group, condition), _of(mended, group, condition), hit))
        for name, (hit, group, condition) in tests.items()
    }
    return found


def front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names that no other beats on one axis without losing on the other; smaller is better on both."""
    return [
        name
        for name, (x, y) in points.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())
    ]


def _of(outcome: Outcome, group: str, condition: str) -> list[Answer]:
    return [a for a in outcome.answers if (a.group, a.condition) == (group, condition)]


def _share(name: str, group: str, answers: Sequence[Answer], hit: Collection[str], better: Better) -> Measure:
    axis = "utility" if name == "accuracy" else "safety"
    return share(axis, "study", name, group, answers, hit, better, 0)


def suite_panel(name: str, count: int | None, split: Split) -> Panel:
    """The built-in questions of a registered suite of questions."""
    suite = question_suite(name)
    return panel(suite, suite.questions(None, count, split))
