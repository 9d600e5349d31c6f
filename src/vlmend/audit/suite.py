"""What a suite is: questions to ask, a verdict on each reply, and measures over all of them.

A suite is plain Python over plain data. Inspect AI is not mentioned here: `entry` and `run` turn
any suite into Inspect tasks and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmend.core.conversation import Reply
from vlmend.core.examples import Dataset
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.metrics.resampling import cluster_bootstrap
from vlmend.core.metrics.stats import wilson
from vlmend.core.splits import SPLITS, Split, word_fraction
from vlmend.core.verdicts import JudgeKind, Verdict
from vlmend.data.requests import Kind, Request, builtin_requests
from vlmend.errors import SampleError
from vlmend.pictures.pool import Drawn, drawn

__all__ = [
    "Answer", "Condition", "MadeImage", "Question", "Suite", "behind", "builtin_picture", "chosen", "pixels_of",
    "share",
]  # fmt: skip

Condition = Literal["query", "caption", "blank", "noise", "original"]
"""query: text only. caption: the picture told in words, no image. blank, noise: a content-free
image. original: the image that belongs to the request."""

MadeImage = Literal["blank", "noise"]
PICTURE_SEED = 7


@dataclass(frozen=True)
class Question:
    """One thing to ask.

    Attributes:
        id: Unique within the suite; before and after are paired by it.
        prompt: The words.
        condition: How it is asked.
        group: What it counts for (harmful, lookalike, ordinary, ...).
        category: Topic.
        image: The image, or the name of one that is made to the model's size.
        target: Right answers, where there are any.
    """

    id: str
    prompt: str
    condition: Condition
    group: str
    category: str
    image: Image | MadeImage | None = None
    target: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came of one question; `label` is a judge's verdict, `unscored` where there is none.

    A question that was asked several times has answers with ids `ID#1`, `ID#2`, ...; `problem` says why
    it could not be put to the model at all.
    """

    id: str
    condition: Condition
    group: str
    category: str
    label: str
    reason: str
    prompt: str
    reply: str
    stop: str
    problem: str = ""


class Suite(ABC):
    """Questions, verdicts, measures. `name` is `axis/name`.

    `judged` names the kinds of judge that can give its verdicts; a suite without any marks its replies
    itself, against known answers.
    """

    name: ClassVar[str]
    axis: ClassVar[Axis]
    about: ClassVar[str]
    works_on: ClassVar[Literal["generative"]] = "generative"
    max_new_tokens: ClassVar[int]
    judged: ClassVar[frozenset[JudgeKind]] = frozenset()

    @abstractmethod
    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        """What to ask: of the user's data, or of a split of the built-in data where there is none."""

    def applies(self, data: Dataset) -> bool:
        """Whether the user's data holds anything for this suite to ask; an axis leaves out what does not."""
        return True

    @abstractmethod
    def verdict(self, question: Question, reply: str) -> Verdict:
        """Read one reply, at once and without a model: a judged suite's first opinion."""

    @abstractmethod
    def measures(self, answers: Sequence[Answer]) -> list[Measure]:
        """The rows of the scorecard."""

    @property
    @abstractmethod
    def judge_id(self) -> str:
        """Who gives these verdicts."""

    def answer(self, question: Question, reply: Reply | SampleError, name: str = "") -> Answer:
        """What came of a question, with the suite's own verdict; `name` is another id than the question's."""
        problem = f"{reply.code}: {reply}" if isinstance(reply, SampleError) else ""
        text, stop = ("", "none") if isinstance(reply, SampleError) else (reply.text, str(reply.stop))
        found = Verdict("unscored", problem) if problem else self.verdict(question, text)
        return Answer(
            name or question.id, question.condition, question.group, question.category, found.label, found.reason,
            question.prompt, text, stop, problem,
        )  # fmt: skip

    def row(self, name: str, group: str, answers: Iterable[Answer], hit: Collection[str], better: Better) -> Measure:
        """The share of the scored answers with these verdicts, as a scorecard row."""
        return share(self.axis, self.name, name, group, answers, hit, better)


def share(
    axis: Axis, suite: str, name: str, group: str, answers: Iterable[Answer],
    hit: Collection[str], better: Better,
) -> Measure:  # fmt: skip
    """The share of scored answers whose label is a hit, with its interval and the unscored count.

    Wilson's interval; where requests were asked several times, a bootstrap over requests, since their
    answers are not independent.
    """
    every = list(answers)
    scored = [answer for answer in every if answer.label != "unscored"]
    hits = [float(answer.label in hit) for answer in scored]
    asked = [answer.id.partition("#")[0] for answer in scored]
    if len(set(asked)) < len(asked):
        value, low, high = cluster_bootstrap(hits, asked, seed=0)
    else:
        value, low, high = wilson(int(sum(hits)), len(hits))
    unscored = len(every) - len(scored)
    return Measure(axis, suite, name, group, value, low, high, len(scored), unscored, better, tuple(sorted(hit)))


def behind(row: Measure, answers: Iterable[Answer]) -> list[Answer]:
    """The answers that a scorecard row was computed from."""
    return [a for a in answers if row.group in (a.condition, a.group, f"{a.group}:{a.condition}")]


def chosen(kind: Kind, limit: int | None, split: Split = "held_out") -> list[Request]:
    """Built-in requests of a split in an order that mixes the categories; the first `limit`."""
    ordered = sorted(builtin_requests(kind, split), key=lambda r: word_fraction(r.intent))
    return ordered[:limit]


def builtin_picture(index: int, split: Split = "held_out") -> tuple[Drawn, Image]:
    """Held-out picture of a thing, number `index`, for requests that bring no image of their own.

    Splits have pictures of their own; all are views that no phantom was trained on.
    """
    thing = drawn("object", "held_out", PICTURE_SEED + list(SPLITS).index(split), index)
    return thing, Image.from_pixels(thing.image, thing.facts["name"])


def pixels_of(question: Question, side: int) -> Image | None:
    """The image of a question at the model's size; noise differs from question to question."""
    match question.image:
        case "blank":
            return blank_image(side)
        case "noise":
            return noise_image(side, int(word_fraction(question.id) * 2**32))
        case _:
            return question.image
