"""Why a view cannot be exported as a stock checkpoint: of its edits, its weights and its blocks.

Told from structure and by a measurement, never from a family's name: a probe is put into each edited
block's `mlp.down_proj`, and what comes out of the block must be moved by just that. A norm or a factor
behind the MLP shows there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, assert_never

import torch
from torch import Tensor, nn

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
from vlmend.export.checkpoint.folding import DOWN, FLAGS, bare_frame, down_of, vectors_of
from vlmend.models.anatomy.compiled import check_compiled
from vlmend.models.vlm import VLM

__all__ = ["refusals"]

PROBE = Conversation.ask("Name three colours.")
STRAY = 1e-3
"""Largest error of a probe on its way out of a block, relative to the probe."""


def refusals(view: VLM, always: bool) -> list[str]:
    """Every reason, each with its way out; empty where the view can be exported.

    Args:
        view: A loaded model with its mends.
        always: Edits meant for image requests may become edits of every request.

    Raises:
        ModelProblem: The model was compiled in a way that passes hooks by.
    """
    depth = view.layers
    found = Counter(reason for edit in view.edits for reason in _edit_reasons(view, edit, depth, always))
    told = [f"{count} edits: {reason}" if count > 1 else reason for reason, count in found.items()]
    whole = _weight_reasons(view.model)
    layers = [layer for layer in vectors_of(view) if layer < depth]
    return [*told, *whole, *(_block_reasons(view, layers) if layers else [])]


def _edit_reasons(view: VLM, edit: Edit, depth: int, always: bool) -> list[str]:
    kind = type(edit).__name__
    match edit:
        case AddVector():
            return _vector_reasons(edit, depth, always)
        case ProjectOut() | CosineDose() | AffineMap():
            return [f"{kind} depends on the state, a bias does not. Use a method that adds vectors (cmrm)."]
        case ModuleEdit():
            return [f"{kind} is a layer of its own, for which the model's class has no place. Keep the hooks."]
        case ContrastShift():
            return [f"{kind} is measured anew in each request. Use the dataset-level form (cmrm)."]
        case LoadAdapter():
            return _adapter_reasons(view, edit)
        case ReplaceWeights():
            return []
        case FilterImage():
            return [f"{kind} changes images before the processor; weights cannot hold it. Do it where you serve."]
        case (
            RewritePrompt() | ShowExamples() | ShowNearest() | ContrastLogits() | RefuseWhen() | ShowReasoned()
            | ReviewReply() | AlignReply()
        ):  # fmt: skip
            return [f"{kind} acts on prompt, logits or reply; weights cannot hold it. Do it where you serve."]
        case _:
            assert_never(edit)


def _adapter_reasons(view: VLM, edit: LoadAdapter) -> list[str]:
    """An adapter is merged into the weight of a plain linear module that no other module shares."""
    module = view.model.get_submodule(edit.module)
    if type(module) is not nn.Linear:
        return [f"{edit.module} is a {type(module).__name__}, into which no adapter can be merged. Keep the hooks."]
    owners = sum(
        weight is module.weight for weight in dict(view.model.named_parameters(remove_duplicate=False)).values()
    )
    return [f"The weight of {edit.module} is shared with another module. Keep the hooks."] if owners > 1 else []


def _vector_reasons(edit: AddVector, depth: int, always: bool) -> list[str]:
    site, told = edit.site, list[str]()
    if site.stack != "language" or site.point != "resid_post" or site.layer >= depth:
        told.append(f"{site} is not the output of one of the {depth} decoder blocks. Fit the mend there.")
    if edit.gate is not None:
        told.append("A gate opens it for some requests, a bias acts on all. Fit a mend without a gate.")
    if edit.tokens != "all":
        told.append(
            f"It acts at tokens={edit.tokens!r}, a bias at every token. Fit CMRM with --set scope=every_token; "
            "that is another mend, so audit it before you export it."
        )
    if edit.when != "always" and not always:
        told.append(
            "It is for requests with an image, a bias acts on text-only requests too. "
            "If that is what you want, pass --always (in Python: always=True)."
        )
    return told


def _weight_reasons(model: Any) -> list[str]:
    """What stands in the way of a stock checkpoint of the whole model, proved in float32."""
    told: list[str] = []
    if not type(model).__module__.startswith("transformers."):
        told.append(f"{type(model).__name__} is not a class of transformers, so no stock checkpoint can hold it.")
    if getattr(model.config, "quantization_config", None) is not None:
        told.append("Its weights are quantised. Load the checkpoint that they were quantised from.")
    elif any(weight.is_meta for weight in model.parameters()):
        told.append("Some of its weights are offloaded. Load it whole on one device, such as the CPU.")
    elif any(weight.dtype != torch.float32 for weight in model.parameters()):
        told.append("It is not loaded in float32, in which equality is proved. Load it with dtype='float32'.")
    return told


def _block_reasons(view: VLM, layers: Sequence[int]) -> list[str]:
    """What the edited blocks are made of, whether they may have biases, and where a bias would end up."""
    blocks = view.anatomy.blocks
    found = {layer: reason for layer in layers if (reason := _shape_reason(blocks[layer], blocks))}
    fit = [layer for layer in layers if layer not in found]
    told = _told(found)
    if not fit:
        return told
    if bare_frame(view, fit) is None:
        text = type(view.model.config.get_text_config(decoder=True)).__name__
        told.append(
            f"{text} has no flag ({' or '.join(FLAGS)}) by which its {DOWN} gets a bias, so no stock checkpoint can "
            "hold one. Keep the hooks, or use a base model whose family has the flag, such as Llama's."
        )
    return told + _told(_stray_reasons(view, fit))


def _shape_reason(block: nn.Module, blocks: Sequence[nn.Module]) -> str:
    if any("expert" in name for name, _ in block.named_parameters()):
        return "a mixture of experts: a bias would reach only the tokens sent to its expert. Keep the hooks."
    down = down_of(block)
    if down is None:
        return f"no plain linear layer at {DOWN}. Keep the hooks."
    sharing = sum(other is block or getattr(down_of(other), "weight", None) is down.weight for other in blocks)
    return "weights shared with other blocks, where a bias would act too. Keep the hooks." if sharing > 1 else ""


def _stray_reasons(view: VLM, layers: Sequence[int]) -> dict[int, str]:
    """By a probe in each block: is the block's output moved by what its `DOWN` puts out more, and no other?"""
    check_compiled(view.model, view.anatomy, [f"{view.anatomy.blocks_path}.{layer}.{DOWN}" for layer in layers])
    bare: dict[int, Tensor] = {}
    stray: dict[int, float] = {}
    _forward(view, {view.anatomy.blocks[layer]: _keeper(layer, bare) for layer in layers})
    hooks: dict[nn.Module, Callable[..., Any]] = {}
    for layer, state in bare.items():
        draw = torch.randn(state.shape[-1], generator=torch.Generator().manual_seed(layer))
        probe = draw.to(state) * state.square().mean().sqrt()
        hooks[down_of(view.anatomy.blocks[layer])] = _pusher(probe)
        hooks[view.anatomy.blocks[layer]] = _measurer(layer, state, probe, stray)
    _forward(view, hooks)
    silent = {
        layer: "not run for text-only requests, hooks are. Keep the hooks." for layer in layers if layer not in bare
    }
    return silent | {
        layer: f"a norm or a factor behind {DOWN}: a bias there would not come out as it went in. Keep the hooks."
        for layer, error in stray.items()
        if not error <= STRAY
    }


