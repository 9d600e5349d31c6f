"""What pages show in pictures: small copies under `images/`, and in `shown.json` which samples stand side by side."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from vlmend.core.contracts import Sample
from vlmend.core.files import read_json, write_file, write_json
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.samples import SHOWN
from vlmend.errors import SampleError

__all__ = ["keep_shown", "thumbnail", "worst_first"]

THUMBNAIL = 128
"""Longest side of the pictures kept for the pages, in pixels."""

KEPT = 12
"""Samples of a suite whose pictures are kept."""


def keep_shown(out: Path, suite: str, samples: Sequence[Sample], rows: Sequence[Measure]) -> None:
    """Keep the pictures of the worst of these samples.

    Args:
        out: The run folder.
        suite: The suite's name.
        samples: Those with `pictures`.
        rows: The suite's measures; the first that says something and that these samples have decides which are worst.

    Raises:
        RunProblem: They cannot be written.
    """
    row = next((row for row in rows if row.says and any(row.name in sample.values for sample in samples)), None)
    if row is None:
        return
    kept = [
        {
            "id": sample.id, "text": sample.text, "by": row.name,
            "pictures": [[told, thumbnail(out / "images", image)] for told, image in sample.pictures],
        }
        for sample in worst_first(samples, row)[:KEPT]
    ]  # fmt: skip
    held = read_json(out / SHOWN)
    write_json(out / SHOWN, (held if isinstance(held, dict) else {}) | {suite: kept})


def worst_first(samples: Sequence[Sample], row: Measure) -> list[Sample]:
    """Samples by one of their values, the worst first, a group in turn; what has no such value is left out.

    Where neither side is better, far from chance is worst.
    """
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if row.name in sample.values:
            groups[f"{sample.group}: {sample.condition}"].append(sample)
    ranked = [sorted(every, key=lambda sample: -_badness(sample.values[row.name], row)) for every in groups.values()]
    return [sample for turn in zip_longest(*ranked) for sample in turn if sample is not None]


def _badness(value: float, row: Measure) -> float:
    if row.better == "neither":
        return abs(value - (0.0 if math.isnan(row.floor) else row.floor))
    return value if row.better == "lower" else -value


def thumbnail(folder: Path, image: Image | None) -> str | None:
    """Keep a small copy of an image under its digest; broken images have none."""
    if image is None:
        return None
    try:
        file = folder / f"{image.digest[:16]}.webp"
        if not file.exists():
            small = image.decode()
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            held = io.BytesIO()
            small.save(held, "WEBP", quality=80, method=0)
            write_file(file, held.getvalue(), sync=False)
    except SampleError:
        return None
    return file.name
