"""Finds the decoder blocks and the vision tower of a loaded model, by structure.

Decoder blocks are the one `ModuleList` whose length is the text config's `num_hidden_layers` and
whose every block holds cached attention (a module that knows its `layer_idx`, equal to the block's
place). Vision blocks keep no cache, so they drop out without looking at a single name. Where this
does not settle it, the answer is an error, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from vlmend.errors import AnatomyProblem

__all__ = ["Anatomy", "find_anatomy", "module_tree"]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Where things are in one model.

    Attributes:
        blocks_path: Dotted path of the decoder blocks.
        blocks: The blocks, first to last.
        width: Size of the residual stream.
        vision_path: Dotted path of the vision tower.
        vision: The vision tower; every image passes through it.
        image_token_id: Placeholder token of an image, or None where the family has none.
    """

    blocks_path: str
    blocks: tuple[nn.Module, ...]
    width: int
    vision_path: str
    vision: nn.Module
    image_token_id: int | None


def find_anatomy(model: PreTrainedModel, blocks_path: str | None = None) -> Anatomy:
    """Find blocks and vision tower.

    Args:
        model: A loaded image-text-to-text model.
        blocks_path: Dotted path of the decoder blocks, where the structure alone cannot tell.

    Raises:
        AnatomyProblem: None or several candidates; the message holds the module tree.
    """
    text_config = model.config.get_text_config(decoder=True)
    depth = int(text_config.num_hidden_layers)
    path, blocks = _named_blocks(model, blocks_path) if blocks_path else _decoder_blocks(model, depth)
    vision_path, vision = _vision_tower(model)
    token = getattr(model.config, "image_token_id", None) or getattr(model.config, "image_token_index", None)
    return Anatomy(path, tuple(blocks), int(text_config.hidden_size), vision_path, vision, token)


def module_tree(model: nn.Module) -> str:
    """Every ModuleList with its length and block class: what an anatomy error shows."""
    lists = ((path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m))
    return "\n".join(f"  {path}  {len(m)} x {type(m[0]).__name__}" for path, m in lists)


def _decoder_blocks(model: nn.Module, depth: int) -> tuple[str, nn.ModuleList]:
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and _all_cached(module)
    ]
    if len(found) == 1:
        return found[0]
    what = "No list of modules looks" if not found else f"{len(found)} lists of modules look"
    raise AnatomyProblem(
        f"{what} like the {depth} decoder blocks of {type(model).__name__}. Its lists are:\n{module_tree(model)}\n",
        "Pass the right one: --blocks PATH (in Python: load(..., blocks=PATH)).",
    )


def _named_blocks(model: nn.Module, path: str) -> tuple[str, nn.ModuleList]:
    module = dict(model.named_modules()).get(path)
    if isinstance(module, nn.ModuleList):
        return path, module
    raise AnatomyProblem(
        f"{path!r} is no list of modules of {type(model).__name__}. Its lists are:\n{module_tree(model)}\n",
        "Pass one of these with --blocks.",
    )


def _all_cached(blocks: nn.ModuleList) -> bool:
    """Does every block hold an attention that knows its place in the key/value cache?"""
    return all(
        any(getattr(module, "layer_idx", None) == place for module in block.modules())
        for place, block in enumerate(blocks)
    )


def _vision_tower(model: PreTrainedModel) -> tuple[str, nn.Module]:
    config = cast("PreTrainedConfig | None", getattr(model.config, "vision_config", None))
    towers = [
        (path, module)
        for path, module in model.named_modules()
        if path and config is not None and isinstance(module, PreTrainedModel)
        if type(module.config) is type(config)
    ]
    if towers:
        return towers[0]
    raise AnatomyProblem(
        f"No vision tower was found in {type(model).__name__}. Its lists of modules are:\n{module_tree(model)}\n",
        "vlmend needs a model that reads images and has a vision_config.",
    )
