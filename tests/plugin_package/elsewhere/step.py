"""captioned: rows without a caption go, captions lose the space around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vlmend.core.contracts import AbstractStep, Changed, DataEdit, Dropped
from vlmend.core.examples import Dataset, Example

__all__ = ["STEP", "Captioned"]


@dataclass(frozen=True)
class Captioned(AbstractStep):
    """Keeps rows with a caption."""

    name: ClassVar[str] = "captioned"
    source: ClassVar[str] = "spring cleaning"
    idempotent: ClassVar[bool] = True

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        told = [row for row in data.examples if row.caption and row.caption.strip()]
        after = [replace(row, caption=str(row.caption).strip()) for row in told]
        changed = [Changed(a, b, "space around the caption") for a, b in zip(told, after, strict=True) if a != b]
        dropped = [Dropped(row, "no caption") for row in data.examples if row not in told]
        return DataEdit(replace(data, examples=tuple(after)), tuple(changed), tuple(dropped))

    def sample_data(self) -> Dataset:
        return Dataset("three", (Example("a", caption=" a cat"), Example("b", "why?"), Example("c", caption="a dog")))


STEP = Captioned
