"""Twins: copies of a loaded model that share its weights, and of which one part learns. The model is never touched.

What a twin has learnt comes back as edits of weights, for a mend that can be put on and taken off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from vlmend.core.targets import ChatWeights, DualWeights
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights, WeightEdit
from vlmend.errors import BadParameter, MissingExtra, ModelProblem

__all__ = ["How", "Part", "Twin", "roots_of", "twin_of", "twin_of_module"]

Part = Literal["decoder", "projector", "vision", "text", "all"]
"""What learns. Of a chat model: its decoder blocks, what lies between tower and decoder, its vision tower. Of a dual
encoder: its vision or its text tower. Of both: the whole model."""

How = Literal["adapters", "weights"]
"""adapters: low-rank products beside plain linear modules (peft). weights: the parameters themselves."""

PROJECTORS = re.compile(r"(^|\.)(multi_modal_|mm_|language_)?(projector|projection|connector|merger|aligner)$")
"""What the module between tower and decoder is called in transformers' families."""
READ_ONCE = ("logit_scale", "logit_bias", "temperature")
"""Read when a dual encoder is loaded; no edit of weights would reach them."""


@dataclass(frozen=True, eq=False)
class Twin:
    """A copy of a model, part of which learns.

    Attributes:
        model: The copy, frozen but for what learns; in eval mode.
        how: How it learns.
        learning: Dotted paths in the original: modules with an adapter, or parameters.
        original: What each learning parameter was; empty with adapters.
    """

    model: Any
    how: How
    learning: tuple[str, ...]
    original: Mapping[str, torch.Tensor]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser steps."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def edits(self) -> list[WeightEdit]:
        """What was learnt, as edits of the original: adapters with their scale in `up`, or parameters that moved."""
        if self.how == "weights":
            now = {name: self.model.get_parameter(name).detach() for name in self.learning}
            moved = [name for name in self.learning if not torch.equal(now[name], self.original[name])]
            return [ReplaceWeights(name, now[name].float().cpu().clone()) for name in moved]
        found: list[WeightEdit] = []
        for name in self.learning:
            layer: Any = self.model.get_submodule(name)
            down, up = (getattr(layer, part)["default"].weight.detach().float().cpu() for part in ("lora_A", "lora_B"))
            found.append(LoadAdapter(name, down.clone(), layer.scaling["default"] * up))
        return found


def twin_of(
    target: ChatWeights | DualWeights, part: Part, how: How = "adapters", *, rank: int = 8, only: str = "", seed: int
) -> Twin:
    """A twin of a target's model, mends left out.

    Args:
        target: Whose model.
        part: What learns.
        how: `adapters` start at zero; `weights` as they are.
        rank: Of the adapters; their alpha is twice that.
        only: Regular expression that the path of a linear module or a parameter must contain; empty for every one.
        seed: Of the adapters' first values.

    Raises:
        BadParameter: The target has no such part, or its weights are too coarse to be trained as they are.
        MissingExtra: peft is not installed.
        ModelProblem: The part holds nothing that can learn.
    """
    roots = roots_of(target, part)
    model: Any = target.model if isinstance(target, ChatWeights) else target.towers.model
    if how == "weights":
        return _of_weights(target.name, model, roots, re.compile(only))
    return _of_adapters(target.name, model, roots, re.compile(only), rank, seed)


def twin_of_module(name: str, model: nn.Module, *, rank: int, seed: int) -> Twin:
    """A twin with adapters on every linear module, of a model that is no target.

    Args:
        name: Of the model, for messages.
        model: Which; it is not touched.
        rank: Of the adapters; their alpha is twice that.
        seed: Of their first values.

    Raises:
        MissingExtra: peft is not installed.
        ModelProblem: No linear module can be adapted.
    """
    return _of_adapters(name, model, [""], re.compile(""), rank, seed)


