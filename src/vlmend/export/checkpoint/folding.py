"""Mends as weights: a model that shares with its base all weights but those that the mends change.

In a block whose output is h_mid + down_proj(...), with nothing behind it, adding v to the bias of
`mlp.down_proj` adds v to the block's output at every token, as `AddVector(site, v, tokens="all")`
does. An adapter is its product added to the weight of its linear module, a replaced weight is itself.
Whether a mend and a model are of that kind is for `vlmend.export.checkpoint.refusals`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmend.core.edits import AddVector, LoadAdapter, ReplaceWeights
from vlmend.core.provenance import fingerprint
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.vlm import VLM

__all__ = ["DOWN", "FLAGS", "bare_frame", "down_of", "folded", "merged_of", "vectors_of"]

DOWN = "mlp.down_proj"
"""The linear layer of a block that takes the bias."""

FLAGS = ("mlp_bias", "use_bias")
"""Names under which text configs give their MLPs biases; whether a class honours one is tried."""


def vectors_of(view: VLM) -> dict[int, Float[Tensor, " width"]]:
    """What the constant edits of a view add after each decoder block that they edit, layers ascending."""
    total: dict[int, Tensor] = {}
    for edit in view.edits:
        if isinstance(edit, AddVector):
            layer = edit.site.layer
            total[layer] = total[layer] + edit.vector if layer in total else edit.vector
    return dict(sorted(total.items()))


def merged_of(view: VLM) -> tuple[str, ...]:
    """Names of the weights that the view's edits of weights change, in their order, each once."""
    names = (
        f"{edit.module}.weight" if isinstance(edit, LoadAdapter) else edit.parameter
        for edit in view.edits
        if isinstance(edit, LoadAdapter | ReplaceWeights)
    )
    return tuple(dict.fromkeys(names))


def folded(view: VLM) -> VLM:
    """The view's edits as weights and biases, all other biases that come with them zero; no mend is left.

    Call it on what `refusals` finds no fault with.
    """
    vectors = vectors_of(view)
    frame = bare_frame(view, list(vectors))
    assert frame is not None, "a view without refusals has a frame"
    weights = _merged(view)
    for name, made in frame.state_dict().items():
        if name not in weights:
            weights[name] = torch.zeros(made.shape, dtype=view.model.dtype, device=view.model.device)
    for layer, vector in vectors.items():
        name = f"{view.anatomy.blocks_path}.{layer}.{DOWN}"
        bias = weights[f"{name}.bias"]
        weights[f"{name}.bias"] = bias.to(weights[f"{name}.weight"].device) + vector.to(weights[f"{name}.weight"])
    frame.load_state_dict(weights, assign=True)
    frame.tie_weights()
    _fill_buffers(frame, view.model)
    frame.generation_config = copy.deepcopy(view.model.generation_config)
    model = frame.eval()
    return VLM(view.name, model, view.processor, find_anatomy(model, view.anatomy.blocks_path), fingerprint(model))


def _merged(view: VLM) -> dict[str, Tensor]:
    """All weights of the model, those changed that edits of weights change; the others are the model's own."""
    weights: dict[str, Tensor] = view.model.state_dict()
    for edit in view.edits:
        match edit:
            case LoadAdapter():
                name = f"{edit.module}.weight"
                weight = weights[name]
                made = weight + edit.strength * (edit.up.to(weight) @ edit.down.to(weight))
            case ReplaceWeights():
                name = edit.parameter
                weight = weights[name]
                value = edit.value.to(weight)
                made = value if edit.strength == 1 else weight + edit.strength * (value - weight)
            case _:
                continue
        tied = [other for other, tensor in weights.items() if tensor.data_ptr() == weight.data_ptr()]
        weights |= dict.fromkeys([name, *tied], made)
    return weights


def bare_frame(view: VLM, layers: Sequence[int]) -> Any:
    """The model's class without weights, with a bias at each of these layers' `DOWN`, or None.

    The config is the model's own where these have a bias already, else with a flag set that adds
    biases and nothing else.
    """
    for flag in (None, *FLAGS):
        config = copy.deepcopy(view.model.config)
        text = config.get_text_config(decoder=True)
        if flag is not None:
            if getattr(text, flag, None) is not False:
                continue
            setattr(text, flag, True)
        with torch.device("meta"):
            frame = type(view.model)(config)
        blocks = frame.get_submodule(view.anatomy.blocks_path)
        added = set(frame.state_dict()) ^ set(view.model.state_dict())
        biased = all(down_of(blocks[layer]).bias is not None for layer in layers)
        if biased and all(name.endswith(".bias") for name in added):
            return frame
    return None


def down_of(block: nn.Module) -> Any:
    """The linear layer that takes the bias, or None where the block has none at that place."""
    found = dict(block.named_modules()).get(DOWN)
    return found if type(found) is nn.Linear else None


def _fill_buffers(frame: nn.Module, base: nn.Module) -> None:
    """Give the frame what no checkpoint holds (rotary frequencies, position ids), from the base."""
    for name, buffer in dict(frame.named_buffers()).items():
        if buffer.is_meta:
            path, _, leaf = name.rpartition(".")
            frame.get_submodule(path).register_buffer(leaf, base.get_buffer(name), persistent=False)
