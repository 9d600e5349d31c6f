"""robustness/adversarial: is a picture still named right once it was changed against a model, within epsilon?

With data that an attack made (on this model or another) their accuracy, by attack and epsilon; without data the audited
view itself is attacked by `pgd`, mends included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmend.audit.attacked import attacked_by_itself, curves_of, grouped, measures_of, scored
from vlmend.audit.means import JUDGE
from vlmend.core.attacks import WORDS, attributes_of_attack
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.pictures.galleries import PHOTO, object_pictures

__all__ = ["EPSILONS", "SUITE", "Adversarial"]

STEPS = 20
COUNT = 150
"""Built-in pictures that are attacked unless a limit says otherwise: some minutes on two cores."""
EPSILONS = (1, 4, 8)
"""In steps of 8 bits."""

SAYS = "names {value} of pictures right"
"""How the first sentence about a run begins."""


class Adversarial(SampleSuite[DualTarget]):
    """Accuracy on clean pictures, under random signs, and under attack, by epsilon."""

    name: ClassVar[str] = "robustness/adversarial"
    axis: ClassVar[Axis] = "robustness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "naming pictures that were changed against a model (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return any(attributes_of_attack(row) for row in data.examples)

    def uses(self, data: Dataset) -> list[Example]:
        return [row for row in data.examples if row.image is not None and row.answers]

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        if data is None:
            own = object_pictures(split)
            floor = 1 / len(_classes(own.examples))
            return attacked_by_itself(subject, own, EPSILONS, STEPS, limit or COUNT, floor, seed)
        rows = self.uses(data)
        return _named(subject, grouped(rows, data, limit), _classes(rows))

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return measures_of(self.axis, self.name, samples, seed, judge=JUDGE, says=SAYS)

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return curves_of(self.name, self.measures(samples, seed))


def _named(subject: DualTarget, rows: Sequence[tuple[str, Example]], names: Sequence[str]) -> list[Sample]:
    """The user's pictures, each named by the model; one that cannot be read has no value.

    Where an attack changed words, those stand in the place of the text of the picture's own class.
    """
    found: dict[str, bool | str] = {row.id: why for _, row in rows if (why := problem_of(subject, row))}
    good = [row for _, row in rows if row.id not in found]
    images = [row.image for row in good if row.image is not None]
    worded = list(dict.fromkeys(row.prompt for row in good if WORDS in attributes_of_attack(row)))
    if images:
        logits = subject.logits(images, [*(PHOTO.format(name) for name in names), *worded])
        for row, line in zip(good, logits, strict=True):
            right, of_names = names.index(row.answers[0]), line[: len(names)].clone()
            if WORDS in attributes_of_attack(row):
                of_names[right] = line[len(names) + worded.index(row.prompt)]
            found[row.id] = int(of_names.argmax()) == right
    return [scored(group, row, found[row.id], 1 / len(names)) for group, row in rows]


def _classes(rows: Sequence[Example]) -> list[str]:
    return sorted({row.answers[0] for row in rows if row.answers})


SUITE = Adversarial()
