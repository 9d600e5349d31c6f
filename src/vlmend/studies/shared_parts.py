"""Which parts two models have in common, told by the digests of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import nn

from vlmend.core.provenance import fingerprint
from vlmend.core.targets import Target
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights
from vlmend.models.decoding.sharing import place_of
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.vlm import VLM

__all__ = ["part_digests", "shared_parts"]


def part_digests(target: Target) -> dict[str, str]:
    """Digest of the weights of each part of a model that vlmend loaded, its mends' weights included; else nothing.

    A model that answers has a vision tower, a decoder (its blocks) and the rest, which is projector, embeddings and
    output layer; a dual encoder has a vision tower, a text tower and the rest, which is projections and scale.
    """
    if isinstance(target, VLM):
        model, paths = target.model, {"tower": target.anatomy.vision_path, "decoder": target.anatomy.blocks_path}
    elif isinstance(target, DualEncoder):
        towers = target.towers
        model = towers.model
        told = {"tower": towers.vision, "text tower": towers.text}
        paths = {name: towers.path(tower) for name, tower in told.items() if tower is not None}
    else:
        return {}
    digests = {name: fingerprint(model.get_submodule(path)) for name, path in paths.items()}
    digests["rest"] = fingerprint(_without(model, list(paths.values())))
    for mend in target.mends:
        places = [place_of(edit) for edit in mend.edits if isinstance(edit, LoadAdapter | ReplaceWeights)]
        for name in {_part_at(place, paths) for place in places}:
            digests[name] = hashlib.sha256(f"{digests[name]}+{mend.digest}".encode()).hexdigest()
    return digests


def shared_parts(first: Mapping[str, str], second: Mapping[str, str]) -> list[str] | None:
    """Names of the parts of one model whose weights are those of a part of another; None where one is not known."""
    return [name for name, digest in first.items() if digest in second.values()] if first and second else None


def _part_at(place: str, paths: Mapping[str, str]) -> str:
    return next((name for name, path in paths.items() if place == path or place.startswith(f"{path}.")), "rest")


def _without(model: nn.Module, paths: list[str]) -> nn.Module:
    """The weights of a model that lie in none of these modules, under their own names."""
    held = nn.Module()
    for name, weight in model.state_dict().items():
        if not any(name.startswith(f"{path}.") for path in paths):
            held.register_buffer(name.replace(".", "/"), weight)
    return held
