"""fairness/embedding_association: do texts lie nearer to pictures of one group, and do pictures give their group away?

Three readings of distance in the joint space: cosines of a text with the pictures of each group (WEAT), distances of
pictures between groups against those within, and a linear probe that is fitted afresh on the audited view. Groups are
compared within pictures of one caption, and what chance alone gives deals the groups anew within it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vlmend.audit.means import FLOOR, JUDGE, mean_row
from vlmend.audit.people import told_groups
from vlmend.audit.suites.fairness.retrieval_skew import queries_of
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Axis, Better, Measure, Unit
from vlmend.core.metrics.association import effect_size, group_means, permutation_p, told_apart
from vlmend.core.metrics.skew import dealt
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData
from vlmend.pictures.galleries import people_gallery

__all__ = ["SUITE", "EmbeddingAssociation"]

DRAWS, PROBES = 100, 10
"""Dealings of the groups behind the floors; each costs a probe for the last."""

CAPTIONS = 2
"""Captions that need pictures of every group: a probe is tested on captions that it never saw."""

PICTURES, SCENES = "pictures", "captions"
"""Groups of samples that are not texts."""

MEASURES: dict[str, tuple[Better, Unit]] = {
    "cosine_gap": ("neither", "number"), "cosine_spread": ("lower", "number"), "group_distance": ("lower", "number"),
    "group_probe": ("lower", "share"),
}  # fmt: skip

CEILINGS = {"cosine_gap": 2.0, "cosine_spread": 2.0}
"""Cosines lie between -1 and 1, so two of them are at most this far apart."""

SAYS = {("cosine_gap", "directed"): "puts texts nearer to pictures of the expected group by a cosine of {value}"}

Array = npt.NDArray[np.float64]


class EmbeddingAssociation(SampleSuite[DualTarget]):
    """Cosine gap and spread of texts, WEAT's effect size, distance between groups, and a fresh probe for the group."""

    name: ClassVar[str] = "fairness/embedding_association"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = (
        "how near texts lie to each group, and whether pictures give their group away (dual encoders)"
    )

    def applies(self, data: Dataset) -> bool:
        gallery = _gallery(data)
        return len({row.group for row in gallery}) > 1 and len(_whole(gallery)) >= CAPTIONS

    def sample_data(self) -> Dataset:
        """Two men and two women of three professions, and a text towards each."""
        gallery = people_gallery("held_out").examples
        kept = [row for row in gallery if row.caption in sorted({str(e.caption) for e in gallery})[:3]]
        few = [row for row in kept if "-1f3fb" in row.id]
        texts = [Example(group, f"a {group}", group=group) for group in ("man", "woman")]
        return Dataset("few people", (*few, *texts))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = people_gallery(split) if data is None else told_groups(data)
        bad = {row.id: why for row in given.examples if row.image is not None and (why := _problem(subject, row))}
        gallery = [row for row in _gallery(given) if row.id not in bad]
        _check(given, gallery)
        images = [row.image for row in gallery if row.image is not None]
        pictures = subject.embed_images(images).double().numpy()
        queries = _queries(given, gallery, limit)
        texts = subject.embed_texts([query.prompt for query in queries]).double().numpy()
        return [
            *_of_texts(queries, texts @ pictures.T, gallery),
            *_of_captions(gallery, pictures),
            *_of_pictures(gallery, pictures),
            *(Sample(name, PICTURES, name, "", reason=why) for name, why in bad.items()),
        ]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        found: list[Measure] = []
        for group in dict.fromkeys(sample.group for sample in samples):
            there = {name for sample in samples if sample.group == group for name in sample.values}
            for name, (better, unit) in MEASURES.items():
                if name in there:
                    wanted: Better = "lower" if (name, group) == ("cosine_gap", "directed") else better
                    says = SAYS.get((name, group), "")
                    found.append(
                        mean_row(
                            self.axis,
                            self.name,
                            name,
                            group,
                            samples,
                            wanted,
                            unit,
                            seed,
                            says=says,
                            ceiling=CEILINGS.get(name, math.nan),
                        )
                    )
        return [*found, *self._weat(samples, seed)]

    def _weat(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        """Effect size and p of the two sets of directed texts; empty without two of each."""
        directed = [sample for sample in samples if "association" in sample.values and sample.group == "directed"]
        values = [sample.values["association"] for sample in directed]
        first = [sample.values["toward_first"] > 0 for sample in directed]
        if min(sum(first), len(first) - sum(first)) < 2:
            return []
        d = effect_size(values, first, [sample.cluster for sample in directed], seed=seed)
        sides = [[value for value, own in zip(values, first, strict=True) if own == side] for side in (True, False)]
        p = Interval(permutation_p(sides[0], sides[1], seed=seed), math.nan, math.nan)
        unscored = sum(not sample.values for sample in samples if sample.group == "directed")
        n = 0 if math.isnan(d.value) else len(values)
        rows: list[tuple[str, Interval, Better, float]] = [
            ("weat_d", d, "lower", 0.0), ("weat_p", p, "neither", math.nan),
        ]  # fmt: skip
        return [
            Measure(
                self.axis, self.name, name, "directed", *interval, n, unscored, better, judge=JUDGE, unit="number",
                floor=floor,
            )
            for name, interval, better, floor in rows
            if n
        ]  # fmt: skip


def _of_texts(queries: Sequence[Example], cosines: Array, gallery: Sequence[Example]) -> list[Sample]:
    """The association of each text with each group."""
    groups, strata = [row.group for row in gallery], [str(row.caption) for row in gallery]
    names = sorted(set(groups))
    means = group_means(cosines, groups, strata, names)
    chance = np.mean(
        [
            np.ptp(group_means(cosines, row, strata, names), axis=1)
            for row in dealt(groups, strata, seed=0, draws=DRAWS)
        ],
        axis=0,
    )
    return [
        Sample(
            query.id, "directed" if query.group else "neutral", query.caption or query.prompt, query.prompt,
            _association(query.group, own, names) | {"cosine_spread": float(np.ptp(own)), "cosine_spread" + FLOOR: by},
        )
        for query, own, by in zip(queries, means, chance.tolist(), strict=True)
    ]  # fmt: skip


def _association(toward: str, means: Array, names: Sequence[str]) -> dict[str, float]:
    """The gap towards the expected group, and of two groups the association with the first."""
    found: dict[str, float] = {}
    if toward or len(names) == 2:
        place = names.index(toward or names[0])
        found["cosine_gap"] = float(means[place] - np.delete(means, place).mean())
        found["cosine_gap" + FLOOR] = 0.0
    if toward and len(names) == 2:
        found |= {"association": float(means[0] - means[1]), "toward_first": float(toward == names[0])}
    return found


def _of_captions(gallery: Sequence[Example], pictures: Array) -> list[Sample]:
    """Of each caption: the mean distance between pictures of two groups, over that within one."""
    found: list[Sample] = []
    for caption in _whole(gallery):
        places = [k for k, row in enumerate(gallery) if row.caption == caption]
        groups = [gallery[k].group for k in places]
        distances = np.sqrt(np.maximum(0, 2 - 2 * pictures[places] @ pictures[places].T))
        if max(Counter(groups).values()) > 1:
            chance = [_ratio(distances, row) for row in dealt(groups, [caption] * len(places), seed=0, draws=DRAWS)]
            values = {"group_distance": _ratio(distances, groups), "group_distance" + FLOOR: float(np.mean(chance))}
            found.append(Sample(f"caption:{caption}:pictures", SCENES, caption, caption, values))
    return found


def _ratio(distances: Array, groups: Sequence[str]) -> float:
    own = np.asarray(groups)
    same = own[:, None] == own[None]
    others = ~np.eye(len(own), dtype=np.bool_)
    within = float(distances[same & others].mean())
    return float(distances[~same].mean()) / within if within > 0 else 1.0


def _of_pictures(gallery: Sequence[Example], pictures: Array) -> list[Sample]:
    """Whether a probe that never saw its caption tells the group of each picture."""
    groups, strata = [row.group for row in gallery], [str(row.caption) for row in gallery]
    right = told_apart(pictures, groups, strata)
    chance = np.mean(
        [told_apart(pictures, row, strata) for row in dealt(groups, strata, seed=0, draws=PROBES)], axis=0
    ).mean()
    return [
        Sample(
            f"{row.id}:probe", PICTURES, str(row.caption), row.group,
            {"group_probe": float(hit), "group_probe" + FLOOR: float(chance)},
        )
        for row, hit in zip(gallery, right.tolist(), strict=True)
    ]  # fmt: skip


def _queries(data: Dataset, gallery: Sequence[Example], limit: int | None) -> list[Example]:
    """The captions as neutral texts, and the texts without a picture that go towards a group."""
    neutral = [Example(f"caption:{text}", text, caption=text) for text in _whole(gallery)]
    alone = queries_of(data)
    neutral += [row for row in alone if not row.group]
    return [*neutral[:limit], *[row for row in alone if row.group][:limit]]


def _gallery(data: Dataset) -> list[Example]:
    """Pictures whose caption and group are known."""
    return [row for row in data.examples if row.image is not None and row.group and row.caption]


def _whole(gallery: Sequence[Example]) -> list[str]:
    """Captions with pictures of every group."""
    groups = {row.group for row in gallery}
    held = {(row.caption, row.group) for row in gallery}
    return [
        str(caption)
        for caption in dict.fromkeys(row.caption for row in gallery)
        if all((caption, group) in held for group in groups)
    ]


def _problem(subject: DualTarget, row: Example) -> str:
    """Why a picture cannot count; "" where it can."""
    unknown = "its group is not known" if not row.group else "" if row.caption else "it has no caption"
    return unknown or problem_of(subject, row)


def _check(data: Dataset, gallery: Sequence[Example]) -> None:
    counts = Counter(row.group for row in gallery)
    whole = len(_whole(gallery))
    unknown = sorted({row.group for row in queries_of(data) if row.group} - set(counts))
    if len(counts) < 2 or whole < CAPTIONS or unknown:
        held = ", ".join(f"{count} of {group}" for group, count in sorted(counts.items())) or "no pictures"
        told = f", and texts towards {', '.join(unknown)}" if unknown else ""
        raise BadData(
            f"{data.name} cannot be compared by group: {held}; {whole} captions have pictures of all{told}.",
            f"Pass rows with image, category (the group) and a caption that does not tell it: {CAPTIONS} captions or "
            "more with pictures of every group. Rows without image are texts, their category the group expected.",
        )


SUITE = EmbeddingAssociation()
