"""Records that come from files: are their values what their fields say?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

import torch
from jaxtyping import jaxtyped
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import Tensor

__all__ = ["made"]

Record = TypeVar("Record")

STRICT = ConfigDict(
    arbitrary_types_allowed=True, strict=True, allow_inf_nan=False, extra="forbid", protected_namespaces=()
)


def made(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """A record of these values.

    Numbers must be finite, those of tensors too. Axes of its tensors that have one name in the annotations have one
    size.

    Args:
        kind: A dataclass.
        values: By field; fields with a default may be left out.

    Raises:
        ValueError: A field is missing, is not known, or holds something else; the message names it.
    """
    try:
        with jaxtyped("context"):
            _model(kind).model_validate(dict(values))
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, (kind.__name__, *first["loc"])))
        raise ValueError(f"{place}: {first['msg']}, and it is {_told(first['input'])}") from None
    for name, value in values.items():
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{kind.__name__}.{name} holds NaN or infinite numbers")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"{kind.__name__}.{name} is {_told(value)}, more than a tensor can hold")
    return kind(**values)


@cache
def _model(kind: type[Any]) -> type[BaseModel]:
    """The fields of a dataclass as pydantic checks them."""
    hints = get_type_hints(kind)
    wanted: dict[str, Any] = {
        one.name: (hints[one.name], ... if one.default is MISSING and one.default_factory is MISSING else None)
        for one in fields(kind)
    }
    return create_model(kind.__name__, __config__=STRICT, **wanted)


def _told(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
