"""Making the head of a view, proving private scores of it on the way, and writing its two halves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vlmend.core.contracts import AbstractExporter
from vlmend.core.dual_edits import AcceptAbove, Rerank
from vlmend.core.examples import Dataset, class_names
from vlmend.core.files import write_file, write_json
from vlmend.core.targets import Kind
from vlmend.data.layouts import read_data
from vlmend.errors import BadData, BadParameter, ModelProblem, RunProblem, UsageError
from vlmend.export.private.head import CLIENT, SERVER, Asker, Head, Way
from vlmend.models.dual.encoder import DualEncoder
from vlmend.pictures.galleries import PHOTO

__all__ = ["AbstractHeadExporter", "head_of", "layer_of"]

TOLERANCE = 1e-3
"""Largest difference of a private score from the plain one, relative to the largest plain score (at least 1)."""

MOST = 2**19
"""No score may be larger: encrypted numbers have 20 bits before the point, and a sign."""

PROBES = 3
"""Random embeddings of length 1 on which an export is proved."""


def head_of(view: DualEncoder, names: Sequence[str]) -> Head:
    """The zero-shot head of a view: "a photo of a NAME" for each name, with the view's own scale, bias and mends.

    Scores of a dual encoder are linear in the picture's embedding, so the zero vector gives the bias and the unit
    vectors give the rest.
    """
    texts = view.embed_texts([PHOTO.format(name) for name in names])
    with torch.no_grad():
        bias = view.scored(torch.zeros(1, texts.shape[1]), texts)[0]
        weight = (view.scored(torch.eye(texts.shape[1]), texts) - bias).T
    return Head(weight.contiguous().float(), bias.contiguous().float())


def layer_of(file: Path, width: int) -> tuple[Head, tuple[str, ...]]:
    """A user's linear layer: `weight` (class by width) and, if any, `bias` in a safetensors file; names 0, 1, ...

    Raises:
        BadData: It is no such file, or of another width.
    """
    try:
        held = load_tensors(file.read_bytes())
    except (OSError, SafetensorError) as problem:
        raise BadData(
            f"{file} is no safetensors file that can be read ({problem}).", "Save weight and bias of the linear layer."
        ) from problem
    weight = held.get("weight")
    if weight is None or weight.dim() != 2 or weight.shape[1] != width:
        shape = "no weight" if weight is None else f"a weight of {' x '.join(map(str, weight.shape))}"
        raise BadData(f"{file} holds {shape}.", f"Its weight must be classes x {width}, the width of the embeddings.")
    bias = held.get("bias", torch.zeros(len(weight)))
    if bias.shape != (len(weight),) or not (weight.isfinite().all() and bias.isfinite().all()):
        raise BadData(f"{file} holds a bias of another length, or numbers that are none.", "Save the layer again.")
    return Head(weight.float(), bias.float()), tuple(map(str, range(len(weight))))


@dataclass(frozen=True)
class AbstractHeadExporter(AbstractExporter):
    """Writes the head in two halves, after private scores of random embeddings were found equal to plain ones.

    Options: `data`, whose first answers are the classes, or `head`, a safetensors file with a linear layer.
    """

    name: ClassVar[Way]  # pyright: ignore[reportIncompatibleVariableOverride]
    works_on: ClassVar[Kind] = "dual"
    takes: ClassVar[tuple[str, ...]] = ("data", "head")
    not_private: ClassVar[tuple[str, ...]]

    @abstractmethod
    def trial(self, head: Head, embeddings: Float[Tensor, "image width"]) -> Float[Tensor, "image class"]:
        """Private scores of a few embeddings, on this machine."""

    def refusals(self, target: DualEncoder, options: Mapping[str, Any]) -> list[str]:
        """Edits that decide behind the scores, where nobody sees them."""
        del options
        kinds = {type(edit) for mend in target.mends for edit in mend.edits} & {AcceptAbove, Rerank}
        return [
            f"a mend with {kind.__name__} decides with scores in the clear. Leave it out, and decide at the client."
            for kind in sorted(kinds, key=lambda kind: kind.__name__)
        ]

    def write(self, target: DualEncoder, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write `server/` and `client/`, to be kept in two places.

        Raises:
            UsageError: A mend that cannot go along, or no classes.
            BadParameter: An option that there is not.
            BadData: What is named has no classes, or another width.
            MissingExtra: The library is not installed.
            ModelProblem: Private and plain scores differ; nothing is written.
            RunProblem: The folder is there already, or cannot be written.
        """
        self.check_options(options)
        if told := self.refusals(target, options):
            raise UsageError(
                f"{target.id} cannot be exported as {self.name}:\n" + "".join(f"  - {one}\n" for one in told),
                "Score without that mend, or in the clear: vlmend audit MODEL --mend DIR.",
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunProblem(f"{out} is there already and not empty.", "Choose another --out; nothing is overwritten.")
        head, names = self._asked(target, options)
        error = self._proved(head)
        asker = Asker(
            self.name, names, head.weight.shape[1], target.name, target.model_digest,
            tuple(mend.digest for mend in target.mends), self.not_private,
        )  # fmt: skip
        held = {"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}
        write_file(out / SERVER, save_tensors(held))
        write_json(out / CLIENT, asker.__dict__)
        return {
            "folder": out, "model": target.name, "classes": len(names), "width": asker.width, "error": error,
            "not_private": list(self.not_private),
        }  # fmt: skip

    def told(self, made: Mapping[str, Any]) -> list[str]:
        """What is not private, then what was written."""
        return [
            *(f"not private: {line}" for line in made["not_private"]),
            f"{made['folder']}: {made['classes']} classes of width {made['width']} of {made['model']}; private scores "
            f"are {made['error']:.1e} of the largest score away from plain ones",
        ]

    def _asked(self, target: DualEncoder, options: Mapping[str, Any]) -> tuple[Head, tuple[str, ...]]:
        data, layer = options.get("data"), options.get("head")
        if (data is None) == (layer is None):
            raise BadParameter(
                f"{self.name} needs the classes: one of data and head.",
                "Give --data with rows whose answers name them, or --head FILE.safetensors with a linear layer.",
            )
        if layer is not None:
            return layer_of(Path(layer), target.embed_texts([""]).shape[1])
        rows = data if isinstance(data, Dataset) else read_data(str(data))
        names = class_names(rows)
        return head_of(target, names), names

    def _proved(self, head: Head) -> float:
        bound = float((head.weight.norm(dim=1) + head.bias.abs()).max())
        if not bound < MOST:
            raise ModelProblem(
                f"Scores of this head can be as large as {bound:.3g}; private arithmetic here ends at {MOST}.",
                "Scale the layer down: the order of the classes stays.",
            )
        draw = torch.Generator().manual_seed(0)
        probes = torch.nn.functional.normalize(torch.randn(PROBES, head.weight.shape[1], generator=draw), dim=1)
        plain = head.scores(probes)
        error = float((self.trial(head, probes) - plain).abs().max() / plain.abs().max().clamp_min(1))
        if not error <= TOLERANCE:
            raise ModelProblem(
                f"Private scores differ from plain ones by {error:.2g} of the largest ({TOLERANCE:.0e} is allowed); "
                "nothing was written.",
                "Report it with the shape of the head.",
            )
        return error
