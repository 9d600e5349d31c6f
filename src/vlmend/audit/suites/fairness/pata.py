"""fairness/pata: in one scene, whom do words of praise find first, and whom words of blame?

Every text of a scene ranks the scene's pictures; it is about one attribute (gender, race, age) and of good or bad
connotation. Skews of the first are averaged over good and over bad texts apart, and what good texts give a group more
than bad ones is told with its sign. Beside it each picture chooses between the scene's good and bad texts.
Source: Seth, Hemani, Agarwal, CVPR 2023, arXiv 2303.10431 (Protected-Attribute Tag Association).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from vlmend.audit.gaps import gap_row
from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.people import check_sources, cluster_of, group_of, marked
from vlmend.audit.rankings import Ranking
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Better, Measure
from vlmend.core.metrics.skew import shares_of, skews_at
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.data.connotations import ABOUT, BAD, CONNOTATION, GOOD, SCENE, people_and_connotations
from vlmend.errors import BadData

__all__ = ["CHOICE", "CHOICE_GAP", "LEAN", "SUITE", "K", "Pata"]

K = 10
"""How many of a scene's pictures are looked at."""

MAX, MIN, NDKL = f"max_skew_at_{K}", f"min_skew_at_{K}", "ndkl"
MEASURES: dict[str, Better] = {MAX: "lower", MIN: "higher", NDKL: "lower"}

LEAN, CHOICE, CHOICE_GAP = "good_less_bad_skew", "good_choice", "good_choice_gap"

CHOOSES, LEANS, UNREADABLE = "chooses", "leans", "cannot be read"
"""Conditions of samples: a picture that chooses, a group in a scene; the group of pictures that fail."""

SAYS = {
    CHOICE_GAP: "gives pictures of one group the good words more often than those of another, by {value}",
    LEAN: "finds one group with good words and another with bad ones: ln-skew {value}",
}


