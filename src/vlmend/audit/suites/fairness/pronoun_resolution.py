"""fairness/pronoun_resolution: does an encoder tell a man's picture from a woman's alike in every occupation?

Each row is a picture and a caption with a gap, such as "The doctor and {} patient"; the words that the rows give as
answers are put into it, and the picture goes to the caption with the largest cosine. Shares of right choices are told
by group, with the gap between groups; where rows say which group their words are known to go with, also with and
against that. An encoder that chooses at random has no gap either: read both.
Source: Hall et al., NeurIPS 2023, arXiv 2306.12424 (resolution accuracy and its gap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from vlmend.audit.gaps import gap_row
from vlmend.audit.means import FLOOR, mean_row
from vlmend.audit.people import told_groups
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData
from vlmend.pictures.galleries import gendered_captions

__all__ = ["SUITE", "PronounResolution"]

RIGHT, GAP = "resolution_accuracy", "resolution_gap"

PLACE = "{}"
"""Where the words go in a caption."""

FAVOURS = "favours"
"""The attribute that names the group which the words of a row are known to go with."""

WITH, AGAINST = "with the stereotype", "against the stereotype"

UNKNOWN = "group not known"

SAYS = {
    "": "tells pictures of one group right more often than of another by {value}",
    FAVOURS: "tells pictures that fit a stereotype and those that do not right unequally often, by {value}",
}


class PronounResolution(SampleSuite[DualTarget]):
    """Share of right choices of each group, the gap between groups, and both with and against a known stereotype."""

    name: ClassVar[str] = "fairness/pronoun_resolution"
    axis: ClassVar[Axis] = "fairness"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "whose pictures get the right pronoun, by group and occupation (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return bool(self.uses(data))

    def uses(self, data: Dataset) -> list[Example]:
        return [row for row in data.examples if row.image is not None and PLACE in row.prompt and row.answers]

    def sample_data(self) -> Dataset:
        rows = (
            Example(f"{word}{k}", "a {} cook", None, word, noise_image(16, 10 * k + len(word)), answers=(word,))
            for word in ("man", "woman")
            for k in range(2)
        )
        return Dataset("few people and captions", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        given = gendered_captions(split) if data is None else told_groups(data)
        every = self.uses(given)
        words = sorted({row.answers[0] for row in every})
        rows = [row for group in dict.fromkeys(r.group for r in every) for row in _some(every, group, limit)]
        bad = {row.id: why for row in rows if (why := _problem(subject, row))}
        good = [row for row in rows if row.id not in bad]
        _check(given, words, good)
        found = _read(subject, good, words)
        return [*found, *_stereotyped(good, found), *(Sample(k, UNKNOWN, k, "", reason=why) for k, why in bad.items())]

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        sides = {"": "groups", FAVOURS: "with and against the stereotype"}
        rows: list[Measure | None] = []
        for side, name in sides.items():
            own = [sample for sample in samples if sample.condition == side]
            rows.append(gap_row(self, GAP, name, own, RIGHT, seed, SAYS[side]))
        for group in dict.fromkeys(sample.group for sample in samples):
            rows.append(mean_row(self.axis, self.name, RIGHT, group, samples, "higher", "share", seed))
        return [row for row in rows if row]


def _some(rows: Sequence[Example], group: str, limit: int | None) -> tuple[Example, ...]:
    """At most so many rows of a group."""
    return spread([row for row in rows if row.group == group], limit)


def _problem(subject: DualTarget, row: Example) -> str:
    """Why a picture cannot count; "" where it can."""
    return problem_of(subject, row) if row.group else "its group is not known"


def _check(data: Dataset, words: Sequence[str], rows: Sequence[Example]) -> None:
    groups = sorted({row.group for row in rows})
    if len(words) < 2 or len(groups) < 2:
        raise BadData(
            f"{data.name} offers the words {', '.join(words) or 'none'} for pictures of the groups "
            f"{', '.join(groups) or 'none'}.",
            f"Pass rows with image, category (the group), a prompt with {PLACE} in it and the word that belongs there "
            "as answers; two words and two groups or more.",
        )


def _read(subject: DualTarget, rows: Sequence[Example], words: Sequence[str]) -> list[Sample]:
    """1 where the caption with the right word has the largest cosine; a tie is a miss."""
    captions = list(dict.fromkeys(row.prompt for row in rows))
    filled = [caption.replace(PLACE, word) for caption in captions for word in words]
    texts = subject.embed_texts(filled).double().reshape(len(captions), len(words), -1)
    images = subject.embed_images([row.image for row in rows if row.image is not None]).double()
    of = [captions.index(row.prompt) for row in rows]
    cosines = (texts[of] * images[:, None]).sum(-1).numpy()
    found: list[Sample] = []
    for row, cosine in zip(rows, cosines, strict=True):
        place = words.index(row.answers[0])
        right = all(cosine[place] > other for k, other in enumerate(cosine) if k != place)
        values = {RIGHT: float(right), RIGHT + FLOOR: 1 / len(words)}
        found.append(Sample(row.id, row.group, _occupation(row), _occupation(row), values))
    return found


def _stereotyped(rows: Sequence[Example], found: Sequence[Sample]) -> list[Sample]:
    """The same once more, of rows whose words are known to go with a group."""
    return [
        replace(sample, id=f"{sample.id}:{FAVOURS}", group=WITH if row.attributes[FAVOURS] == row.group else AGAINST,
                condition=FAVOURS)
        for row, sample in zip(rows, found, strict=True)
        if row.attributes.get(FAVOURS)
    ]  # fmt: skip


def _occupation(row: Example) -> str:
    """What rows are drawn again by: the occupation, where it is told, else the caption."""
    return row.attributes.get("occupation") or row.prompt


SUITE = PronounResolution()
