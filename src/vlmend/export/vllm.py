"""A mend for vLLM: a folder with the mend and the plug-in package that applies it, request by request.

Every edit of states is carried, with its scope and its gate: what the plug-in reads of an engine's step (whose tokens,
where they stand, where pictures are) is what our own hooks know of a batch. What the folder holds is read back by the
plug-in's own reader and held to the hooks before it appears.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, assert_never

from safetensors.torch import save
from torch import Tensor

from vlmend.core.contracts import AbstractExporter
from vlmend.core.conversation import Conversation
from vlmend.core.edits import (
    ActivationEdit,
    AddVector,
    AffineMap,
    AlignReply,
    AnyGate,
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
from vlmend.core.provenance import versions
from vlmend.core.sites import Site
from vlmend.errors import RunProblem, UsageError
from vlmend.export.engine.proving import greedy, prove
from vlmend.export.vllm_plugin.engine import ASKED, FIRED
from vlmend.export.vllm_plugin.mends import FORMAT, MANIFEST, PLACES, TENSORS, read
from vlmend.models.vlm import VLM

__all__ = ["EXPORTER", "VLLM"]

PACKAGE = "vlmend_vllm"
CORNER = 8, 64
"""Rows and columns of each weight by which the plug-in knows the base again."""
ASKED_OF_IT = ("Name three colours.", "What is a tide?", "Write one sentence about the sea.", "How do I boil an egg?")
"""Requests whose greedy tokens `python -m vlmend_vllm` compares."""
TOKENS = 16


@dataclass(frozen=True)
class VLLM(AbstractExporter):
    """The exporter; its option `always` is that of `hf`."""

    name: ClassVar[str] = "vllm"
    takes: ClassVar[tuple[str, ...]] = ("always",)
    about: ClassVar[str] = "a plug-in for vLLM that edits states request by request"
    near: ClassVar[str] = "the same greedy tokens in float32 (text-only; pictures not run)"

    def refusals(self, target: VLM, options: Mapping[str, Any]) -> list[str]:
        """Every reason why the plug-in cannot do what the view does."""
        found = Counter(reason for edit in target.edits for reason in _reasons(edit, target.layers))
        told = [f"{count} edits: {reason}" if count > 1 else reason for reason, count in found.items()]
        return told if target.edits else ["The view has no edit that does anything. Give --mend."]

    def write(self, target: VLM, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write mend and plug-in, after the folder was read back and gave the logits and tokens of the hooks.

        Raises:
            UsageError: An option that there is not, or a mend that is refused.
            ModelProblem: The proof failed; nothing is written.
            RunProblem: The folder is there already, or cannot be written.
        """
        self.check_options(options)
        told = self.refusals(target, options)
        if told:
            raise UsageError(
                f"{target.id} cannot be taken to vLLM:\n" + "".join(f"  - {reason}\n" for reason in told),
                "vlmend serve MODEL --mend DIR carries every mend.",
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunProblem(f"{out} is there already and not empty.", "Choose another --out; nothing is overwritten.")
        return _written(_always(target) if options.get("always") else target, out)

    def told(self, made: Mapping[str, Any]) -> list[str]:
        """What was written, and how an engine is started with it."""
        return [
            f"{made['folder']}: {made['name']} in {made['edits']} edits, {made['error']:.1e} of the largest logit away "
            "from its hooks",
            f"in vLLM's environment: pip install {made['folder']}",
            launch(str(made["folder"]), made["whole"]),
            f"a request without extra argument gets the mend, {ASKED}=base the base model; compare tokens first: "
            f"python -m {PACKAGE} MODEL {made['folder']}",
        ]


EXPORTER = VLLM()


def launch(folder: str, whole: bool) -> str:
    """The command that starts an engine with a mend."""
    chunks = " --no-enable-chunked-prefill" * whole
    return (
        f"{PLACES}={folder} VLLM_USE_V2_MODEL_RUNNER=0 vllm serve MODEL --enforce-eager --no-enable-prefix-caching"
        f"{chunks} --logits-processors {FIRED}"
    )


def _reasons(edit: Edit, depth: int) -> list[str]:
    kind = type(edit).__name__
    match edit:
        case AddVector() | ProjectOut() | CosineDose() | AffineMap() | ModuleEdit():
            site = edit.site
            fits = site.stack == "language" and site.point == "resid_post" and site.layer < depth
            where = f"{site} is not the output of one of the {depth} decoder blocks. Fit the mend there."
            return [] if fits else [where]
        case ContrastShift():
            return [f"{kind} is measured anew in each request. Use the dataset-level form (cmrm), or vlmend serve."]
        case LoadAdapter() | ReplaceWeights():
            return [f"{kind} changes weights. Export hf: vLLM serves that checkpoint without any plug-in."]
        case FilterImage():
            return [f"{kind} changes pictures before they are read. Do it where you serve."]
        case (
            RewritePrompt() | ShowExamples() | ShowNearest() | ShowReasoned() | ContrastLogits() | RefuseWhen()
            | ReviewReply() | AlignReply()
        ):  # fmt: skip
            return [f"{kind} acts on prompt, logits or reply, the plug-in on states. Use vlmend serve."]
        case _:
            assert_never(edit)


def _always(view: VLM) -> VLM:
    """The view with edits meant for image requests made edits of every request."""

    def meant(edit: Any) -> Any:
        return replace(edit, when="always") if isinstance(edit, ActivationEdit) else edit

    return replace(view, mends=tuple(replace(mend, edits=tuple(map(meant, mend.edits))) for mend in view.mends))


def _written(view: VLM, out: Path) -> Mapping[str, Any]:
    """Beside its place, read back and proved from there, then renamed."""
    building = out.with_name(f"{out.name}.{os.getpid()}")
    manifest, tensors = _packed(view)
    try:
        building.mkdir(parents=True)
        write_file(building / TENSORS, tensors, mode=SHARED)
        write_file(building / MANIFEST, json.dumps(manifest, indent=1), mode=SHARED)
        mend = read(building)
        error = prove(view, mend)
        _write_package(building)
        blocks = ", ".join(str(layer) for layer in sorted({edit["layer"] for edit in mend.edits}))
        card = CARD.format(
            name=mend.name, model=view.name, digest=view.model_digest, blocks=blocks, error=error,
            launch=launch("THIS_FOLDER", mend.whole), asked=ASKED, package=PACKAGE,
        )  # fmt: skip
        write_file(building / "README.md", card, mode=SHARED)
        building.replace(out)
    except OSError as problem:
        raise RunProblem(f"{out} cannot be written ({problem}).", "Choose another --out, or make room.") from problem
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return {
        "folder": out, "model": view.name, "name": mend.name, "edits": len(mend.edits), "blocks": blocks,
        "error": error, "whole": mend.whole,
    }  # fmt: skip


def _packed(view: VLM) -> tuple[dict[str, Any], bytes]:
    """The manifest and the bytes of its tensors."""
    tensors: dict[str, Tensor] = {}
    edits = [_row(edit, f"edit.{place}", tensors) for place, edit in enumerate(view.edits)]
    for layer, block in enumerate(view.anatomy.blocks):
        for name, weight in block.named_parameters():
            corner = weight.detach()[tuple(slice(size) for size in CORNER[-weight.dim() :])]
            tensors[f"layer.{layer}.{name}"] = corner.float().cpu().contiguous().clone()
    packed, text = save(tensors), view.model.config.get_text_config(decoder=True)
    probes = [
        {"prompt": prompt, "base": greedy(view.bare, asked, TOKENS), "mended": greedy(view, asked, TOKENS)}
        for asked in map(Conversation.ask, ASKED_OF_IT)
        for prompt in [view.reader.inputs([asked])["input_ids"][0].tolist()]
    ]
    manifest = {
        "format": FORMAT, "name": "+".join(f"{mend.card.method}@{mend.digest[:8]}" for mend in view.mends),
        "model": view.name, "model_digest": view.model_digest, "depth": view.layers, "width": view.anatomy.width,
        "vocabulary": text.vocab_size, "edits": edits, "probes": probes, "versions": versions(),
        "tensors": hashlib.sha256(packed).hexdigest(),
    }  # fmt: skip
    return manifest, packed


def _row(act: ActivationEdit | AnyGate | Any, key: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """An edit or a gate as the plug-in reads it."""
    row: dict[str, Any] = {"kind": type(act).__name__}
    for field in fields(act):
        match getattr(act, field.name):
            case Site() as site:
                row["layer"] = site.layer
            case Tensor() as tensor:
                tensors[f"{key}.{field.name}"] = tensor.detach().float().cpu().contiguous().clone()
                row[field.name] = "$tensor"
            case None | str() | int() | float() as plain:
                row[field.name] = plain
            case gate:
                row[field.name] = _row(gate, f"{key}.{field.name}", tensors)
    return row


def _write_package(folder: Path) -> None:
    """The plug-in's source and what pip needs of it."""
    source = files("vlmend.export.vllm_plugin")
    (folder / PACKAGE).mkdir()
    for file in source.iterdir():
        if file.name.endswith(".py"):
            write_file(folder / PACKAGE / file.name, file.read_text(), mode=SHARED)
    write_file(folder / "pyproject.toml", PYPROJECT.format(version=versions()["vlmend"]), mode=SHARED)


PYPROJECT = """[build-system]
requires = ["setuptools>=70"]
build-backend = "setuptools.build_meta"

[project]
name = "vlmend-vllm"
version = "{version}"
description = "Applies mends of vlmend inside vLLM"
requires-python = ">=3.10"
license = "Apache-2.0"
dependencies = ["torch", "safetensors"]  # beside vLLM, which brings both

[project.entry-points."vllm.general_plugins"]
vlmend = "vlmend_vllm.engine:register"

[tool.setuptools]
packages = ["vlmend_vllm"]
"""

CARD = """# {name} for vLLM

A mend of `{model}` (fingerprint `{digest}`) and the plug-in that applies it. In vLLM's environment:

    pip install THIS_FOLDER
    {launch}

A request gets the mend; one with the extra argument `{asked}` = `base` gets the base model:
`SamplingParams(extra_args={{"{asked}": "base"}})`, over HTTP `"vllm_xargs": {{"{asked}": "base"}}`. Several folders,
apart as in PATH, serve several mends, by their names; the first is the default.

It edits what blocks {blocks} put out. Applied by the plug-in's own code to the model in float32, what the folder holds
gives the mend's logits but for {error:.1e} of the largest one. Whether your engine says the same tokens:

    python -m {package} MODEL THIS_FOLDER

An engine in which a mended request passes a block by stops with an error; so does one without the package, or with
settings under which the mend would be another (compiled, cached prefixes, several devices).
"""
