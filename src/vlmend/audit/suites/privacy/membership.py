"""privacy/membership: can somebody who has a pair of picture and text tell that a dual encoder was trained on it?

Two scores of Ko et al. (ICCV 2023, arXiv 2310.00108), which need embeddings alone: the cosine of the pair (CSA), and
the cosine plus how far it drops when the picture is changed a little (AEA). Beside them stands the blind baseline,
which knows no model; where it tells members from non-members, the scores are void.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.separating import (
    MEMBER,
    blind_columns,
    cluster_of,
    dealt,
    pairs_of,
    roc_curves,
    separation_rows,
    set_rows,
    words_of,
)
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.measures import Axis, Curve, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.pictures.changes import variants

__all__ = ["SUITE", "Membership"]

SCORES = {"cosine": "gives away what it was trained on with an AUROC of {value} (cosine of the pair)", "augmented": ""}
"""What each says of the model."""


class Membership(SampleSuite[DualTarget]):
    """AUROC, TPR at 1 % FPR and balanced accuracy of two scores and of the blind baseline; AUROC of whole sets."""

    name: ClassVar[str] = "privacy/membership"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    own_rows: ClassVar[bool] = False
    about: ClassVar[str] = "telling pairs that were trained on from others of the same pool (dual encoders)"

    def applies(self, data: Dataset) -> bool:
        return {row.attributes.get("member") for row in pairs_of(data)} >= set(MEMBER)

    def sample_data(self) -> Dataset | None:
        rows = (
            Example(str(k), image=noise_image(16, k), caption=f"thing {k}", attributes={"member": ("yes", "no")[k % 2]})
            for k in range(8)
        )
        return Dataset("pairs", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        members, others = dealt(
            data, pairs_of(data), "pairs", "image, caption", "; for phantom-clip: --data phantom_clip_members"
        )
        rows = [*members[:limit], *others[:limit]]
        bad = {row.id: why for row in rows if (why := problem_of(subject, row))}
        good = [row for row in rows if row.id not in bad]
        columns: dict[str, Sequence[float]] = {name: of.tolist() for name, of in _scores(subject, good).items()}
        columns |= blind_columns(good, seed)
        values = {row.id: {name: of[k] for name, of in columns.items()} for k, row in enumerate(good)}
        return [
            Sample(
                row.id, MEMBER[row.attributes["member"]], cluster_of(row), words_of(row), values.get(row.id, {}),
                reason=bad.get(row.id, ""),
            )
            for row in rows
        ]  # fmt: skip

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        return [
            *separation_rows(self, SCORES, samples, seed),
            *set_rows(self, dict.fromkeys(SCORES, ""), samples, seed),
        ]

    def curves(self, samples: Sequence[Sample], seed: int = 0) -> list[Curve]:
        return roc_curves(self, list(SCORES), samples, seed)


def _scores(subject: DualTarget, rows: Sequence[Example]) -> dict[str, Float[Tensor, " pair"]]:
    """Of each pair its cosine s(x), and s(x) plus the sum of s(x) - s(T x) over the changed pictures T x."""
    if not rows:
        return {}
    images = [row.image for row in rows if row.image is not None]
    texts = subject.embed_texts([words_of(row) for row in rows]).double()

    def cosines(shown: Sequence[Image]) -> Float[Tensor, " pair"]:
        return (subject.embed_images(shown).double() * texts).sum(1)

    plain = cosines(images)
    turned = zip(*(variants(image.decode()) for image in images), strict=True)
    changed = [cosines([Image.from_pixels(one) for one in shown]) for shown in turned]
    return {"cosine": plain, "augmented": plain + torch.stack([plain - one for one in changed]).sum(0)}


SUITE = Membership()
