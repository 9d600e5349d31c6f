"""Finds the decoder blocks and the vision tower of a loaded model, by structure.

Decoder blocks are the one `ModuleList` whose length is the text config's `num_hidden_layers` and
whose every block holds cached attention (a module that knows its `layer_idx`, equal to the block's
place). Vision blocks keep no cache, so they drop out without looking at a single name; where another
part numbers its attention too (a Q-Former), the list inside the model that has the text config is the
decoder's. Where this does not settle it, the answer is an error, never a guess.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from vlmend.errors import AnatomyProblem
from vlmend.models.anatomy.notes import decoder_notes, shifted_modules

__all__ = ["Anatomy", "find_anatomy", "module_tree"]


UNEVEN = (
    "tokens before the image attend evenly to every image slot of the batch, empty ones included, "
    "so rows with different numbers of images change one another"
)
"""Measured on Mllama (transformers 5.23): its mask of such tokens covers the MLP, not the attention."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Where things are in one model.

    Attributes:
        blocks_path: Dotted path of the decoder blocks.
        blocks: The blocks, first to last.
        width: Size of the residual stream.
        vision_path: Dotted path of the vision tower.
        vision: The vision tower; every image passes through it.
        image_token_id: Placeholder token of an image.
        crossing: Places of the blocks that attend to the image from outside the sequence; text-only
            requests skip them.
        alone: Why rows of this family cannot share a padded batch, or "" where they can.
        notes: Facts about the decoder that bear on mending and export, for people.
        text_path: Dotted path of the language model that must be asked itself where no image is, or ""
            where the whole model reads such requests too.
        shifted: Modules that keep `rope_deltas`, the shift between M-RoPE positions and tokens, from one call
            to the next; whoever decodes with a cache of their own forgets it first (`Reader.forget`).
    """

    blocks_path: str
    blocks: tuple[nn.Module, ...]
    width: int
    vision_path: str
    vision: nn.Module
    image_token_id: int
    crossing: tuple[int, ...] = ()
    alone: str = ""
    notes: tuple[str, ...] = ()
    text_path: str = ""
    shifted: tuple[nn.Module, ...] = ()


def find_anatomy(model: PreTrainedModel, blocks_path: str | None = None) -> Anatomy:
    """Find blocks and vision tower.

    Args:
        model: A loaded image-text-to-text model.
        blocks_path: Dotted path of the decoder blocks, where the structure alone cannot tell.

    Raises:
        AnatomyProblem: None or several candidates; the message holds the module tree.
    """
    _check_decoder_only(model)
    vision_path, vision = _vision_tower(model)
    text_config = model.config.get_text_config(decoder=True)
    depth = int(text_config.num_hidden_layers)
    path, blocks = _named_blocks(model, blocks_path) if blocks_path else _decoder_blocks(model, depth)
    crossing = tuple(getattr(text_config, "cross_attention_layers", None) or ())
    token = _image_token(model)
    return Anatomy(
        path, tuple(blocks), int(text_config.hidden_size), vision_path, vision, token,
        crossing=crossing, alone=UNEVEN if crossing else "", notes=decoder_notes(model, text_config, blocks),
        text_path=_text_path(model, path), shifted=shifted_modules(model),
    )  # fmt: skip


def module_tree(model: nn.Module) -> str:
    """Every ModuleList with its length and block class: what an anatomy error shows."""
    lists = ((path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m))
    return "\n".join(f"  {path}  {len(m)} x {type(m[0]).__name__}" for path, m in lists)


def _decoder_blocks(model: PreTrainedModel, depth: int) -> tuple[str, nn.ModuleList]:
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and _all_cached(module)
    ]
    if len(found) > 1:
        wanted = type(model.config.get_text_config(decoder=True))
        found = [(path, module) for path, module in found if type(_owner(model, path)[1].config) is wanted]
    if len(found) == 1:
        return found[0]
    what = "No list of modules looks" if not found else f"{len(found)} lists of modules look"
    raise AnatomyProblem(
        f"{what} like the {depth} decoder blocks of {type(model).__name__}. Its lists are:\n{module_tree(model)}\n",
        "Pass the right one: --blocks PATH (in Python: LoadOptions(blocks=PATH)).",
    )


def _owner(model: PreTrainedModel, path: str) -> tuple[str, PreTrainedModel]:
    """The innermost model around a module."""
    while path:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
        if isinstance(module, PreTrainedModel):
            return path, module
    return "", model


def _text_path(model: PreTrainedModel, blocks_path: str) -> str:
    """Where `generate` demands an image (BLIP-2): the smallest model around the blocks that can speak."""
    pixels = inspect.signature(cast("Any", model).generate).parameters.get("pixel_values")
    if pixels is None or pixels.default is not inspect.Parameter.empty:
        return ""
    path, owner = _owner(model, blocks_path)
    while path and owner.get_output_embeddings() is None:
        path, owner = _owner(model, path)
    return path


def _check_decoder_only(model: PreTrainedModel) -> None:
    """
    Raises:
        AnatomyProblem: The request goes through an encoder.
    """
    if model.config.is_encoder_decoder:
        raise AnatomyProblem(
            f"{type(model).__name__} is an encoder-decoder: image and request are read by an encoder, and no "
            "decoder state stands at the last prompt token, where vlmend reads and edits.",
            "Use a checkpoint with a decoder-only language model (for BLIP-2 and InstructBLIP: OPT or Vicuna).",
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
    why = (
        "it turns an image into words of its vocabulary (vq_config) instead"
        if getattr(model.config, "vq_config", None) is not None
        else "its config has no vision_config"
        if config is None
        else "no model inside it has its vision_config"
    )
    raise AnatomyProblem(
        f"No vision tower was found in {type(model).__name__}: {why}. "
        f"Its lists of modules are:\n{module_tree(model)}\n",
        "Use a model that reads images through a vision tower.",
    )


def _image_token(model: PreTrainedModel) -> int:
    """
    Raises:
        AnatomyProblem: The config names none.
    """
    for config in (model.config, getattr(model.config, "vision_config", None)):
        for name in ("image_token_id", "image_token_index"):
            token = getattr(config, name, None)
            if token is not None:
                return int(token)
    raise AnatomyProblem(
        f"The config of {type(model).__name__} names no image token, so which positions of a request are its image "
        "cannot be told.",
        "Where the tokenizer has one, write its id into the checkpoint's config.json as image_token_id.",
    )
