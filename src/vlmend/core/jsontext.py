"""JSON that every parser reads: null for numbers that JSON has not; and sums that tell whether a byte was changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["SUM", "plain", "sum_of", "summed", "to_json", "unsummed"]

SUM = "sum"
"""The name under which a sum stands among the values that it is of."""


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


def sum_of(values: Mapping[str, Any]) -> str:
    """A digest of JSON values by name."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def summed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What `plain` leaves, with its sum in the place of any that is there."""
    held: dict[str, Any] = plain({name: value for name, value in values.items() if name != SUM})
    return held | {SUM: sum_of(held)}


def unsummed(values: dict[str, Any]) -> dict[str, Any] | None:
    """The values without their sum; None where it is that of others. Values without one are taken as they are."""
    held = {name: value for name, value in values.items() if name != SUM}
    return held if values.get(SUM) in (None, sum_of(held)) else None
