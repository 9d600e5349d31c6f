"""A mended model as a stock transformers checkpoint: mends folded into weights and biases, no hooks.

The folder loads with `AutoModelForImageTextToText.from_pretrained` where vlmend is not installed.
It is written only after its logits have been compared with those of the hooked model, and it appears
whole or not at all. What can be folded, and how, is in `vlmend.export.checkpoint`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError

from vlmend.core.contracts import AbstractExporter
from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector
from vlmend.core.files import SHARED, write_file
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.provenance import fingerprint, versions
from vlmend.errors import ModelProblem, RunProblem, UsageError, VlmendError
from vlmend.export.checkpoint.folding import folded, merged_of, vectors_of
from vlmend.export.checkpoint.proofs import Proof
from vlmend.export.checkpoint.refusals import refusals
from vlmend.models.loading.vlm import LoadOptions, load, quiet
from vlmend.models.vlm import VLM

__all__ = ["EXPORTER", "Exported", "HuggingFace", "SavedAs", "export_hf"]

SavedAs = Literal["float32", "float16", "bfloat16"]

TOLERANCE = 1e-5
"""Largest difference of any logit, relative to the largest logit (at least 1)."""

RECORDS = ".eval_results/vlmend.yaml"
"""Where the hub looks for what was measured of a model."""


@dataclass(frozen=True)
class Exported:
    """A checkpoint that was written, and what was measured on the way.

    Attributes:
        folder: Where it is.
        model: Name of the base model.
        base_digest, model_digest: Fingerprints of base and checkpoint; mends of one do not fit the other.
        mends: Method and digest of each mend.
        layers: Decoder layers with a bias that holds a vector.
        weights: Names of the weights into which adapters or new weights were merged.
        always: Whether edits meant for image requests were made edits of every request.
        error: Largest |folded - hooked| of any logit, relative to the largest logit, in float32.
        text_moved: Largest |mended - base| of any logit of the text-only check request.
        dtype: Of the saved weights.
    """

    folder: Path
    model: str
    base_digest: str
    model_digest: str
    mends: tuple[str, ...]
    layers: tuple[int, ...]
    weights: tuple[str, ...]
    always: bool
    error: float
    text_moved: float
    dtype: SavedAs


def export_hf(
    view: VLM, out: Path, *, always: bool = False, dtype: SavedAs = "float32", proof: Proof | None = None
) -> Exported:
    """Write a view, mends and all, as a stock transformers checkpoint.

    Args:
        view: A model loaded in float32, with one or more mends.
        out: Folder to make; it must not exist or be empty.
        always: Fold edits meant for image requests too: text-only requests are then edited as well.
        dtype: Of the saved weights; equality is proved before they are rounded.
        proof: Two runs for its card; they must be of this model, and of these mends or of the checkpoint itself.

    Raises:
        UsageError: A mend or the model cannot be folded; the message holds every reason. Or the proof is of another.
        ModelProblem: Folded and hooked logits differ, or what was written does not load as it should.
        RunProblem: The folder is there already, or cannot be written.
    """
    size = sum(weight.numel() for weight in view.model.parameters()) * getattr(torch, dtype).itemsize
    _check_folder(out, size)
    told = refusals(view, always)
    if told:
        raise UsageError(
            f"{view.id} cannot be exported as a stock checkpoint:\n" + "".join(f"  - {reason}\n" for reason in told),
            "Hooks need none of this: vlmend audit MODEL --mend DIR, or in Python model.with_mend(mend).",
        )
    meant = replace(view, mends=tuple(_always(mend) for mend in view.mends))
    made = folded(view)
    error, text_moved = _compared(made, meant)
    _round(made.model, getattr(torch, dtype))
    result = Exported(
        out, view.name, view.model_digest, fingerprint(made.model),
        tuple(f"{mend.card.method}@{mend.digest[:12]}" for mend in view.mends),
        tuple(vectors_of(view)), merged_of(view),
        any(edit.when != "always" for edit in view.edits), error, text_moved, dtype,
    )  # fmt: skip
    if proof is not None:
        proof.check(view.model_digest, [mend.digest for mend in view.mends], result.model_digest, always=result.always)
    _write(made, result, _card(result, view.mends, proof), proof)
    return result


@dataclass(frozen=True)
class HuggingFace(AbstractExporter):
    """The exporter: its options are those of `export_hf`."""

    name: ClassVar[str] = "hf"
    takes: ClassVar[tuple[str, ...]] = ("always", "dtype", "proof")
    about: ClassVar[str] = "a stock transformers checkpoint, mends folded into weights and biases"
    near: ClassVar[str] = "logits within 1e-5 of the largest one, checked at each export"

    def refusals(self, target: VLM, options: Mapping[str, Any]) -> list[str]:
        """Every reason why the view cannot be a stock checkpoint."""
        return refusals(target, bool(options.get("always", False)))

    def write(self, target: VLM, out: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Prove, write, read back; gives the fields of `Exported`.

        Raises:
            UsageError: An option that there is not, or a mend or model that cannot be folded.
            ModelProblem: The proof failed; nothing is written.
            RunProblem: The folder is there already, or cannot be written.
        """
        self.check_options(options)
        return asdict(export_hf(target, out, **options))

    def told(self, made: Mapping[str, Any]) -> list[str]:
        """What was written, and whether text-only requests are edited too."""
        places = [f"{len(made[what])} {what}" for what in ("layers", "weights") if made[what]]
        lines = [
            f"{made['folder']}: {made['model']} with {', '.join(made['mends']) or 'no mend'} in "
            f"{' and '.join(places) or 'no place'}, {made['error']:.1e} of the largest logit away from its hooks"
        ]
        if made["mends"] and made["model_digest"] == made["base_digest"]:
            lines.append("note: the mends change nothing: this checkpoint is the base")
        if made["always"]:
            lines.append(
                f"note: text-only requests are edited too (the logits of one moved by up to {made['text_moved']:.3g}); "
                "audit this checkpoint, not the mend"
            )
        return lines


