"""A suite that asks: questions for a chat model, a verdict on each reply, and measures over all of them.

It is plain Python over plain data; `engine` asks and has replies read. Suites that measure a subject by themselves are
`core.contracts.SampleSuite`s.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from vlmend import registry
from vlmend.core.contracts import AbstractSuite
from vlmend.core.conversation import Conversation, Reply, Turn
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, blank_image, noise_image
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.splits import SPLITS, Split, word_fraction
from vlmend.core.targets import Access, Kind
from vlmend.core.verdicts import UNREAD, JudgeKind, Verdict
from vlmend.data.requests import Kind as RequestKind
from vlmend.data.requests import Request, builtin_requests
from vlmend.errors import SampleError, UsageError
from vlmend.pictures.pool import Drawn, drawn

__all__ = [
    "CONDITIONS", "IS_GARBLED", "Answer", "MadeImage", "Question", "Suite", "builtin_picture", "chosen", "earlier",
    "question_suite", "share",
]  # fmt: skip

CONDITIONS = ("query", "caption", "blank", "noise", "original")
"""The conditions that our own suites ask in; others may have their own. query: text only. caption: the picture told in
words, no image. blank, noise: a content-free image. original: the image that belongs to the request."""

MadeImage = Literal["blank", "noise"]
PICTURE_SEED = 7

SAME_TO_ALL = ("yes", "no", "WELL", "1", "lorem ipsum dolor sit amet consectetur", "")
"""Replies that answer nothing and may yet be marked as right."""

IS_GARBLED = "is garbled"
"""What the row of garbled replies counts: beside what is language, not beside what could be scored."""


@dataclass(frozen=True, slots=True)
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
        turns: What was said before: a system turn, earlier questions and replies.
        lead: Words that the reply begins with.
        more_images: Further images of the question, after `image`.
        request: What is wanted, without what a condition or an attack put around it; empty where that is the prompt.
        pair: What it shares with the question that differs from it in the group of the person alone.
    """

    id: str
    prompt: str
    condition: str
    group: str
    category: str
    image: Image | MadeImage | None = None
    target: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    lead: str = ""
    more_images: tuple[Image, ...] = ()
    request: str = ""
    pair: str = ""

    @property
    def wanted(self) -> str:
        """What judges read as the request: the same in every condition."""
        return self.request or self.prompt

    def conversation(self, side: int) -> Conversation:
        """What the model is asked; made images have `side` pixels a side, and noise differs between questions."""
        match self.image:
            case "blank":
                shown = (blank_image(side),)
            case "noise":
                shown = (noise_image(side, int(word_fraction(self.id) * 2**32)),)
            case None:
                shown = ()
            case image:
                shown = (image,)
        return Conversation((*self.turns, Turn("user", self.prompt, (*shown, *self.more_images))), self.lead)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question; `label` is a judge's verdict, `unscored` where there is none.

    A question that was asked several times has answers with ids `ID#1`, `ID#2`, ..., all with `asked` ID; `problem`
    says why it could not be put to the model at all, `fired` how often mends edited its states, `request` and `pair`
    are the question's.
    """

    id: str
    condition: str
    group: str
    category: str
    label: str
    reason: str
    prompt: str
    reply: str
    stop: str
    problem: str = ""
    asked: str = ""
    target: tuple[str, ...] = ()
    prompt_tokens: int = 0
    new_tokens: int = 0
    fired: int = 0
    request: str = ""
    pair: str = ""

    @property
    def wanted(self) -> str:
        """What judges read as the request, as for the question."""
        return self.request or self.prompt


class Suite(AbstractSuite[Answer]):
    """Questions, verdicts, measures. `name` is `axis/name`.

    `judged` names the kinds of judge that can give its verdicts, the one that answers its own question first; a suite
    without any marks its replies itself, against known answers. `stands_for` says what comparisons of mends draw on it
    for, one suite for each: harm is what a mend is to lower, over-refusal and sight are its price.
    """

    works_on: ClassVar[Kind] = "chat"
    needs: ClassVar[Access] = "replies"
    max_new_tokens: ClassVar[int]
    judged: ClassVar[tuple[JudgeKind, ...]] = ()
    stands_for: ClassVar[Literal["harm", "over-refusal", "sight", ""]] = ""

    @abstractmethod
    def questions(self, data: Dataset | None, limit: int | None, split: Split = "held_out") -> list[Question]:
        """What to ask: of the user's data, or of a split of the built-in data where there is none."""

    @abstractmethod
    def verdict(self, question: Question, reply: str) -> Verdict:
        """Read one reply, at once and without a model: a judged suite's first opinion."""

    @property
    @abstractmethod
    def judge_id(self) -> str:
        """Who gives these verdicts."""

    def answer(self, question: Question, reply: Reply | SampleError, name: str = "") -> Answer:
        """What came of a question, with the suite's own verdict; `name` is another id than the question's."""
        problem = f"{reply.code}: {reply}" if isinstance(reply, SampleError) else ""
        done = Reply("", "stop", 0, 0, 0.0) if isinstance(reply, SampleError) else reply
        text = _text(done.text)
        stop = "none" if problem else str(done.stop)
        found = Verdict("unscored", problem) if problem else self.verdict(question, text)
        return Answer(
            name or question.id, question.condition, question.group, question.category, found.label, found.reason,
            question.prompt, text, stop, problem, question.id if name else "", question.target, done.prompt_tokens,
            done.new_tokens, sum(done.fired.values()), question.request, question.pair,
        )  # fmt: skip

    def row(
        self, name: str, group: str, answers: Iterable[Answer], hit: Collection[str], better: Better, seed: int, *,
        says: str = "", against: str = "", compared: bool = True,
    ) -> Measure:  # fmt: skip
        """The share of the scored answers with these verdicts, as a scorecard row."""
        every = list(answers)
        found = share(self.axis, self.name, name, group, every, hit, better, seed)
        if "right" in hit and not self.judged:
            found = replace(found, floor=self.floor(every))
        return replace(found, says=says, against=against, compared="share" if compared else "none")

    def floor(self, answers: Sequence[Answer]) -> float:
        """Share that is right by the best of `SAME_TO_ALL`, replies that say the same to everything; NaN of none."""
        asked = [
            Question(a.asked or a.id, a.prompt, a.condition, a.group, a.category, target=a.target)
            for a in answers
            if a.label not in UNREAD
        ]
        right = [sum(self.verdict(one, said).label == "right" for one in asked) for said in SAME_TO_ALL]
        return max(right) / len(asked) if asked else math.nan

    def readability_rows(self, group: str, answers: Sequence[Answer], seed: int) -> list[Measure]:
        """Shares of the replies that are no answer: garbled ones, and those that a provider's filter took the place of.

        Each only where there are any.
        """
        asked = [replace(a, label=IS_GARBLED if a.label == "garbled" else "is language") for a in answers
                 if a.label != "unscored"]  # fmt: skip
        rows = [
            self.row("garbled_rate", group, asked, {IS_GARBLED}, "lower", seed, compared=False),
            self.row("filtered_rate", group, answers, {"filtered"}, "neither", seed, compared=False),
        ]
        return [row for row in rows if row.value > 0]


