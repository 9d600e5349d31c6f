"""What `vlmend export vllm` wrote, as the plug-in reads it: edits, what the base looks like, and what it should say."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

__all__ = ["BASE", "FORMAT", "MANIFEST", "PLACES", "TENSORS", "Mend", "MendError", "Probe", "listed", "read"]

MANIFEST, TENSORS = "mend.json", "mend.safetensors"
FORMAT = 1
PLACES = "VLMEND_VLLM"
"""Environment variable: the folders of the mends of an engine, apart as in PATH; the first is the default."""
BASE = "base"
"""What a request asks for that wants no mend."""


class MendError(RuntimeError):
    """A mend that cannot act as it should: no token may come out under its name."""


@dataclass(frozen=True)
class Probe:
    """A request as tokens, and the first greedy tokens of the base and of the mended model, by vlmend in float32."""

    prompt: list[int]
    base: list[int]
    mended: list[int]


@dataclass(frozen=True)
class Mend:
    """One folder.

    Attributes:
        name: Method and digest; what a request asks for by `vlmend`.
        model: Name of the base model, for people.
        depth, width, vocabulary: Of the base's text model.
        edits: Kind, layer, tokens, when, gate and numbers of each, in order; tensors in their place.
        sketch: A corner of each weight of each decoder layer, by the name that transformers gives it in the layer.
        probes: For `python -m vlmend_vllm`.
    """

    name: str
    model: str
    depth: int
    width: int
    vocabulary: int
    edits: Sequence[Mapping[str, Any]]
    sketch: Sequence[Mapping[str, Tensor]]
    probes: Sequence[Probe]

    @property
    def layers(self) -> frozenset[int]:
        """Those whose states are edited, or read by a gate."""
        gates = [edit["gate"] for edit in self.edits if edit["gate"] is not None]
        return frozenset(act["layer"] for act in (*self.edits, *gates))

    @property
    def whole(self) -> bool:
        """Whether an edit of early prompt tokens waits for the last one, so that a prompt must be read in one go."""
        waits = (edit for edit in self.edits if edit["gate"] is not None or edit.get("source") == "last_prompt")
        return any(edit["tokens"] in ("all", "prompt", "image") for edit in waits)


def listed(places: str | None = None) -> dict[str, Mend]:
    """The mends of this engine by name, the default first; empty where `VLMEND_VLLM` is not set.

    Raises:
        MendError: A folder cannot be read, or two hold the same mend.
    """
    told = os.environ.get(PLACES, "") if places is None else places
    mends = [read(Path(place)) for place in told.split(os.pathsep) if place]
    found = {mend.name: mend for mend in mends}
    if len(found) < len(mends):
        raise MendError(f"{PLACES}={told} names one mend twice. Name each folder once.")
    return found


def read(folder: Path) -> Mend:
    """One folder.

    Raises:
        MendError: It holds no mend of this format, or halves of two.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, and this plug-in reads {FORMAT}")
        if manifest["tensors"] != hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest():
            raise ValueError(f"{TENSORS} is not the one that {MANIFEST} was written with")
        return _mend(manifest, load_file(folder / TENSORS))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise MendError(
            f"{folder} holds no mend for vLLM ({problem}). Write it anew: vlmend export vllm MODEL --mend DIR --out "
            f"{folder}, and install the plug-in that lies in it."
        ) from problem


def _mend(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Mend:
    def filled(row: Mapping[str, Any], key: str) -> dict[str, Any]:
        found = {name: tensors[f"{key}.{name}"] if value == "$tensor" else value for name, value in row.items()}
        gate = row.get("gate")
        return found if gate is None else found | {"gate": filled(gate, f"{key}.gate")}

    depth = manifest["depth"]
    prefixes = [f"layer.{layer}." for layer in range(depth)]
    sketch = [
        {name.removeprefix(start): corner for name, corner in tensors.items() if name.startswith(start)}
        for start in prefixes
    ]
    edits = [filled({"gate": None} | row, f"edit.{place}") for place, row in enumerate(manifest["edits"])]
    probes = [Probe(**row) for row in manifest["probes"]]
    return Mend(
        manifest["name"], manifest["model"], depth, manifest["width"], manifest["vocabulary"], edits, sketch, probes
    )