EXPORTER = HuggingFace()


def _always(mend: Mend) -> Mend:
    edits = [replace(edit, when="always") if isinstance(edit, AddVector) else edit for edit in mend.edits]
    return replace(mend, edits=tuple(edits))


def _compared(made: VLM, meant: VLM) -> tuple[float, float]:
    """The folded model beside the hooked one on a text-only and an image request.

    Raises:
        ModelProblem: They differ.
    """
    asked = _asked(made)
    pairs = [(made.logits([one]), meant.logits([one])) for one in asked]
    error = max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in pairs)
    if not error <= TOLERANCE:
        raise ModelProblem(
            f"Folded, {meant.id} differs from its hooks by {error:.2g} of its largest logit "
            f"({TOLERANCE:.0e} is allowed); nothing was written.",
            "Keep the hooks for this model, and report its family: its blocks are not what they seem.",
        )
    bare = meant.bare.logits(asked[:1])
    return error, float((pairs[0][0] - bare).abs().max())


def _asked(made: VLM) -> list[Conversation]:
    """A text-only and an image request."""
    picture = noise_image(made.image_side, 0)
    return [Conversation.ask("Name three colours."), Conversation.ask("What is in this picture?", picture)]


def _round(model: Any, dtype: torch.dtype) -> None:
    """To what is saved; buffers that no checkpoint holds (rotary frequencies) stay as loading makes them."""
    kept = {name: buffer for name, buffer in model.named_buffers() if name not in model.state_dict()}
    model.to("cpu", dtype)
    for name, buffer in kept.items():
        path, _, leaf = name.rpartition(".")
        model.get_submodule(path).register_buffer(leaf, buffer.cpu(), persistent=False)


def _check_folder(out: Path, size: int) -> None:
    """Before any work: is the place free, and is there room?"""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunProblem(f"{out} is there already and not empty.", "Choose another --out; nothing is overwritten.")
    place = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise RunProblem(
            f"The checkpoint takes {size / 1e9:.2f} GB, and {place} has {free / 1e9:.2f} GB free.",
            "Make room, choose another --out, or save in 16 bits (--dtype bfloat16).",
        )