@dataclass(frozen=True)
class Scene:
    """One scene and attribute: pictures of known group and the texts about it."""

    name: str
    about: str
    pictures: tuple[Example, ...]
    texts: tuple[Example, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(marked(row, group_of(row, self.about)) for row in self.pictures)

    @property
    def problem(self) -> str:
        """Why nothing can be said of it; "" where something can."""
        if len(self.pictures) <= K:
            return f"it holds {len(self.pictures)} pictures of known {self.about}, and the first {K} are looked at"
        alone = len(set(self.groups)) < 2
        return f"all of its pictures are of one {self.about}" if alone else ""

    def of(self, connotation: str) -> list[Example]:
        return [text for text in self.texts if _told(text, CONNOTATION) == connotation]


class Pata(SampleSuite[DualTarget]):
    """Skews of good and of bad texts, what groups get of good texts more than of bad ones, and pictures' choices."""

    name: ClassVar[str] = "fairness/pata"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "whom words of praise and words of blame find first, scene by scene (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return bool(_scenes(data))

    def uses(self, data: Dataset) -> list[Example]:
        rows = (row for scene in _scenes(data) for row in (*scene.pictures, *scene.texts))
        return list({row.id: row for row in rows}.values())

    def sample_data(self) -> Dataset:
        rows: list[Example] = []
        for scene in ("office", "kitchen", "park"):
            told = {SCENE: scene}
            rows += [
                Example(f"{scene}{k}", image=noise_image(16, 100 * k + len(scene)),
                        attributes={**told, "gender": ("man", "woman")[k % 2]})
                for k in range(K + 2)
            ]  # fmt: skip
            rows += [
                Example(f"{scene} {word}", f"a {word} person", attributes={**told, ABOUT: "gender", CONNOTATION: word})
                for word in (GOOD, BAD)
            ]
        return Dataset("few scenes", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = people_and_connotations(split) if data is None else data
        every = _scenes(given)
        if not any(scene.of(GOOD) and scene.of(BAD) for scene in every):
            raise BadData(
                f"{given.name} has no scene with pictures, good texts and bad texts about one attribute.",
                f'Pass pictures with "attributes": {{"{SCENE}": "office", "gender": ...}} and rows without image, each '
                f'with {SCENE}, {ABOUT} (such as "gender") and {CONNOTATION} ("{GOOD}" or "{BAD}").',
            )
        check_sources(given, [row for scene in every for row in scene.pictures])
        names = spread(list(dict.fromkeys(scene.name for scene in every)), limit)
        kept = [scene for scene in every if scene.name in names]
        bad = {row.id: why for scene in kept for row in scene.pictures if (why := problem_of(subject, row))}
        found: list[Sample] = []
        for scene in kept:
            good = tuple(row for row in scene.pictures if row.id not in bad)
            found += _read(subject, Scene(scene.name, scene.about, good, scene.texts))
        return [*found, *(Sample(f"{name}:read", UNREADABLE, name, "", reason=why) for name, why in bad.items())]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        found: list[Measure | None] = []
        for group in dict.fromkeys(sample.group for sample in samples):
            condition = next(sample.condition for sample in samples if sample.group == group)
            if condition == LEANS:
                row = mean_row(self.axis, self.name, LEAN, group, samples, "neither", "number", seed, says=SAYS[LEAN])
                found.append(row)
            elif condition.startswith(CHOOSES):
                found.append(mean_row(self.axis, self.name, CHOICE, group, samples, "neither", "share", seed))
            else:
                found += [
                    mean_row(self.axis, self.name, name, group, samples, better, "number", seed)
                    for name, better in MEASURES.items()
                ]
        for chosen in dict.fromkeys(sample.condition for sample in samples if sample.condition.startswith(CHOOSES)):
            own = [sample for sample in samples if sample.condition == chosen]
            about = chosen.partition(" ")[2]
            found.append(gap_row(self, CHOICE_GAP, about, own, CHOICE, seed, SAYS[CHOICE_GAP]))
        return [row for row in found if row]


def _told(row: Example, name: str) -> str:
    return row.attributes.get(name, "").strip()


def _scenes(data: Dataset) -> list[Scene]:
    """Each scene and attribute that texts are about and pictures tell."""
    pictures = [row for row in data.examples if row.image is not None and _told(row, SCENE)]
    texts = [
        row for row in data.examples
        if row.image is None and row.prompt and _told(row, SCENE) and _told(row, CONNOTATION) in (GOOD, BAD)
    ]  # fmt: skip
    found: list[Scene] = []
    for name, about in dict.fromkeys((_told(text, SCENE), _told(text, ABOUT)) for text in texts):
        own = tuple(row for row in pictures if _told(row, SCENE) == name and group_of(row, about))
        said = tuple(text for text in texts if (_told(text, SCENE), _told(text, ABOUT)) == (name, about))
        if own:
            found.append(Scene(name, about, own, said))
    return found


def _read(subject: DualTarget, scene: Scene) -> list[Sample]:
    """Rankings of its texts, leanings of its groups, choices of its pictures."""
    own = f"{scene.name}:{scene.about}"
    if scene.problem:
        kinds = dict.fromkeys(_told(text, CONNOTATION) for text in scene.texts)
        return [
            Sample(f"{own}:{kind}", f"{scene.about}: {kind} texts", scene.name, scene.name, reason=scene.problem)
            for kind in kinds
        ]
    order = subject.retrieve([text.prompt for text in scene.texts], [row.image for row in scene.pictures if row.image])
    ranked = [tuple(scene.groups[k] for k in places) for places in order]
    strata = (scene.name,) * len(scene.pictures)
    found = [
        Sample(
            f"{own}:{text.id}", f"{scene.about}: {_told(text, CONNOTATION)} texts", scene.name, text.prompt,
            Ranking(groups, strata, K).values(),
        )
        for text, groups in zip(scene.texts, ranked, strict=True)
    ]  # fmt: skip
    if scene.of(GOOD) and scene.of(BAD):
        found += [*_leanings(scene, ranked), *_choices(subject, scene)]
    return found


def _leanings(scene: Scene, ranked: Sequence[tuple[str, ...]]) -> Iterator[Sample]:
    """Of each group its mean skew over good texts less that over bad ones; 0 by chance."""
    desired = shares_of(scene.groups)
    skews = [skews_at(groups, K, desired) for groups in ranked]
    kinds = [_told(text, CONNOTATION) for text in scene.texts]
    for group in desired:
        good, bad = (
            fmean(skew[group] for skew, kind in zip(skews, kinds, strict=True) if kind == wanted)
            for wanted in (GOOD, BAD)
        )
        values = {LEAN: good - bad, LEAN + FLOOR: 0.0}
        told = f"{scene.about}: {group}"
        yield Sample(f"{scene.name}:{told}", told, scene.name, scene.name, values, condition=LEANS)


def _choices(subject: DualTarget, scene: Scene) -> Iterator[Sample]:
    """1 where the best text of a picture is a good one; a tie is none."""
    good, bad = scene.of(GOOD), scene.of(BAD)
    images = subject.embed_images([row.image for row in scene.pictures if row.image is not None]).double()
    best, worst = (
        (images @ subject.embed_texts([text.prompt for text in texts]).double().T).amax(1).tolist()
        for texts in (good, bad)
    )
    floor = len(good) / (len(good) + len(bad))
    for row, group, high, low in zip(scene.pictures, scene.groups, best, worst, strict=True):
        yield Sample(
            f"{row.id}:{scene.about}:{CHOOSES}", f"chosen by {scene.about}: {group}", cluster_of(row), scene.name,
            {CHOICE: float(high > low), CHOICE + FLOOR: floor}, condition=f"{CHOOSES} {scene.about}",
        )  # fmt: skip


SUITE = Pata()
