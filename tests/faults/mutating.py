"""Files as a fault or an attack leaves them: JSON with one value changed, bytes with some flipped, cut or gone."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import torch
from torch import Tensor

STRANGE: list[Any] = [
    None, True, -1, 0, 1, 3, 99, 10**30, 0.5, -2.5, float("nan"), float("inf"), "", "x", "language.99.resid_post",
    "a" * 300, "\x1b[2J", "{prompt}{0.a}", "{", [], {}, [[]], [1, "a"], {"$tensor": "none"},
    {"$site": "vision.0.embedding"},     {"$gate": {}}, {"a": {"b": []}},
]  # fmt: skip


def changed(content: Any, rng: random.Random) -> Any:
    """JSON values with one of them, at any depth, replaced, taken out, doubled or swapped with another."""
    held = copy.deepcopy(content)
    places = list(_places(held))
    if not places:
        return rng.choice(STRANGE)
    parent, key = rng.choice(places)
    match rng.randrange(4):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 0 | 1 if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        case 2:
            other, name = rng.choice(places)
            parent[key] = copy.deepcopy(other[name])
        case _:
            parent[key] = copy.deepcopy(rng.choice(STRANGE))
    return held


def changed_json(text: str, rng: random.Random) -> str:
    return json.dumps(changed(json.loads(text), rng))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes after a fault: emptied, cut, some of them flipped, or a piece taken out or put in."""
    size = len(content)
    match rng.randrange(6):
        case 0:
            return b""
        case 1:
            return content[: rng.randrange(size + 1)]
        case 2 | 3:
            held = bytearray(content)
            for _ in range(rng.choice((1, 1, 3, 50))):
                if held:
                    held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
            return bytes(held)
        case 4:
            start = rng.randrange(size + 1)
            return content[:start] + content[start + rng.randrange(1, 40) :]
        case _:
            start = rng.randrange(size + 1)
            return content[:start] + rng.randbytes(rng.randrange(1, 40)) + content[start:]


def other(tensor: Tensor, rng: random.Random) -> Tensor:
    """Of another shape or kind, or with numbers that are none."""
    match rng.randrange(6):
        case 0:
            return tensor.reshape(-1)[:-1].clone()
        case 1:
            return tensor[None].contiguous()
        case 2:
            return torch.full_like(tensor.float(), rng.choice((float("nan"), float("inf"))))
        case 3:
            return tensor.to(torch.int64)
        case 4:
            return tensor.to(torch.bfloat16)
        case _:
            return tensor.new_zeros((0,) * tensor.ndim)


def _places(content: Any) -> Any:
    """Every value below this one, as its parent and its key."""
    held = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in held:
        yield content, key
        yield from _places(value)
