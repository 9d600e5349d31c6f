"""A mend as a control vector of llama.cpp: a GGUF file that its tools add to the outputs of decoder blocks.

llama.cpp adds `direction.N` (float32, as long as a state is wide) to the output of block N, counted from 0, at every
position: text, picture and reply. Block 0 is steered by nobody. What a mend does beside that is refused. The reader of
the format: llama.cpp, common/common.cpp, `common_control_vector_load_one`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractExporter
from vlmend.core.conversation import Conversation
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    AlignReply,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    Edit,
    FilterImage,
    LoadAdapter,
    ModuleEdit,
    ProjectOut,
    RefuseWhen,
    ReplaceWeights,
    ReviewReply,
    RewritePrompt,
    ShowExamples,
    ShowNearest,
    ShowReasoned,
)
from vlmend.core.files import SHARED, write_file
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.errors import MissingExtra, ModelProblem, RunProblem, UsageError
from vlmend.models.vlm import VLM

__all__ = ["EXPORTER", "VECTORS", "ControlVector", "directions_of", "read_directions"]

VECTORS = "mend.gguf"
TOLERANCE = 1e-5
"""Largest difference of any logit, relative to the largest logit (at least 1)."""

Directions = dict[int, Float[Tensor, " width"]]


@dataclass(frozen=True)
class ControlVector(AbstractExporter):
    """The exporter; its option `always` is that of `hf`."""

    name: ClassVar[str] = "gguf"
    takes: ClassVar[tuple[str, ...]] = ("always",)
    about: ClassVar[str] = "a control vector for llama.cpp"
    near: ClassVar[str] = "logits within 6.6e-7 of the largest one in float32; 2.6e-3 with llama.cpp's flash attention"

    def refusals(self, target: VLM, options: Mapping[str, Any]) -> list[str]:
        """Every reason why the view is no control vector."""
        always = bool(options.get("always", False))
        found = Counter(reason for edit in target.edits for reason in _reasons(edit, target.layers, always))
        told = [f"{count} edits: {reason}" if count > 1 else reason for reason, count in found.items()]
        return told if target.edits else ["The view has no edit that does anything. Give --mend."]

    def write(self, target: VLM, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write `mend.gguf` and a README, after the file was read back and gave the logits of the hooks.

        Raises:
            UsageError: An option that there is not, or a mend that is no control vector.
            MissingExtra: The package gguf is not installed.
            ModelProblem: The proof failed; nothing is written.
            RunProblem: The folder is there already, or cannot be written.
        """
        self.check_options(options)
        told = self.refusals(target, options)
        if told:
            raise UsageError(
                f"{target.id} is no control vector:\n" + "".join(f"  - {reason}\n" for reason in told),
                "vlmend serve MODEL --mend DIR carries every mend.",
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunProblem(f"{out} is there already and not empty.", "Choose another --out; nothing is overwritten.")
        return _written(target, out)

    def told(self, made: Mapping[str, Any]) -> list[str]:
        """What was written, how to use it, and what it does not say."""
        return [
            f"{made['file']}: {made['mends']} in blocks {made['blocks'][0]} to {made['blocks'][-1]}, "
            f"{made['error']:.1e} of the largest logit away from its hooks",
            f"llama-server -m MODEL.gguf --control-vector {made['file']}",
            "note: llama.cpp applies it to text-only requests too, and in some families passes it by without a word: "
            "compare a reply at --temp 0 with and without it",
        ]


EXPORTER = ControlVector()


def directions_of(view: VLM) -> Directions:
    """What the view adds to the output of each block, the edits of one block summed."""
    found: Directions = {}
    for edit in view.edits:
        if isinstance(edit, AddVector):
            held = found.get(edit.site.layer)
            found[edit.site.layer] = edit.vector.float() if held is None else held + edit.vector.float()
    return dict(sorted(found.items()))


def read_directions(file: Path) -> Directions:
    """The directions of a file, by block."""
    from gguf import GGUFReader

    return {
        int(tensor.name.removeprefix("direction.")): torch.tensor(tensor.data.copy())
        for tensor in GGUFReader(file).tensors
    }


def _reasons(edit: Edit, depth: int, always: bool) -> list[str]:
    kind = type(edit).__name__
    match edit:
        case AddVector():
            return _vector_reasons(edit, depth, always)
        case ProjectOut() | CosineDose() | AffineMap() | ModuleEdit():
            return [f"{kind} depends on the state, a control vector does not. Use a method that adds vectors (cmrm)."]
        case ContrastShift():
            return [f"{kind} is measured anew in each request. Use the dataset-level form (cmrm)."]
        case LoadAdapter() | ReplaceWeights():
            return [f"{kind} changes weights. Export it with hf, and convert that checkpoint with llama.cpp's script."]
        case FilterImage():
            return [f"{kind} changes pictures before they are read. Do it where you serve."]
        case (
            RewritePrompt() | ShowExamples() | ShowNearest() | ShowReasoned() | ContrastLogits() | RefuseWhen()
            | ReviewReply() | AlignReply()
        ):  # fmt: skip
            return [f"{kind} acts on prompt, logits or reply; no vector can hold it. Do it where you serve."]
        case _:
            assert_never(edit)


def _vector_reasons(edit: AddVector, depth: int, always: bool) -> list[str]:
    site, told = edit.site, list[str]()
    if site.stack != "language" or site.point != "resid_post" or site.layer >= depth:
        told.append(f"{site} is not the output of one of the {depth} decoder blocks. Fit the mend there.")
    elif site.layer == 0:
        told.append("llama.cpp leaves block 0 as it is. Fit the mend without it, as with --set layers=1-9.")
    if edit.gate is not None:
        told.append("A gate opens it for some requests, a control vector acts on all. Fit a mend without a gate.")
    if edit.tokens != "all":
        told.append(
            f"It acts at tokens={edit.tokens!r}, a control vector at every one. Fit CMRM with --set scope=every_token; "
            "that is another mend, so audit it before you export it."
        )
    if edit.when != "always" and not always:
        told.append(
            "It is for requests with an image, a control vector acts on text-only requests too. "
            "If that is what you want, pass --always."
        )
    return told


def _written(view: VLM, out: Path) -> Mapping[str, Any]:
    """Beside its place, read back from there, then renamed."""
    building = out.with_name(f"{out.name}.{os.getpid()}")
    mends = ", ".join(f"{mend.card.method}@{mend.digest[:12]}" for mend in view.mends)
    directions = directions_of(view)
    try:
        building.mkdir(parents=True)
        _write_file(building / VECTORS, directions, str(view.model.config.get_text_config().model_type), view.layers)
        read = read_directions(building / VECTORS)
        if sorted(read) != sorted(directions) or any(not torch.equal(read[k], directions[k]) for k in read):
            raise ModelProblem(f"{VECTORS} does not read back as it was written.", "Report it with vlmend doctor.")
        error = _compared(view, read)
        blocks = ", ".join(map(str, read))
        card = CARD.format(model=view.name, digest=view.model_digest, mends=mends, blocks=blocks, error=error)
        write_file(building / "README.md", card, mode=SHARED)
        building.replace(out)
    except OSError as problem:
        raise RunProblem(
            f"The control vector cannot be written to {out} ({problem}).", "Choose another --out, or make room."
        ) from problem
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return {"file": out / VECTORS, "model": view.name, "mends": mends, "blocks": [*directions], "error": error}


def _write_file(file: Path, directions: Directions, family: str, depth: int) -> None:
    try:
        from gguf import GGUFWriter
    except ImportError as problem:
        raise MissingExtra("The exporter gguf needs the package gguf.", "Run: pip install 'vlmend[gguf]'") from problem
    writer = GGUFWriter(file, "controlvector")
    writer.add_string("controlvector.model_hint", family)
    writer.add_uint32("controlvector.layer_count", depth)
    for block, vector in directions.items():
        writer.add_tensor(f"direction.{block}", vector.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _compared(view: VLM, read: Directions) -> float:
    """The file's directions at every position of every request, beside the hooks of the view.

    Raises:
        ModelProblem: Logits differ.
    """
    meant = [replace(mend, edits=tuple(_always(edit) for edit in mend.edits)) for mend in view.mends]
    card = view.mends[0].card
    filed = Mend(tuple(AddVector(Site("language", block), vector, "all") for block, vector in read.items()), card)
    picture = Conversation.ask("What is in this picture?", noise_image(view.image_side, 0))
    asked = [Conversation.ask("Name three colours."), picture]
    ours, theirs = (replace(view, mends=mends).logits(asked) for mends in ((filed,), tuple(meant)))
    error = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))
    if not error <= TOLERANCE:
        raise ModelProblem(
            f"The control vector differs from the hooks by {error:.2g} of the largest logit; nothing was written.",
            "Keep the hooks for this model, and report its family.",
        )
    return error


def _always(edit: Any) -> Any:
    return replace(edit, when="always") if isinstance(edit, AddVector) else edit


CARD = """# {mends} for llama.cpp

A control vector for `{model}` (fingerprint `{digest}`), which it was fitted on; on any other model it means nothing.

    llama-server -m MODEL.gguf --control-vector mend.gguf

It adds one vector to the output of blocks {blocks}, at every position of every request, text-only ones too. At scale 1
it is the mend; another strength is another mend. Added by hooks in float32, what the file holds gives the mend's logits
but for {error:.1e} of the largest one. llama.cpp's own arithmetic, and the rounding of a quantised model, come on top.
"""