@torch.inference_mode()
def _forward(view: VLM, hooks: Mapping[nn.Module, Callable[..., Any]]) -> None:
    with ExitStack() as stack:
        for module, hook in hooks.items():
            stack.callback(module.register_forward_hook(hook).remove)
        view.reader.forward(view.reader.inputs([PROBE]))


def _keeper(layer: int, bare: dict[int, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: Any) -> None:
        bare[layer] = _state(output).clone()

    return hook


def _pusher(probe: Tensor) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return output + probe

    return hook


def _measurer(layer: int, state: Tensor, probe: Tensor, stray: dict[int, float]) -> Callable[..., None]:
    """Measures one block, and puts its bare output back, so that the next block starts as before."""

    def hook(module: nn.Module, args: object, output: Any) -> None:
        moved = _state(output)
        stray[layer] = float((moved - state - probe).abs().max() / probe.abs().max())
        moved.copy_(state)

    return hook


def _state(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _told(found: Mapping[int, str]) -> list[str]:
    """Layers with the same reason in one line."""
    by_reason: dict[str, list[int]] = {}
    for layer, reason in found.items():
        by_reason.setdefault(reason, []).append(layer)
    return [
        f"Layer{'s' * (len(places) > 1)} {', '.join(map(str, places))}: {reason}"
        for reason, places in by_reason.items()
    ]