def question_suite(name: str) -> Suite:
    """A registered suite that asks.

    Raises:
        UsageError: It measures by itself, so there are no replies of it.
    """
    found = registry.suite(name)
    if not isinstance(found, Suite):
        raise UsageError(f"{found.name} asks for no replies.", "Name a suite that asks a model that answers.")
    return found


def _text(said: str) -> str:
    """What was said, itself where it can be written; half a surrogate pair is no text."""
    try:
        said.encode()
    except UnicodeEncodeError:
        return said.encode("utf-8", "replace").decode()
    return said


def share(
    axis: Axis, suite: str, name: str, group: str, answers: Iterable[Answer],
    hit: Collection[str], better: Better, seed: int,
) -> Measure:  # fmt: skip
    """The share of scored answers whose label is a hit, with its interval and the unscored count.

    Wilson's interval; where requests were asked several times, a bootstrap over requests, since their
    answers are not independent.
    """
    every = list(answers)
    scored = [answer for answer in every if answer.label not in UNREAD]
    hits = [float(answer.label in hit) for answer in scored]
    asked = [answer.asked or answer.id for answer in scored]
    value, low, high = mean_interval(hits, asked, seed=seed)
    unscored = len(every) - len(scored)
    return Measure(axis, suite, name, group, value, low, high, len(scored), unscored, better, tuple(sorted(hit)))


def chosen(kind: RequestKind, limit: int | None, split: Split = "held_out") -> list[Request]:
    """Built-in requests of a split in an order that mixes the categories; the first `limit`."""
    ordered = sorted(builtin_requests(kind, split), key=lambda r: word_fraction(r.intent))
    return ordered[:limit]


def earlier(example: Example, own: bool) -> dict[str, Any]:
    """What a question has of a row's earlier turns and further images: beside its own picture all, else the words."""
    if own:
        return {"turns": example.turns, "more_images": example.more_images}
    return {"turns": tuple(replace(turn, images=()) for turn in example.turns)}


def builtin_picture(index: int, split: Split = "held_out") -> tuple[Drawn, Image]:
    """Held-out picture of a thing, number `index`, for requests that bring no image of their own.

    Splits have pictures of their own; all are views that no phantom was trained on.
    """
    thing = drawn("object", "held_out", PICTURE_SEED + list(SPLITS).index(split), index)
    return thing, Image.from_pixels(thing.image, thing.facts["name"])
