"""privacy/membership: can somebody who has a pair of picture and text tell that a dual encoder was trained on it?

Two scores of Ko et al. (ICCV 2023, arXiv 2310.00108), which need embeddings alone: the cosine of the pair (CSA), and
the cosine plus how far it drops when the picture is changed a little (AEA). Beside them stands the blind baseline,
which knows no model; where it tells members from non-members, the scores are void.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

import PIL.Image
import torch
from jaxtyping import Float
from PIL import ImageEnhance, ImageOps
from torch import Tensor

from vlmend.audit.blind import blind_scores
from vlmend.audit.means import JUDGE
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Axis, Measure, Unit
from vlmend.core.metrics.membership import Separation, separation, tpr_by_chance
from vlmend.core.metrics.stats import Interval
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData

__all__ = ["SUITE", "Membership", "variants"]

MEMBER = {"yes": "member", "no": "non_member"}
"""Values of the attribute `member`, and the groups of samples that they make."""

SCORES = ("cosine", "augmented")
BLIND = ("blind_words", "blind_pixels")

NOTHING = Interval(math.nan, math.nan, math.nan)

SAYS = "gives away what it was trained on with an AUROC of {value} (cosine of the pair)"
VOID = "is asked about pairs that can be told apart without it (AUROC {value}), so its membership scores are void"

CROP, TURN, DARKER = 0.1, 15, 0.7
"""Share cut from each side, degrees, and factor of brightness of the changed pictures."""


class Membership(SampleSuite[DualTarget]):
    """AUROC, TPR at 1 % FPR and balanced accuracy of two scores and of the blind baseline."""

    name: ClassVar[str] = "privacy/membership"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    about: ClassVar[str] = "telling pairs that were trained on from others of the same pool (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return {row.attributes.get("member") for row in _pairs(data)} >= set(MEMBER)

    def sample_data(self) -> Dataset | None:
        rows = (
            Example(str(k), image=noise_image(16, k), caption=f"thing {k}", attributes={"member": ("yes", "no")[k % 2]})
            for k in range(8)
        )
        return Dataset("pairs", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        members, others = _checked(data)
        rows = [*members[:limit], *others[:limit]]
        bad = {row.id: why for row in rows if (why := problem_of(subject, row))}
        good = [row for row in rows if row.id not in bad]
        columns = _scores(subject, good) if good else {}
        columns |= _blind(good, seed)
        values = {row.id: {name: float(of[k]) for name, of in columns.items()} for k, row in enumerate(good)}
        return [
            Sample(
                row.id, MEMBER[row.attributes["member"]], _cluster(row), _text(row), values.get(row.id, {}),
                reason=bad.get(row.id, ""),
            )
            for row in rows
        ]  # fmt: skip

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        found = {name: _separated(name, samples, seed) for name in (*BLIND, *SCORES)}
        void = any(_told_apart(found[name].auroc) is not False for name in BLIND)
        return [
            row for name in (*BLIND, *SCORES) for row in self._rows(name, found[name], samples, void and name in SCORES)
        ]

    def _rows(self, score: str, found: Separation, samples: Sequence[Sample], void: bool) -> list[Measure]:
        scored = sum(bool(s.values) for s in samples)
        others = sum(bool(s.values) for s in samples if s.group == MEMBER["no"])
        told: dict[str, tuple[Interval, Unit, float, str]] = {
            "auroc": (found.auroc, "number", 0.5, _says(score, found.auroc)),
            "tpr_at_1_fpr": (found.tpr, "share", tpr_by_chance(others), ""),
            "balanced_accuracy": (found.accuracy, "share", 0.5, ""),
        }
        rows: list[Measure] = []
        for name, (interval, unit, floor, says) in told.items():
            known = not void and not math.isnan(interval.value)
            interval, n, floor = (interval, scored, floor) if known else (NOTHING, 0, math.nan)
            better = "neither" if score in BLIND else "lower"
            rows.append(
                Measure(
                    self.axis, self.name, name, score, *interval, n, len(samples) - n, better,
                    judge=JUDGE, unit=unit, floor=floor, says=says, ceiling=1.0,
                )
            )  # fmt: skip
        return rows


def variants(picture: PIL.Image.Image) -> list[PIL.Image.Image]:
    """The picture mirrored, cropped, turned and darkened: what a model that generalises embeds much alike."""
    width, height = picture.size
    inner = (round(CROP * width), round(CROP * height), round((1 - CROP) * width), round((1 - CROP) * height))
    return [
        ImageOps.mirror(picture), picture.crop(inner).resize(picture.size),
        picture.rotate(TURN, PIL.Image.Resampling.BICUBIC), ImageEnhance.Brightness(picture).enhance(DARKER),
    ]  # fmt: skip


def _scores(subject: DualTarget, rows: Sequence[Example]) -> dict[str, Float[Tensor, " pair"]]:
    """Of each pair its cosine s(x), and s(x) plus the sum of s(x) - s(T x) over the changed pictures T x."""
    pictures = [row.image.decode() for row in rows if row.image is not None]
    texts = subject.embed_texts([_text(row) for row in rows]).double()

    def cosines(shown: Sequence[PIL.Image.Image]) -> Float[Tensor, " pair"]:
        return (subject.embed_images([Image.from_pixels(one) for one in shown]).double() * texts).sum(1)

    plain = cosines(pictures)
    changed = [cosines(shown) for shown in zip(*map(variants, pictures), strict=True)]
    return {"cosine": plain, "augmented": plain + torch.stack([plain - one for one in changed]).sum(0)}


def _blind(rows: Sequence[Example], seed: int) -> dict[str, Tensor]:
    found = blind_scores(
        [_text(row) for row in rows], [row.image.decode() for row in rows if row.image is not None],
        [row.attributes["member"] == "yes" for row in rows], [_cluster(row) for row in rows], seed=seed,
    )  # fmt: skip
    return {name: torch.from_numpy(column) for name, column in found.items()}


def _separated(score: str, samples: Sequence[Sample], seed: int) -> Separation:
    kinds: dict[str, defaultdict[str, list[float]]] = {group: defaultdict(list) for group in MEMBER.values()}
    for sample in samples:
        if score in sample.values:
            kinds[sample.group][sample.cluster].append(sample.values[score])
    return separation(kinds["member"], kinds["non_member"], seed=seed)


def _says(score: str, auroc: Interval) -> str:
    """What the first sentence about a run says of it."""
    if score in BLIND:
        return VOID if _told_apart(auroc) else ""
    return SAYS if score == "cosine" else ""


def _told_apart(auroc: Interval) -> bool | None:
    """Whether the whole interval lies above chance; None where nobody knows."""
    if math.isnan(auroc.value):
        return None
    return (auroc.value if math.isnan(auroc.low) else auroc.low) > 0.5


def _pairs(data: Dataset) -> list[Example]:
    return [row for row in data.examples if row.image is not None and _text(row)]


def _text(row: Example) -> str:
    return row.caption or row.prompt


def _cluster(row: Example) -> str:
    return row.attributes.get("cluster", row.id)


def _checked(data: Dataset | None) -> tuple[list[Example], list[Example]]:
    """Members and non-members."""
    rows = [] if data is None else _pairs(data)
    members, others = ([row for row in rows if row.attributes.get("member") == value] for value in MEMBER)
    if not members or not others:
        named = f"{data.name} has {len(members)} members and {len(others)} non-members" if data else "No data are given"
        raise BadData(
            f"{named}: membership is told on pairs of which it is known.",
            'Pass --data with rows that have image, caption and "attributes": {"member": "yes"} or "no", a random '
            "split of one pool; for phantom-clip: --data phantom_clip_members.",
        )
    return members, others


SUITE = Membership()
