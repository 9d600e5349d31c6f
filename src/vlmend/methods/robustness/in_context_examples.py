"""In-context examples: some questions with their pictures and right answers come before each request.

Zhang et al., arXiv 2402.06599: where a model sees well and answers in the wrong words, examples of the domain repair
the mapping; they help less, or harm, where their domain or labels are others than the request's.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, ClassVar, Literal

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import ShowExamples
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatTarget
from vlmend.errors import BadData, BadParameter
from vlmend.pictures.galleries import QUESTION, picture_questions, some_objects

__all__ = ["METHOD", "InContextExamples"]

MOST = 64
"""Examples that are worth a prompt."""


@dataclass(frozen=True)
class InContextExamples(AbstractMethod[ChatTarget]):
    """Examples before every request with an image.

    Attributes:
        examples: How many; as many of each answer as can be. At 0 requests stay as they are.
        labels: `right`, or `random`: each reply drawn from all answers, the control that must not help.
        pictures: Whether they are shown; else the rows' captions tell what is seen, for models that read one picture.
    """

    name: ClassVar[str] = "in_context_examples"
    source: ClassVar[str] = "Zhang et al., arXiv 2402.06599"
    needs: ClassVar[Access] = "replies"
    passes: ClassVar[str] = "none; the prompt is longer by the examples, their pictures most of all"
    data: ClassVar[str] = "questions on pictures with their answers"
    quick: ClassVar[dict[str, Any]] = {"examples": 2}

    examples: int = 4
    labels: Literal["right", "random"] = "right"
    pictures: bool = True

    def learn(self, target: ChatTarget, data: Dataset, *, seed: int) -> Mend:
        """Choose the examples and their order, both by the seed.

        Raises:
            BadParameter: Fewer than none, or more than 64 examples.
            BadData: The data hold fewer rows that can be one.
        """
        if not 0 <= self.examples <= MOST:
            raise BadParameter(f"examples={self.examples} cannot be shown.", f"Use 0 to {MOST}.")
        rows = [row for row in data.examples if row.image is not None and row.answers and row.label != "harmful"]
        rows = [row for row in rows if self.pictures or row.caption]
        if len(rows) < self.examples:
            raise BadData(
                f"{data.name} has {len(rows)} rows that can be shown, and examples={self.examples} are asked for.",
                f'Give rows with "image" and "answers"{"" if self.pictures else ", and a caption,"} or fewer examples.',
            )
        rng = random.Random(f"in-context:{seed}")
        shown = _balanced(rows, rng)[: self.examples]
        rng.shuffle(shown)
        answers = sorted({row.answers[0] for row in rows})
        drawn = [rng.choice(answers) for _ in shown]
        replies = [row.answers[0] for row in shown] if self.labels == "right" else drawn
        images = [row.image for row in shown if row.image is not None] if self.pictures else []
        for image in images:
            image.decode()  # one that cannot be read is found here, not in every request
        edit = ShowExamples(tuple(map(self._asked, shown)), tuple(replies), tuple(images))
        return self.made(target, data, seed, [edit], {})

    def builtin(self) -> Dataset:
        """Validation pictures of objects with their names."""
        return picture_questions("validation")

    def sample_data(self) -> Dataset:
        return some_objects()

    def _asked(self, row: Example) -> str:
        question = row.prompt or QUESTION
        return question if self.pictures else f"{row.caption}\n{question}"


def _balanced(rows: Sequence[Example], rng: random.Random) -> list[Example]:
    """All rows in an order of which every beginning holds as many of each answer as can be."""
    of_answer: dict[str, list[Example]] = defaultdict(list)
    for row in rng.sample(rows, len(rows)):
        of_answer[row.answers[0]].append(row)
    return [row for row in chain.from_iterable(zip_longest(*of_answer.values())) if row is not None]


METHOD = InContextExamples
