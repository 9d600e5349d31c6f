"""A mend: edits and the card that says where they come from. A mend is data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from vlmend.core.edits import Edit, idle
from vlmend.core.packing import pack, unpack
from vlmend.errors import MendMismatch, RunProblem, UsageError

__all__ = ["Mend", "MendCard"]

FORMAT = 2


@dataclass(frozen=True)
class MendCard:
    """Where a mend comes from and what it does.

    Attributes:
        method: Registered name of the method.
        parameters: Its parameters, as JSON values.
        model: Name of the base model, for people.
        model_digest: Fingerprint of the base model; a mend works on no other.
        data: Name of the data it was fitted on.
        data_digest: Digest of that data.
        seed: Seed of the fit.
        versions: Library versions at the fit.
        dose: Per edited site, |edit| / |state| on the anchors: how hard the mend pushes. Empty for
            mends that act elsewhere than on states.
        source: Paper or reason.
    """

    method: str
    parameters: dict[str, Any]
    model: str
    model_digest: str
    data: str
    data_digest: str
    seed: int
    versions: dict[str, str]
    dose: dict[str, float]
    source: str


@dataclass(frozen=True, eq=False)
class Mend:
    """An ordered tuple of edits with their card."""

    edits: tuple[Edit, ...]
    card: MendCard

    def scaled(self, factor: float) -> Mend:
        """The same mend, `factor` times as strong; 0 is the base model."""
        dose = {site: value * abs(factor) for site, value in self.card.dose.items()}
        parameters = self.card.parameters | {"scaled": factor * self.card.parameters.get("scaled", 1.0)}
        card = replace(self.card, dose=dose, parameters=parameters)
        return Mend(tuple(edit.scaled(factor) for edit in self.edits), card)

    def __add__(self, other: Mend) -> Mend:
        """Both mends, this one's edits first.

        Raises:
            MendMismatch: They were fitted on different base models.
        """
        other.check_base(self.card.model, self.card.model_digest)
        card = replace(
            self.card,
            method=f"{self.card.method}+{other.card.method}",
            parameters={self.card.method: self.card.parameters, other.card.method: other.card.parameters},
            dose=self.card.dose | other.card.dose,
        )
        return Mend(self.edits + other.edits, card)

    def check_base(self, model: str, model_digest: str) -> None:
        """Refuse to work on a model that the mend was not fitted on.

        Raises:
            MendMismatch: The fingerprints differ.
        """
        if model_digest != self.card.model_digest:
            raise MendMismatch(
                f"This mend ({self.card.method}) was fitted on {self.card.model} "
                f"(fingerprint {self.card.model_digest[:12]}), not on {model} ({model_digest[:12]}).",
                f"Fit it on this model: vlmend mend {self.card.method} --model {model} --out DIR.",
            )

    def touches(self, with_image: bool) -> bool:
        """Whether a request with or without an image can be answered otherwise than by the base."""
        return any(not idle(edit) and (with_image or edit.when == "always") for edit in self.edits)

    @property
    def digest(self) -> str:
        """SHA-256 over the edits and what they were fitted for; the model name of a mended run has it."""
        manifest, tensors = self._serialised()
        kept = {key: manifest[key] for key in ("edits",)} | {"base": self.card.model_digest}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode() + tensors).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `mend.json` and `mend.safetensors`, each in one step."""
        manifest, tensors = self._serialised()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in (
                ("mend.safetensors", tensors),
                ("mend.json", json.dumps(manifest, indent=2).encode()),
            ):
                (folder / f"{name}.new").write_bytes(content)
                (folder / f"{name}.new").replace(folder / name)
        except OSError as problem:
            raise RunProblem(
                f"The mend cannot be written to {folder} ({problem.strerror}).",
                "Choose another --out, or make room.",
            ) from problem

    @classmethod
    def load(cls, folder: Path) -> Mend:
        """Read what `save` wrote.

        Raises:
            UsageError: The folder holds no mend, or one of another format.
        """
        try:
            manifest = json.loads((folder / "mend.json").read_text())
            tensors = load_file(folder / "mend.safetensors")
            if manifest["format"] != FORMAT:
                raise UsageError(
                    f"{folder} holds a mend of format {manifest['format']}, this vlmend reads {FORMAT}.",
                    "Fit it again, or use the vlmend that wrote it.",
                )
            return cls(unpack(manifest["edits"], tensors), MendCard(**manifest["card"]))
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as problem:
            raise UsageError(
                f"{folder} holds no mend that can be read ({problem!r}).",
                "Pass a folder that `vlmend mend ... --out` wrote.",
            ) from problem

    def _serialised(self) -> tuple[dict[str, Any], bytes]:
        rows, tensors = pack(self.edits)
        return {"format": FORMAT, "card": asdict(self.card), "edits": rows}, tensors
