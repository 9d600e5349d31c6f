"""A key/value cache whose rows come and go: it grows in place, loses rows, and takes in those of another.

transformers' own dynamic layer copies all keys and values at every token; here a token writes one column
of a buffer with room to spare. Only plain layers, one key and value a token, can be cut and joined this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

__all__ = ["GrowingLayer", "growing", "joined", "kept", "plain_layers"]

ROOM = 32
"""Columns that a full buffer grows by."""

Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer, "row head token size"."""


class GrowingLayer(DynamicLayer):
    """Keys and values at the front of a larger buffer."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._held: tuple[Tensor, Tensor] = (keys, values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write new columns, and give all that are written."""
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if end > self._held[0].shape[-2]:
            self._held = (_roomy(self._held[0], length, end + ROOM), _roomy(self._held[1], length, end + ROOM))
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, length:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self._held)
        return self.keys, self.values


def plain_layers(cache: object) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a cache whose every layer is a plain one; empty where one is not."""
    layers = cache.layers if isinstance(cache, Cache) else []
    plain = [
        layer for layer in layers if isinstance(layer, DynamicLayer) and type(layer) in (DynamicLayer, GrowingLayer)
    ]
    found = [(layer.keys, layer.values) for layer in plain if layer.keys is not None and layer.values is not None]
    return found if len(found) == len(layers) else []


def growing(layers: Layers) -> DynamicCache:
    """A cache that holds these keys and values, and grows in place."""
    cache = DynamicCache()
    cache.layers.extend(GrowingLayer(keys, values) for keys, values in layers)
    return cache


def kept(layers: Layers, rows: Int[Tensor, " row"], first: int) -> Layers:
    """These rows only, without the first columns."""
    return [(keys[rows, :, first:], values[rows, :, first:]) for keys, values in layers]


def joined(one: Layers, other: Layers) -> Layers:
    """The rows of both, one after the other, filled up on the left to the length of the longer."""
    longest = max(one[0][0].shape[-2], other[0][0].shape[-2])

    def filled(part: Tensor) -> Tensor:
        return nn.functional.pad(part, (0, 0, longest - part.shape[-2], 0))

    return [
        (torch.cat([filled(k), filled(other_k)]), torch.cat([filled(v), filled(other_v)]))
        for (k, v), (other_k, other_v) in zip(one, other, strict=True)
    ]


def _roomy(part: Tensor, length: int, size: int) -> Tensor:
    held = part.new_empty((*part.shape[:2], size, part.shape[3]))
    held[:, :, :length] = part[:, :, :length]
    return held
