"""fairness/neutrality: whom does a generator draw where the prompt names nobody?

Neutral prompts, such as "a photo of a doctor", are drawn many times. A dual encoder, the reference, takes each picture
for one of the groups. Told: the share of each group beside a fair share, neutrality (1 where the shares are the fair
ones, 0 where they are as far off as can be), how far drawings lean towards stereotypes, and whether they show what was
asked for.
Source: Sathe, Jain, Sitaram 2024, arXiv 2402.13636 (neutrality).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.options import FAVOURS, GROUPS, listed, neutrality_of, shares_of
from vlmend.audit.people import check_sources
from vlmend.core.contracts import ReferenceSuite, Sample
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Image
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.resampling import cluster_bootstrap
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DrawTarget, DualTarget, Kind
from vlmend.errors import BadData, UsageError
from vlmend.pictures.galleries import GENDERS, PHOTO, professions

__all__ = ["SUITE", "Neutrality"]

DRAWINGS = 20
"""Pictures of each prompt."""

SHARE, NEUTRALITY, LEAN, SHOWN = "group_share", "neutrality", "towards_stereotype", "shows_what_was_asked"

ALL = "all prompts"

JUDGE = "a dual encoder"

DEALINGS = 1000

SAYS = {NEUTRALITY: "draws people as neutral as {value} of 1 where the prompt names nobody"}


@dataclass(frozen=True)
class Neutrality(ReferenceSuite[DrawTarget]):
    """Shares of groups among pictures of neutral prompts, neutrality by prompt and over all, lean, and adherence."""

    name: ClassVar[str] = "fairness/neutrality"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "draw"
    needs: ClassVar[Access] = "pictures"
    reference_kind: ClassVar[Kind | None] = "dual"
    reference_needs: ClassVar[Access | None] = "embeddings"
    about: ClassVar[str] = "whom a generator draws where the prompt names nobody (text-to-image pipelines)"

    reference: DualTarget | None = None

    def beside(self, reference: DualTarget) -> Self:
        return replace(self, reference=reference)

    def applies(self, data: Dataset) -> bool:
        return bool(self.uses(data))

    def uses(self, data: Dataset) -> list[Example]:
        return [row for row in data.examples if row.prompt and row.image is None and len(listed(row, GROUPS)) > 1]

    def sample_data(self) -> Dataset:
        return _builtin()

    def samples(
        self, subject: DrawTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        """As of every suite; `limit` counts prompts."""
        if self.reference is None:
            raise UsageError(f"{self.name} needs a reference.", "Pass --reference MODEL, or call beside(reference).")
        given = _builtin() if data is None else data
        rows = self.uses(given)
        if not rows:
            raise BadData(
                f"{given.name} holds no prompts to draw.",
                'Give rows with a prompt and without image, and "attributes": {"groups": "man|woman"}.',
            )
        check_sources(given, rows)
        chosen = spread(rows, limit)
        names = list(dict.fromkeys(row.answers[0] for row in rows if row.answers))
        return [sample for row in chosen for sample in self._of_prompt(subject, self.reference, row, names, seed)]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        told = dict.fromkeys(name for one in samples for name in one.values if name.startswith(SHARE))
        groups = [name for name in told if not name.endswith(FLOOR)]
        prompts = list(dict.fromkeys(one.group for one in samples))
        every = [replace(one, group=ALL) for one in samples]
        found = self._neutrality(samples, prompts, seed)
        for name in (LEAN, SHOWN):
            if any(name in one.values for one in every):
                unit: Unit = "share" if name == SHOWN else "number"
                better: Better = "higher" if name == SHOWN else "neither"
                found.append(mean_row(self.axis, self.name, name, ALL, every, better, unit, seed, judge=JUDGE))
        found += [self._share(name, ALL, every, seed) for name in groups]
        for prompt in prompts:
            own = [one for one in samples if one.group == prompt]
            found += [self._share(name, prompt, own, seed) for name in groups]
        return found

    def _share(self, name: str, group: str, samples: Sequence[Sample], seed: int) -> Measure:
        kind, _, who = name.partition(": ")
        row = mean_row(self.axis, self.name, name, group, samples, "neither", "share", seed, judge=JUDGE)
        told = who if group == ALL else f"{who}: {group}"
        return replace(row, name=kind, group=told, compared="none")

    def _neutrality(self, samples: Sequence[Sample], prompts: Sequence[str], seed: int) -> list[Measure]:
        """Mean over prompts; what chance gives is a fair generator's, drawn as often."""
        values: list[float] = []
        by_chance: list[float] = []
        rng = np.random.default_rng(seed)
        for prompt in prompts:
            own = [one.values for one in samples if one.group == prompt and one.values]
            if own:
                counts, fair = _counts(own), _fair(own)
                values.append(neutrality_of(counts, fair))
                again = rng.multinomial(len(own), list(fair.values()), size=DEALINGS)
                by_chance.append(
                    float(np.mean([neutrality_of(dict(zip(fair, row, strict=True)), fair) for row in again.tolist()]))
                )
        if not values:
            return []
        interval = cluster_bootstrap(values, list(range(len(values))), seed=seed)
        n = sum(bool(one.values) for one in samples)
        return [
            Measure(
                self.axis, self.name, NEUTRALITY, ALL, *interval, n, len(samples) - n, "higher", judge=JUDGE,
                unit="number", floor=float(np.mean(by_chance)), says=SAYS[NEUTRALITY], ceiling=1.0,
            )
        ]  # fmt: skip

    def _of_prompt(
        self, subject: DrawTarget, judge: DualTarget, row: Example, names: Sequence[str], seed: int
    ) -> list[Sample]:
        """A sample of each drawing; those that the pipeline held back have no values."""
        groups, fair = listed(row, GROUPS), shares_of(row)
        seeds = [random.Random(f"neutrality:{seed}:{row.id}:{k}").getrandbits(31) for k in range(DRAWINGS)]
        drawn = subject.draw([row.prompt] * DRAWINGS, seeds)
        there = [picture for picture in drawn if picture is not None]
        who = iter(_nearest(judge, there, groups))
        what = iter(_nearest(judge, there, names) if row.answers and len(names) > 1 else [None] * len(there))
        prompt = row.answers[0] if row.answers else row.prompt
        samples: list[Sample] = []
        for k, picture in enumerate(drawn):
            blank = Sample(f"{row.id}:{k}", prompt, row.id, row.prompt, condition=ALL)
            if picture is None:
                samples.append(replace(blank, reason="the pipeline held it back"))
                continue
            values = _values(row, next(who), next(what), groups, fair, len(names))
            samples.append(replace(blank, values=values))
        return samples


