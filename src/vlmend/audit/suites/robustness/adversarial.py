"""robustness/adversarial: is a picture still named right once it was changed against a model, within epsilon?

With data that an attack made (on this model or another) their accuracy, by attack and epsilon; without data the audited
view itself is attacked by `pgd`, mends included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

from vlmend import registry
from vlmend.audit.means import FLOOR, JUDGE, mean_row
from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Measure
from vlmend.core.metrics.stats import paired_difference
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData
from vlmend.pictures.galleries import PHOTO, object_pictures

__all__ = ["CLEAN", "EPSILONS", "SUITE", "Adversarial", "group_of"]

ATTACK = "pgd"
STEPS = 20
COUNT = 150
"""Built-in pictures that are attacked unless a limit says otherwise: some minutes on two cores."""
EPSILONS = (1, 4, 8)
"""In steps of 8 bits."""

TOLD = 4
"""Which of them the first sentence about a run tells."""

CLEAN, NOISE = "clean", "noise"

SAYS = f"names {{value}} of pictures right that were changed by up to {TOLD}/255"
"""What the first sentence about a run says."""


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
            return _attacked(subject, object_pictures(split), limit, seed)
        rows = self.uses(data)
        if not any(attributes_of_attack(row) for row in rows):
            raise BadData(
                f"{data.name} has no row that an attack made.",
                "Pass the folder that vlmend attack wrote, or no data: the suite then attacks the model itself.",
            )
        groups = {
            group: [row for row in rows if group_of(row) == group] for group in sorted(map(group_of, rows), key=_order)
        }
        return _named(subject, [row for of_group in groups.values() for row in of_group[:limit]], _classes(rows))

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        groups = sorted({sample.group for sample in samples}, key=_order)
        rows = [self._accuracy(group, samples, seed) for group in groups]
        attacks = dict.fromkeys(group.partition(" ")[0] for group in groups if group != CLEAN)
        rises = [self._rise(attack, [g for g in groups if g.startswith(f"{attack} ")], samples) for attack in attacks]
        return [*rows, *(rise for rise in rises if rise is not None)]

    def _accuracy(self, group: str, samples: Sequence[Sample], seed: int) -> Measure:
        row = mean_row(self.axis, self.name, "accuracy", group, samples, "higher", "share", seed)
        attacked = group != CLEAN and not group.startswith(NOISE)
        against = CLEAN if attacked and any(sample.group == CLEAN for sample in samples) else ""
        return replace(row, says=SAYS if attacked and group.endswith(f" {TOLD}/255") else "", against=against)

    def _rise(self, attack: str, groups: Sequence[str], samples: Sequence[Sample]) -> Measure | None:
        """The most that accuracy gains from an epsilon to the next larger one, on the same pictures."""
        if attack == NOISE or len(groups) < 2:
            return None
        right = {
            group: {s.cluster: s.values["accuracy"] > 0 for s in samples if s.group == group and s.values}
            for group in groups
        }
        found = [(right[low], right[high]) for low, high in pairwise(groups)]
        pairs = [[(low[one], high[one]) for one in low if one in high] for low, high in found]
        steps = [paired_difference([a for a, _ in each], [b for _, b in each]) for each in pairs if each]
        if not steps:
            return None
        most = max(steps, key=lambda step: step.value)
        n = min(len(each) for each in pairs if each)
        return Measure(self.axis, self.name, "rise", attack, *most, n, 0, "lower", judge=JUDGE, floor=0.0)


def _attacked(subject: DualTarget, data: Dataset, limit: int | None, seed: int) -> list[Sample]:
    """The pictures as an attack on this very view left them, judged by it."""
    attack = registry.make_attack(ATTACK, {})
    floor = {f"accuracy{FLOOR}": 1 / len(_classes(data.examples))}
    found: list[Sample] = []
    for place, epsilon in enumerate(EPSILONS):
        made = attack.run(subject, data, Budget(epsilon / 255, STEPS), seed=seed, limit=limit or COUNT)
        conditions = {**({} if place else {CLEAN: CLEAN}), NOISE: f"{NOISE} {epsilon}/255"}
        for row in made.examples:
            told = attributes_of_attack(row)
            for what, group in (*conditions.items(), ("attacked", f"{ATTACK} {epsilon}/255")):
                values = {"accuracy": float(told[what] == "right"), **floor}
                found.append(Sample(f"{row.id}@{group}", group, told["of"], row.answers[0], values))
    return found


def _named(subject: DualTarget, rows: Sequence[Example], names: Sequence[str]) -> list[Sample]:
    """The user's pictures, each named by the model; one that cannot be read has no value."""
    bad = {id(row): why for row in rows if (why := problem_of(subject, row))}
    good = [row for row in rows if id(row) not in bad]
    images = [row.image for row in good if row.image is not None]
    texts = [PHOTO.format(name) for name in names]
    said: list[int] = subject.logits(images, texts).argmax(1).tolist() if images else []
    right = {id(row): names[k] == row.answers[0] for row, k in zip(good, said, strict=True)}
    return [
        Sample(
            f"{row.id}@{group_of(row)}", group_of(row), row.attributes.get("of", row.id), row.answers[0],
            {"accuracy": float(right[id(row)]), f"accuracy{FLOOR}": 1 / len(names)} if id(row) in right else {},
            reason=bad.get(id(row), ""),
        )
        for row in rows
    ]  # fmt: skip


def group_of(row: Example) -> str:
    """`clean`, or the attack that made a row and its epsilon, such as `pgd 4/255`."""
    told = attributes_of_attack(row)
    return f"{told['attack']} {round(float(told['epsilon']) * 255)}/255" if told else CLEAN


def _order(group: str) -> tuple[bool, str, int]:
    """Clean first, then by attack and epsilon."""
    attack, _, epsilon = group.partition(" ")
    return group != CLEAN, attack, int(epsilon.partition("/")[0] or 0)


def _classes(rows: Sequence[Example]) -> list[str]:
    return sorted({row.answers[0] for row in rows if row.answers})


SUITE = Adversarial()