def roots_of(target: ChatWeights | DualWeights, part: Part) -> list[str]:
    """Dotted paths of a part, none inside another; "" is the whole model.

    Raises:
        BadParameter: The target has no such part that can be told.
    """
    if part == "all":
        return [""]
    if isinstance(target, ChatWeights):
        anatomy = target.anatomy
        projectors = [path for path, _ in target.model.named_modules() if PROJECTORS.search(path)]
        found = {"decoder": [anatomy.blocks_path], "projector": _outermost(projectors), "vision": [anatomy.vision_path]}
    else:
        towers = {"vision": target.towers.vision, "text": target.towers.text}
        found = {name: [] if tower is None else [target.towers.path(tower)] for name, tower in towers.items()}
    roots = found.get(part, [])
    if roots:
        return roots
    there = [name for name, paths in found.items() if paths]
    raise BadParameter(f"{target.name} has no part {part!r} that can be told.", f"It has {', '.join(there)} and all.")


def _of_weights(name: str, model: nn.Module, roots: Sequence[str], only: re.Pattern[str]) -> Twin:
    chosen = {
        path: parameter
        for path, parameter in model.named_parameters()
        if _below(path, roots) and only.search(path) and path.rpartition(".")[2] not in READ_ONCE
    }
    coarse = [path for path, parameter in chosen.items() if parameter.dtype not in (torch.float32, torch.float64)]
    if coarse:
        raise BadParameter(
            f"The weights of {name} are {chosen[coarse[0]].dtype}: small steps of training would be lost in rounding.",
            "Load it with --dtype float32, or train adapters.",
        )
    if not chosen:
        raise ModelProblem(f"No parameter of {name} was chosen to learn.", "Choose another part.")
    copies = {id(parameter): nn.Parameter(parameter.detach().clone()) for parameter in chosen.values()}
    original = {path: parameter.detach() for path, parameter in chosen.items()}
    return Twin(_copied(model, copies), "weights", tuple(chosen), original)


def _of_adapters(
    name: str, model: nn.Module, roots: Sequence[str], only: re.Pattern[str], rank: int, seed: int
) -> Twin:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as problem:
        raise MissingExtra(
            "Adapters are trained with peft, which is not installed.", "pip install 'vlmend[train]'"
        ) from problem
    chosen = {_home(model, root): _linears(model, root, only) for root in roots}
    if not any(chosen.values()):
        raise ModelProblem(
            f"{name} holds no plain linear module to adapt there.",
            "Load the model without quantisation, or choose another part.",
        )
    twin = _copied(model, {})
    learning: list[str] = []
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
        torch.manual_seed(seed)
        for root, names in chosen.items():
            config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
            inject_adapter_in_model(config, twin.get_submodule(root))
            learning += [f"{root}.{one}" if root else one for one in names]
    for parameter in twin.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # steps of Adam vanish in half precision
    return Twin(twin, "adapters", tuple(learning), {})


def _copied(model: nn.Module, learning: Mapping[int, nn.Parameter]) -> nn.Module:
    """A copy that shares every weight, frozen, but for those that learn, by the id of what they stand for."""
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return deepcopy(model, shared | dict(learning))


def _home(model: nn.Module, root: str) -> str:
    """Where adapters below a root are put in: itself, or the module around it where it is linear itself."""
    return root.rpartition(".")[0] if isinstance(model.get_submodule(root), nn.Linear) else root


def _linears(model: nn.Module, root: str, only: re.Pattern[str]) -> list[str]:
    """Plain linear modules at or below a root, by their path from its home."""
    skipped = len(f"{home}.") if (home := _home(model, root)) else 0
    paths = [path for path, module in model.named_modules() if type(module) is nn.Linear]
    return [path[skipped:] for path in paths if (path == root or _below(path, [root])) and only.search(path)]


def _outermost(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]


def _below(path: str, roots: Sequence[str]) -> bool:
    return any(not root or path.startswith(f"{root}.") for root in roots)