def _write(made: VLM, result: Exported, card: str, proof: Proof | None = None) -> None:
    """Into a sibling folder, loaded from there as a user would, then renamed.

    Raises:
        RunProblem: It cannot be written.
        ModelProblem: It cannot be read back.
    """
    out = result.folder
    building = out.with_name(f"{out.name}.{os.getpid()}")
    try:
        building.mkdir(parents=True)
        with quiet():
            made.model.save_pretrained(building)
            made.processor.save_pretrained(building)
        write_file(building / "README.md", card, mode=SHARED)
        if proof is not None and proof.records:
            (building / RECORDS).parent.mkdir()
            write_file(building / RECORDS, proof.records, mode=SHARED)
        _read_back(building, result, made)
        building.replace(out)
    except (OSError, SafetensorError) as problem:
        raise RunProblem(
            f"The checkpoint cannot be written to {out} ({problem}).", "Choose another --out, or make room."
        ) from problem
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _read_back(folder: Path, result: Exported, made: VLM) -> None:
    """Load what was written as a user would, and ask it: its own processor reads words and pictures now.

    Raises:
        ModelProblem: It does not load, or as something else.
    """
    hint = "Report its family: what transformers writes of it, it does not read. Until then, keep the hooks."
    try:
        stock = load(folder, options=LoadOptions(device="cpu", dtype=result.dtype))
        pairs = [(stock.logits([one]), made.logits([one])) for one in _asked(made)]
    except (VlmendError, AttributeError, KeyError, TypeError, RuntimeError) as problem:
        reason = problem.message if isinstance(problem, VlmendError) else repr(problem)
        raise ModelProblem(f"What was written of {result.model} does not load again: {reason}", hint) from problem
    if stock.model_digest != result.model_digest:
        raise ModelProblem(f"What was written of {result.model} loads with other weights.", hint)
    if not all((a - b).abs().max() <= TOLERANCE * b.abs().max().clamp_min(1) for a, b in pairs):
        raise ModelProblem(f"What was written of {result.model} answers otherwise once it is loaded again.", hint)


def _card(result: Exported, mends: Sequence[Mend], proof: Proof | None) -> str:
    """README of the checkpoint: what it is, what is different, what was measured, whose licence."""
    front = {"base_model": result.model, "library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]
    biases = f"the bias of `mlp.down_proj` in decoder layers {', '.join(map(str, result.layers))}" * bool(result.layers)
    merged = f"the weights {', '.join(f'`{name}`' for name in result.weights)}" * bool(result.weights)
    changed = " and ".join(filter(None, (biases, merged))) or "nothing: every edit was zero"
    text = TEXT_TOO if result.always and proof is None else ""
    mend_cards = "\n\n".join(json.dumps({"digest": m.digest} | asdict(m.card), indent=2) for m in mends)
    return CARD.format(
        front="\n".join(lines), result=result, mends=", ".join(result.mends) or "no mend", changed=changed, text=text,
        mend_cards=mend_cards, versions=json.dumps(versions()),
        proof=f"\n**Before and after**: {proof.card}\n" if proof else "",
    )  # fmt: skip


TEXT_TOO = """
The mend was made for requests with an image. Here it acts on **text-only requests too**: a bias cannot tell them apart.
An audit of the mend with hooks says nothing about text-only requests of this checkpoint; audit the checkpoint itself.
"""

CARD = """---
{front}
tags: ["vlmend"]
---

# {result.model} with {mends}

A stock transformers checkpoint of `{result.model}` into whose weights and biases vlmend folded the mends. No hooks, no
extra code:

    AutoModelForImageTextToText.from_pretrained("THIS FOLDER")

**What is different from the base**: {changed}. Where one flag of the
config gives an MLP all its biases, the others are zero. Every other weight, the processor and the generation settings
are the base's (saved in {result.dtype}).
{text}
**Measured at export**, in float32, on one text-only and one image request: no logit is further from the hooked model's
than {result.error:.1e} of the largest logit. The logits of the text-only request moved by up to {result.text_moved:.3g}
from the base's.
{proof}
**Licence**: the base model's. vlmend adds no terms and has not checked whether the base allows redistribution.

| | fingerprint |
|---|---|
| base | `{result.base_digest}` |
| this checkpoint | `{result.model_digest}` |

Mends fitted on the base do not fit this checkpoint.

```json
{mend_cards}
```

Made with {versions}.
"""
