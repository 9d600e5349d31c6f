"""What a suite is: questions to ask, a verdict on each reply, and measures over all of them.

A suite is plain Python over plain data. Inspect AI is not mentioned here: `entry` and `run` turn
any suite into Inspect tasks and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmend.core.contracts import Verdict
from vlmend.core.examples import Dataset
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.splits import SPLITS, Split, word_fraction
from vlmend.core.stats import wilson
from vlmend.data.requests import Kind, Request, builtin_requests
from vlmend.phantom.pictures import Picture, picture

__all__ = [
    "Answer", "Condition", "MadeImage", "Question", "Suite", "builtin_picture", "chosen", "pixels_of",
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
    """What came of one question; `label` is the suite's verdict, `unscored` where there is none."""

    id: str
    condition: Condition
    group: str
    category: str
    label: str
    reason: str
    prompt: str
    reply: str
    stop: str


class Suite(ABC):
    """Questions, verdicts, measures. `name` is `axis/name`."""

    name: ClassVar[str]
    axis: ClassVar[Axis]
    about: ClassVar[str]
    max_new_tokens: ClassVar[int]

    @abstractmethod
    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        """What to ask: of the user's data, or of a split of the built-in data where there is none."""

    def applies(self, data: Dataset) -> bool:
        """Whether the user's data holds anything for this suite to ask; an axis leaves out what does not."""
        return True

    @abstractmethod
    def verdict(self, question: Question, reply: str) -> Verdict:
        """Read one reply."""

    @abstractmethod
    def measures(self, answers: Sequence[Answer]) -> list[Measure]:
        """The rows of the scorecard."""

    @property
    @abstractmethod
    def judge_id(self) -> str:
        """Who gave the verdicts."""

    def row(
        self, name: str, group: str, answers: Iterable[Answer], hit: Callable[[Answer], bool], better: Better
    ) -> Measure:
        """A share of the scored answers as a scorecard row."""
        return share(self.axis, self.name, name, group, answers, hit, better)


def share(
    axis: Axis, suite: str, name: str, group: str, answers: Iterable[Answer],
    hit: Callable[[Answer], bool], better: Better,
) -> Measure:  # fmt: skip
    """The share of scored answers that are a hit, with Wilson's interval and the unscored count."""
    every = list(answers)
    scored = [answer for answer in every if answer.label != "unscored"]
    value, low, high = wilson(sum(hit(answer) for answer in scored), len(scored))
    return Measure(axis, suite, name, group, value, low, high, len(scored), len(every) - len(scored), better)


def chosen(kind: Kind, limit: int | None, split: Split = "held_out") -> list[Request]:
    """Built-in requests of a split in an order that mixes the categories; the first `limit`."""
    ordered = sorted(builtin_requests(kind, split), key=lambda r: word_fraction(r.intent))
    return ordered[:limit]


def builtin_picture(index: int, split: Split = "held_out") -> tuple[Picture, Image]:
    """Held-out picture number `index`, for requests that bring no image of their own.

    Splits have pictures of their own; all are views that no phantom was trained on.
    """
    drawn = picture("held_out", PICTURE_SEED + list(SPLITS).index(split), index)
    return drawn, Image.from_pixels(drawn.image, drawn.name)


def pixels_of(question: Question, side: int) -> Image | None:
    """The image of a question at the model's size; noise differs from question to question."""
    match question.image:
        case "blank":
            return blank_image(side)
        case "noise":
            return noise_image(side, int(word_fraction(question.id) * 2**32))
        case _:
            return question.image
