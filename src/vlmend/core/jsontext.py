"""JSON that every parser reads: null for numbers that JSON has not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["plain", "to_json"]


def plain(value: Any) -> Any:
    """The same lists and mappings, with None for every float that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(held) for key, held in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in cast("list[Any]", value)]
    return value


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text of what `plain` leaves."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)
