"""Edits to JSON rows and one safetensors blob, and back: every kind, without a line per kind.

A value that JSON cannot hold stands in the row as a tag: {"$tensor": key}, {"$site": text},
{"$image": key, "name": text}, {"$view": fields}, {"$gate": fields} and the tags of other gates (`GATES`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from vlmend.core.dual_edits import DualEdit
from vlmend.core.edits import AnyEdit, Edit, Gate, MahalanobisGate, NeighbourGate, OtherView
from vlmend.core.images import Image
from vlmend.core.sites import Site
from vlmend.core.typed import made

__all__ = ["pack", "unpack"]

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*get_args(Edit), *get_args(DualEdit))}

GATES: dict[str, Any] = {"$gate": Gate, "$mahalanobis_gate": MahalanobisGate, "$neighbour_gate": NeighbourGate}


def pack(edits: Sequence[AnyEdit]) -> tuple[list[dict[str, Any]], bytes]:
    """Rows for the manifest and the bytes of a safetensors file."""
    tensors: dict[str, Tensor] = {}
    rows = [{"kind": type(edit).__name__} | _fields(edit, f"{place:04d}", tensors) for place, edit in enumerate(edits)]
    return rows, save(tensors)


def unpack(rows: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> tuple[AnyEdit, ...]:
    """The edits that `pack` wrote.

    Raises:
        ValueError: A row of an unknown kind, or a value that its field cannot hold; the field is named.
        KeyError: A tensor is missing.
        TypeError, AttributeError: It is no list of rows.
        BadParameter: Values that do not fit together, or a site that there is not.
        BadImage: An image of it cannot be read.
    """
    edits: list[AnyEdit] = []
    for row in rows:
        if row["kind"] not in KINDS:
            raise ValueError(f"unknown kind of edit {row['kind']!r}")
        values = {key: _value(value, tensors) for key, value in row.items() if key != "kind"}
        edits.append(made(KINDS[row["kind"]], values))
    return tuple(edits)


def _fields(thing: Any, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {field.name: _tagged(getattr(thing, field.name), f"{key}.{field.name}", tensors) for field in fields(thing)}


def _tagged(value: object, key: str, tensors: dict[str, Tensor]) -> object:
    match value:
        case Tensor():
            tensors[key] = value.detach().float().cpu().contiguous().clone()
            return {"$tensor": key}
        case Site():
            return {"$site": str(value)}
        case Image():
            tensors[key] = torch.frombuffer(bytearray(value.content), dtype=torch.uint8)
            return {"$image": key, "name": value.name}
        case Gate() | MahalanobisGate() | NeighbourGate():
            tag = next(tag for tag, kind in GATES.items() if kind is type(value))
            return {tag: _fields(value, key, tensors)}
        case OtherView():
            return {"$view": _fields(value, key, tensors)}
        case tuple():
            parts = cast("tuple[object, ...]", value)
            return [_tagged(part, f"{key}.{k}", tensors) for k, part in enumerate(parts)]
        case _:
            return value


def _value(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"$tensor": key}:
            return tensors[key]
        case {"$site": text}:
            return Site.parse(text)
        case {"$image": key, "name": name}:
            image = Image(tensors[key].numpy().tobytes(), name)
            image.decode()
            return image
        case {**one} if len(one) == 1 and (tag := next(iter(one))) in GATES:
            given = cast("dict[str, Any]", one[tag])
            return made(GATES[tag], {name: _value(part, tensors) for name, part in given.items()})
        case {"$view": inner}:
            seen = cast("dict[str, Any]", inner)
            return made(OtherView, {name: _value(part, tensors) for name, part in seen.items()})
        case list():
            return tuple(_value(part, tensors) for part in cast("list[object]", value))
        case _:
            return value
