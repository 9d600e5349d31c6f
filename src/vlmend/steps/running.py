"""Runs a step and writes what it made: what `vlmend data` and `vlmend.apply_step` do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from vlmend.core.contracts import AbstractStep, DataEdit
from vlmend.core.examples import Dataset
from vlmend.data.editing import summary
from vlmend.data.writing import write_data

__all__ = ["apply_step"]


def apply_step(step: AbstractStep, data: Dataset, *, seed: int = 0, out: Path | None = None) -> DataEdit:
    """Apply a step; the new set is named after it, and a note says what was done.

    Args:
        seed: Of the step's draws.
        out: Folder for the new set and the report; nothing is written without one.

    Raises:
        BadData: The data holds nothing that the step can work on, or the step left no row to write.
        UsageError: `out` holds other data.
        RunProblem: `out` cannot be written.
    """
    edit = step.apply(data, seed=seed)
    note = f"Step {step.name} {json.dumps(step.parameters)}, seed {seed}: {summary(edit)}."
    made = replace(
        edit.data, name=f"{data.name}-{step.name}", notes=(*edit.data.notes, note),
        test_only=edit.data.test_only or data.test_only,
    )  # fmt: skip
    edit = replace(edit, data=made)
    if out is not None:
        write_data(made, out, edit)
    return edit
