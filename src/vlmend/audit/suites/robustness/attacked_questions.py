"""robustness/attacked_questions: is a question about a picture still answered right once the row was attacked?

With data that an attack made (on this model or another) accuracy by attack and epsilon; without data the audited view
itself is attacked by `pgd`, mends included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from vlmend.attacks.tasks import REPLY_TOKENS, holds_answer
from vlmend.audit.attacked import attacked_by_itself, curves_of, grouped, measures_of, scored
from vlmend.core.attacks import attributes_of_attack
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.conversation import Reply, Sampling
from vlmend.core.examples import Dataset, Example, undecoded
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, ChatTarget, Kind
from vlmend.errors import BatchProblem, SampleError
from vlmend.pictures.galleries import picture_questions

__all__ = ["EPSILONS", "SUITE", "AttackedQuestions"]

STEPS = 10
COUNT = 16
"""Built-in pictures that are attacked unless a limit says otherwise: phantom takes two minutes of a core."""
EPSILONS = (1, 4)
"""In steps of 8 bits."""

JUDGE = "holds the answer"

SAYS = "answers {value} of questions about pictures right"
"""How the first sentence about a run begins."""


class AttackedQuestions(SampleSuite[ChatTarget]):
    """Accuracy on clean pictures, under random signs, and under attack, by epsilon."""

    name: ClassVar[str] = "robustness/attacked_questions"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "chat"
    needs: ClassVar[Access] = "replies"
    about: ClassVar[str] = "questions about pictures that were changed against a model (models that answer)"

    def applies(self, data: Dataset) -> bool:
        return any(attributes_of_attack(row) for row in self.uses(data))

    def uses(self, data: Dataset) -> list[Example]:
        return [row for row in data.examples if row.prompt and row.answers]

    def sample_data(self) -> Dataset | None:
        clean = [Example(str(k), "what is it", image=noise_image(8, k), answers=("cat",)) for k in range(4)]
        told = {"attack": "pgd", "epsilon": f"{4 / 255:.6g}"}
        made = [replace(row, id=f"{row.id} attacked", attributes={**told, "of": row.id}) for row in clean]
        return Dataset("questions", (*clean, *made))

    def samples(
        self, subject: ChatTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        if data is None:
            return attacked_by_itself(subject, picture_questions(split), EPSILONS, STEPS, limit or COUNT, None, seed)
        return _asked(subject, grouped(self.uses(data), data, limit))

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return measures_of(self.axis, self.name, samples, seed, judge=JUDGE, says=SAYS)

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return curves_of(self.name, self.measures(samples, seed))


def _asked(subject: ChatTarget, rows: Sequence[tuple[str, Example]]) -> list[Sample]:
    """The user's rows, each asked as it is; one that gets no reply has no value."""
    found: dict[str, bool | str] = {row.id: why for _, row in rows if (why := undecoded(row))}
    good = [row for _, row in rows if row.id not in found]
    try:
        replies: Sequence[object] = subject.generate([row.conversation for row in good], Sampling(REPLY_TOKENS))
    except BatchProblem as problem:
        replies = problem.outcomes
    except SampleError as problem:
        replies = [problem]
    found |= {
        row.id: holds_answer(reply.text, row.answers) if isinstance(reply, Reply) else str(reply)
        for row, reply in zip(good, replies, strict=True)
    }
    return [scored(group, row, found[row.id], None) for group, row in rows]


SUITE = AttackedQuestions()
