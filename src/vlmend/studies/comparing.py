"""Mends of a model that answers side by side, as points or as curves, with the page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget
from vlmend.core.verdicts import Judge
from vlmend.report.study import write_curves, write_defences
from vlmend.studies.carried import Carrier
from vlmend.studies.curves import compare_curves
from vlmend.studies.defences import compare
from vlmend.studies.fitting import Defence
from vlmend.studies.measuring import Panels, Sizes

__all__ = ["compare_chat"]


def compare_chat(
    target: ChatTarget, defences: Sequence[Defence], given: dict[str, Mend], data: Dataset, asked: Panels, sizes: Sizes,
    out: Path, *, carriers: Sequence[Carrier], judges: Sequence[Judge], seed: int,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:  # fmt: skip
    """A curve a mend where carriers are named, else a row a mend; writes the numbers and their page.

    Raises:
        UsageError: No judge can tell what declines.
    """
    if carriers:
        content = compare_curves(
            target, defences, given, data, asked, sizes, out, carriers=carriers, judges=judges, seed=seed,
            progress=progress,
        )  # fmt: skip
        write_curves(content, out / "curves.html")
    else:
        content = compare(target, defences, given, data, asked, sizes, out, judges=judges, seed=seed, progress=progress)
        write_defences(content, out / "defences.html")
    return content
