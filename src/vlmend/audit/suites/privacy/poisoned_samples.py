"""privacy/poisoned_samples: can the poisoned rows of a data set be told by how a dual encoder embeds them?

Poisoned pictures lie close together and far from all others, so the space around them is thin as long as there are
fewer of them than neighbours that are looked at. Beside these scores stand the mismatch of picture and caption, and two
that know no model: how common a caption is, and how thin the space of small thumbnails is.

Huang et al. 2025, arXiv 2502.01385.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vlmend.audit.blind import thumbnails
from vlmend.audit.separating import cluster_of, pairs_of, rows_of, separated, words_of
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Measure
from vlmend.core.metrics.density import dao, k_distance, neighbours_of, slof
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData

__all__ = ["NEAREST", "SUITE", "PoisonedSamples", "suspicion"]

NEAREST = (16, 128)
"""Neighbours that are looked at: the fewer find few poisons, the more find many."""

GROUPS = {"yes": "poisoned", "no": "clean"}
"""Values of the attribute `poisoned`, and the groups that they make."""

BLIND = ("blind_captions", "blind_pixels")
SCORES = (
    *BLIND, "mismatch", *(f"{name}_{k}" for k in NEAREST for name in ("k_distance", "slof", "dao")),
)  # fmt: skip

HEADLINE = f"k_distance_{NEAREST[-1]}"
SAYS = "tells poisoned rows from clean ones with an AUROC of {value} (distance to the 128th neighbour)"


class PoisonedSamples(SampleSuite[DualTarget]):
    """AUROC, TPR at 1 % FPR and balanced accuracy of each score of suspicion."""

    name: ClassVar[str] = "privacy/poisoned_samples"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    own_rows: ClassVar[bool] = False
    about: ClassVar[str] = "telling poisoned rows of a data set by how thinly the space around them is populated"

    def applies(self, data: Dataset) -> bool:
        return {row.attributes.get("poisoned") for row in pairs_of(data)} >= set(GROUPS)

    def sample_data(self) -> Dataset | None:
        rows = (
            Example(
                str(k), image=noise_image(16, k), caption=f"thing {k}", attributes={"poisoned": ("yes", "no")[k % 2]}
            )
            for k in range(8)
        )
        return Dataset("pairs", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        kinds = _checked(data)
        rows = [row for kind in kinds.values() for row in kind[:limit]]
        bad = {row.id: why for row in rows if (why := problem_of(subject, row))}
        good = [row for row in rows if row.id not in bad]
        columns = suspicion(subject, good)
        values = {row.id: {name: float(of[k]) for name, of in columns.items()} for k, row in enumerate(good)}
        return [
            Sample(row.id, GROUPS[row.attributes["poisoned"]], cluster_of(row), words_of(row), values.get(row.id, {}),
                   reason=bad.get(row.id, ""))
            for row in rows
        ]  # fmt: skip

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        kinds = (GROUPS["yes"], GROUPS["no"])
        return [
            row
            for name in SCORES
            for row in rows_of(
                self, name, separated(name, samples, kinds, seed), samples, kinds[1],
                "neither" if name in BLIND else "higher", says=SAYS if name == HEADLINE else "",
            )
        ]  # fmt: skip


def suspicion(subject: DualTarget, rows: Sequence[Example]) -> dict[str, Tensor]:
    """Scores of pairs, high for what is suspect; those of k neighbours only where there are more than k pairs."""
    if len(rows) < 2:
        return {}
    pictures = [row.image for row in rows if row.image is not None]
    images = subject.embed_images(pictures).double()
    texts = subject.embed_texts([words_of(row) for row in rows]).double()
    common = Counter(words_of(row) for row in rows)
    small = torch.from_numpy(thumbnails([picture.decode() for picture in pictures])).double()
    small = (small - small.mean(0)) / small.std(0).clamp(min=1e-9)
    found = {
        "blind_captions": torch.tensor([float(common[words_of(row)]) for row in rows]),
        "blind_pixels": k_distance(neighbours_of(small, min(NEAREST[0], len(rows) - 1))),
        "mismatch": -(images * texts).sum(1),
    }
    for k in NEAREST:
        if k < len(rows):
            near = neighbours_of(images, k)
            found |= {f"k_distance_{k}": k_distance(near), f"slof_{k}": slof(near), f"dao_{k}": dao(near)}
    return found


def _checked(data: Dataset | None) -> dict[str, list[Example]]:
    rows = pairs_of(data)
    kinds = {kind: [row for row in rows if row.attributes.get("poisoned") == kind] for kind in GROUPS}
    if not all(kinds.values()):
        raise BadData(
            f"{data.name if data else 'No data'}: {len(kinds['yes'])} poisoned and {len(kinds['no'])} clean pairs, "
            "and some are needed of either.",
            "Detectors are tried on poison that is known: vlmend data backdoor DATA --out MARKED --set emit=marked.",
        )
    return kinds


SUITE = PoisonedSamples()