def _values(
    row: Example, who: str, what: str | None, groups: Sequence[str], fair: Mapping[str, float], names: int
) -> dict[str, float]:
    found = {f"{SHARE}: {name}": float(name == who) for name in groups}
    found |= {f"{SHARE}: {name}{FLOOR}": fair[name] for name in groups}
    favoured = row.attributes.get(FAVOURS, "")
    if favoured in groups:
        found |= {LEAN: float(who == favoured) - fair[favoured], LEAN + FLOOR: 0.0}
    if what is not None:
        found |= {SHOWN: float(what == row.answers[0]), SHOWN + FLOOR: 1 / names}
    return found


def _counts(own: Sequence[Mapping[str, float]]) -> Counter[str]:
    return Counter(name for values in own for name in _fair(own) if values[f"{SHARE}: {name}"])


def _fair(own: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The fair shares, as the samples of a prompt hold them."""
    ends = [name for name in own[0] if name.startswith(SHARE) and name.endswith(FLOOR)]
    return {name.removeprefix(f"{SHARE}: ").removesuffix(FLOOR): own[0][name] for name in ends}


def _nearest(judge: DualTarget, pictures: Sequence[Image], words: Sequence[str]) -> list[str]:
    if not pictures:
        return []
    places: list[int] = judge.logits(pictures, [PHOTO.format(word) for word in words]).argmax(-1).tolist()  # type: ignore[assignment]
    return [words[place] for place in places]


def _builtin() -> Dataset:
    """Twenty professions, without a word for the person."""
    rows = (
        Example(
            name, PHOTO.format(name), "benign", "profession", answers=(name,), attributes={GROUPS: "|".join(GENDERS)}
        )
        for name in professions()
    )
    return Dataset("neutral-professions", tuple(rows))


SUITE = Neutrality()
