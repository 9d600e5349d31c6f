"""A mend: edits and the card that says where they come from. A mend is data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import load_file

from vlmend.core.edits import AnyEdit, idle
from vlmend.core.files import write_together
from vlmend.core.packing import pack, unpack
from vlmend.core.typed import made
from vlmend.errors import FAILURES, BadImage, BadParameter, MendMismatch, ModelProblem, UsageError, VlmendError

__all__ = ["Mend", "MendCard", "at_sites"]

CARD, TENSORS = "mend.json", "mend.safetensors"
FORMAT = 3
OLDER = 2
"""The format before: contrasts of logits held one principle in the place of views."""


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
        dose: Per site, as `str` gives it, |edit| / |state| on the anchors: how hard the mend pushes (`at_sites`).
            Other numbers of a fit stand here under names of their own.
        source: Paper or reason.
        identity: Digest of each part of the base model that can change what comes out (`weights`, `processor`,
            `chat_template`, ...); empty on cards of before. A mend works on no model in which one differs.
        notes: What the fit left out, and why. One sentence each.
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
    identity: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()


def at_sites(dose: Mapping[str, float]) -> dict[str, float]:
    """Of a card's dose what is told of edited sites, |edit| / |state| each."""
    return {site: value for site, value in dose.items() if re.fullmatch(r"\w+\.\d+\.\w+", site)}


@dataclass(frozen=True, eq=False)
class Mend:
    """An ordered tuple of edits with their card."""

    edits: tuple[AnyEdit, ...]
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

    def check_base(self, model: str, model_digest: str, identity: Mapping[str, str] | None = None) -> None:
        """Refuse to work on a model that the mend was not fitted on.

        Args:
            model: Name of the model.
            model_digest: Fingerprint of its weights.
            identity: Digests of its parts; a part that only one side knows is not compared.

        Raises:
            MendMismatch: The weights or another part differ; the message says which.
        """
        again = f"Fit it on this model: vlmend mend {self.card.method} {model} --out DIR."
        if model_digest != self.card.model_digest:
            same = " It may be of an earlier vlmend, which read only some of the weights." * (model == self.card.model)
            raise MendMismatch(
                f"This mend ({self.card.method}) was fitted on {self.card.model} "
                f"(fingerprint {self.card.model_digest[:12]}), not on {model} ({model_digest[:12]}).{same}",
                again,
            )
        there = identity or {}
        differs = [part for part, digest in self.card.identity.items() if there.get(part, digest) != digest]
        if differs:
            raise MendMismatch(
                f"This mend ({self.card.method}) was fitted on {self.card.model} with another "
                f"{', '.join(part.replace('_', ' ') for part in differs)}, though with the same weights.",
                f"{again} Or bring back the {differs[0].replace('_', ' ')} that it was fitted with.",
            )

    def touches(self, with_image: bool) -> bool:
        """Whether a request with or without an image can be answered otherwise than by the base."""
        return any(not idle(edit) and (with_image or edit.when == "always") for edit in self.edits)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the edits and what they were fitted for; the model name of a mended run has it."""
        manifest, tensors = self._serialised()
        kept = {key: manifest[key] for key in ("edits",)} | {"base": self.card.model_digest}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode() + tensors).hexdigest()

    def save(self, folder: Path) -> None:
        """Write `mend.json` and `mend.safetensors`; the first holds the digest of the second.

        Raises:
            RunProblem: They cannot be written; a mend that was there is as it was.
            ModelProblem: It holds NaN or infinite numbers.
        """
        manifest, tensors = self._serialised()
        broken = sorted(name for name, tensor in read_tensors(tensors).items() if not tensor.isfinite().all())
        if broken:
            raise ModelProblem(
                f"This mend ({self.card.method}) holds NaN or infinite numbers, first in {broken[0]}; it is not saved.",
                "Fit it on the model in --dtype bfloat16 or float32, and on more rows.",
            )
        manifest |= {"tensors": hashlib.sha256(tensors).hexdigest()}
        write_together({folder / CARD: json.dumps(manifest, indent=2).encode(), folder / TENSORS: tensors})

    @classmethod
    def load(cls, folder: Path) -> Mend:
        """Read what `save` wrote; mends of before, whose card does not know its tensors by their digest, load too.

        Raises:
            UsageError: The folder holds no mend, halves of two, one of another format, or values that no mend can
                have; the field is named.
        """
        try:
            manifest = json.loads((folder / CARD).read_bytes())
            _check_halves(folder, manifest.get("tensors"))
            tensors = load_file(folder / TENSORS)
            if manifest["format"] == OLDER:
                manifest |= {"format": FORMAT, "edits": [_migrated(row) for row in manifest["edits"]]}
            if manifest["format"] != FORMAT:
                raise UsageError(
                    f"{folder} holds a mend of format {manifest['format']}, this vlmend reads {FORMAT}.",
                    "Fit it again, or use the vlmend that wrote it.",
                )
            return cls(unpack(manifest["edits"], tensors), _card(manifest["card"]))
        except (*FAILURES, RecursionError, SafetensorError, BadParameter, BadImage) as problem:
            said = problem.message if isinstance(problem, VlmendError) else f"{type(problem).__name__}: {problem}"
            raise UsageError(
                f"{folder} holds no mend that can be read ({said}).",
                "Pass a folder that `vlmend mend ... --out` wrote.",
            ) from problem

    def _serialised(self) -> tuple[dict[str, Any], bytes]:
        rows, tensors = pack(self.edits)
        return {"format": FORMAT, "card": asdict(self.card), "edits": rows}, tensors


def _check_halves(folder: Path, digest: str | None) -> None:
    """Refuse tensors that the card does not know, as a copy that was stopped leaves them."""
    if digest is None:
        return
    with (folder / TENSORS).open("rb") as tensors:
        if hashlib.file_digest(tensors, "sha256").hexdigest() != digest:
            raise UsageError(
                f"{folder} holds halves of two mends: {TENSORS} is not the one that {CARD} was written with.",
                "Fit it again, or copy both files from one place.",
            )


def _card(row: dict[str, Any]) -> MendCard:
    return made(MendCard, row | {"notes": tuple(row.get("notes", ()))})


def _migrated(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the format before in today's words."""
    if row["kind"] != "ContrastLogits":
        return row
    kept = {key: value for key, value in row.items() if key != "principle"}
    return kept | {"views": [{"$view": {"before": row["principle"], "image": "same", "question": True}}]}
