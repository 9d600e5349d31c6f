"""Facts about a decoder that bear on batching, mending and export, told from its config and its weights.

Finding the decoder is `anatomy`'s work; whether a fact forbids something is for whoever does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["decoder_notes", "shifted_modules"]


def decoder_notes(model: PreTrainedModel, config: PreTrainedConfig, blocks: nn.ModuleList) -> tuple[str, ...]:
    """What is out of the ordinary in this decoder.

    Args:
        model: The whole model.
        config: Of its decoder.
        blocks: The decoder blocks.
    """
    crossing = getattr(config, "cross_attention_layers", None)
    notes = (
        _experts(config, blocks),
        *_kinds_of_attention(config, len(blocks)),
        f"cross-attention to the image in {len(crossing)} of {len(blocks)} layers" if crossing else "",
        "M-RoPE positions" if shifted_modules(model) else "",
        _fed_again(model),
        "tied embeddings" if _tied(model) else "",
    )
    return tuple(note for note in notes if note)


def shifted_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """Modules that keep `rope_deltas`, by which positions run ahead of tokens: the mark of M-RoPE."""
    return tuple(module for module in model.modules() if "rope_deltas" in vars(module))


def _experts(config: PreTrainedConfig, blocks: nn.ModuleList) -> str:
    """Experts are stacked weights, "expert in out", that no convolution owns."""
    stacks = [_stacked(block) for block in blocks]
    mixed = sum(count > 0 for count in stacks)
    if not mixed:
        return ""
    chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_topk", None)
    some = f", {chosen} a token" if chosen else ""
    where = "" if mixed == len(stacks) else f" in {mixed} of {len(stacks)} layers"
    return f"mixture of experts ({max(stacks)}{some}){where}"


def _stacked(block: nn.Module) -> int:
    """Experts of one block, 0 where it has none."""
    weights = (
        weight
        for module in block.modules()
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        for weight in module.parameters(recurse=False)
    )
    return max((len(weight) for weight in weights if weight.ndim == 3), default=0)


def _kinds_of_attention(config: PreTrainedConfig, depth: int) -> Iterable[str]:
    layers: list[str] = list(getattr(config, "layer_types", None) or ())
    kinds = Counter(layers)
    window = getattr(config, "sliding_window", None)
    if not layers and window:
        kinds["sliding_attention"] = depth
    if kinds["sliding_attention"]:
        yield f"sliding window {window} in {kinds['sliding_attention']} of {depth} layers"
    if kinds["chunked_attention"]:
        chunk = getattr(config, "attention_chunk_size", None)
        yield f"chunked attention {chunk} in {kinds['chunked_attention']} of {depth} layers"
    if kinds["linear_attention"]:
        yield f"hybrid attention (linear in {kinds['linear_attention']} of {depth} layers)"


def _fed_again(model: PreTrainedModel) -> str:
    """Families that add features of the image to the states between blocks, at image tokens."""
    tower = getattr(model.config, "vision_config", None)
    taps: list[int] = list(getattr(tower, "deepstack_visual_indexes", None) or ())
    return f"image features added to image tokens after the first {len(taps)} blocks (DeepStack)" if taps else ""


def _tied(model: PreTrainedModel) -> bool:
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    return outer is not None and getattr(inner, "weight", None) is outer.weight
