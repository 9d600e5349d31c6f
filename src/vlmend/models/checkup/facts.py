"""What a loaded model is made of, told from its modules, config and processor: the facts of a check-up.

Whether it works is for `checkup.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from vlmend.core.conversation import Conversation
from vlmend.core.images import noise_image
from vlmend.models.decoding.generation import ends_of
from vlmend.models.decoding.trial import loop_of
from vlmend.models.loading.options import size_told
from vlmend.models.vlm import VLM

__all__ = ["FACTS", "SEEN", "TEXT", "Look", "quantisation", "request"]

TEXT = "Name three colours of the rainbow, please."
SEEN = "What is in this picture?"
TOLD = 160
"""Longest piece of a rendered request that is shown."""

Look = Callable[[VLM], str]
"""Looks at a model and tells what it found."""


def quantisation(vlm: VLM) -> str:
    """Kind of quantisation and the classes of the linear maps, or `none`."""
    held = getattr(vlm.model.config, "quantization_config", None)
    if held is None:
        return "none"
    method = getattr(held, "quant_method", "of an unknown kind")
    kinds = Counter(type(part).__name__ for part in vlm.model.modules() if isinstance(part, nn.Linear))
    return f"{getattr(method, 'value', method)}: {_named(kinds)}"


def request(vlm: VLM) -> Conversation:
    """A request with a picture of the model's own size."""
    return Conversation.ask(SEEN, noise_image(vlm.image_side, 0))


def _decoder(vlm: VLM) -> str:
    kinds = _named(Counter(type(block).__name__ for block in vlm.anatomy.blocks))
    return f"{vlm.layers} at {vlm.anatomy.blocks_path} ({kinds}), width {vlm.anatomy.width}"


def _vision(vlm: VLM) -> str:
    lists = [module for module in vlm.anatomy.vision.modules() if isinstance(module, nn.ModuleList) and len(module)]
    deepest = max(lists, key=len, default=None)
    depth = f"{len(deepest)} {type(deepest[0]).__name__}" if deepest is not None else "no list of blocks"
    return f"{vlm.anatomy.vision_path} ({type(vlm.anatomy.vision).__name__}), {depth}"


def _projector(vlm: VLM) -> str:
    """What stands beside the vision tower and is no part of the language model."""
    parent, _, tower = vlm.anatomy.vision_path.rpartition(".")
    beside = [
        f"{parent}.{name}".lstrip(".") + f" ({type(child).__name__})"
        for name, child in vlm.model.get_submodule(parent).named_children()
        if name != tower and not f"{vlm.anatomy.blocks_path}.".startswith(f"{parent}.{name}.".lstrip("."))
        if not isinstance(child, PreTrainedModel) and child is not vlm.model.get_output_embeddings()
        if any(True for _ in child.parameters())
    ]
    return ", ".join(beside) or "inside the vision tower"


def _token(name: str) -> Look:
    def look(vlm: VLM) -> str:
        own = vlm.model.generation_config
        ids: dict[str, int | list[int] | None] = {
            "image": vlm.anatomy.image_token_id, "eos": sorted(ends_of(vlm.reader)), "pad": own.pad_token_id,
            "bos": own.bos_token_id,
        }  # fmt: skip
        held = ids[name]
        numbers = held if isinstance(held, list) else [] if held is None else [held]
        tokens: list[str] = vlm.processor.tokenizer.convert_ids_to_tokens(numbers)
        return ", ".join(f"{number} {token}" for number, token in zip(numbers, tokens, strict=True)) or "none"

    return look


def _rendered(vlm: VLM, conversation: Conversation) -> str:
    """The template's text, on one line, its middle left out where it is long."""
    (text,) = vlm.reader.rendered([conversation])
    shown = repr(text)[1:-1]
    half = TOLD // 2
    return shown if len(shown) <= TOLD else f"{shown[:half]} ... {shown[-half:]}"


def _size_rule(vlm: VLM) -> str:
    """What the image processor says of sizes, in its own words."""
    images = getattr(vlm.processor, "image_processor", None)
    wanted = (
        "size", "crop_size", "min_pixels", "max_pixels", "patch_size", "max_image_tiles", "max_patches", "min_patches",
        "image_grid_pinpoints", "do_pan_and_scan", "do_image_splitting", "max_image_size",
    )  # fmt: skip
    said = {name: getattr(images, name, None) for name in wanted}
    rules = [f"{name} {_short(value)}" for name, value in said.items() if value not in (None, False, [])]
    return f"{type(images).__name__}: {', '.join(rules) or 'none'}"


def _short(value: Any) -> str:
    if isinstance(value, bool | int | str):
        return str(value)
    if isinstance(value, list):
        return f"of {len(value)}"
    kept = {k: v for k, v in dict(value).items() if v is not None}
    return " ".join(f"{k} {v}" for k, v in kept.items())


def _image_tokens(vlm: VLM) -> str:
    """Counted for squares of the model's own side, of half and of twice that."""
    own = vlm.image_side
    counts: list[str] = []
    for side in (own, max(1, own // 2), 2 * own):
        asked = [Conversation.ask(SEEN, noise_image(side, 0))]
        rows = vlm.reader.rows(asked, vlm.reader.inputs(asked))
        counts.append(f"{int(rows.image.sum())} for {side} x {side}")
    by = "; what the image shows comes in by cross-attention" if vlm.anatomy.crossing else ""
    return f"{', '.join(counts)}{by}"


def _loop(vlm: VLM) -> str:
    found = loop_of(vlm)
    told = {
        "refilled": "ours: rows come and go",
        "thinned": f"ours: rows leave when they are finished, no others come in: {found.why}",
        "generate": f"transformers': {found.why}",
    }
    return told[found.way]


def _cache(vlm: VLM) -> str:
    inputs = vlm.reader.inputs([request(vlm)])
    cache = vlm.model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
    layers = _named(Counter(type(layer).__name__ for layer in getattr(cache, "layers", [])))
    return f"{type(cache).__name__} ({layers})" if layers else type(cache).__name__


def _stored(tensor: Tensor) -> int:
    """Bytes of a tensor, or of the tensors that a quantised one wraps."""
    if is_traceable_wrapper_subclass(tensor):
        inner, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
        return sum(_stored(getattr(tensor, name)) for name in inner)
    return tensor.numel() * tensor.element_size()


def _named(counts: Counter[str]) -> str:
    """`a`, or `a (3), b (1)` where there are several."""
    return next(iter(counts), "") if len(counts) < 2 else ", ".join(f"{name} ({n})" for name, n in counts.most_common())


FACTS: dict[str, dict[str, Look]] = {
    "structure": {
        "class": lambda v: type(v.model).__name__,
        "decoder blocks": _decoder,
        "vision tower": _vision,
        "projector": _projector,
        "cross-attention": lambda v: ", ".join(map(str, v.anatomy.crossing)) or "none",
        "notes": lambda v: "; ".join(v.anatomy.notes) or "none",
        "fingerprint": lambda v: v.model_digest,
    },
    "words": {
        "processor": lambda v: type(v.processor).__name__,
        **{f"{name} token": _token(name) for name in ("image", "eos", "pad", "bos")},
        "text-only request": lambda v: _rendered(v, Conversation.ask(TEXT)),
        "image request": lambda v: _rendered(v, request(v)),
    },
    "images": {"size rule": _size_rule, "tokens": _image_tokens},
    "running": {
        "dtype": lambda v: _named(Counter(str(p.dtype).removeprefix("torch.") for p in v.model.parameters())),
        "device": lambda v: _named(Counter(str(p.device) for p in v.model.parameters())),
        "attention": lambda v: str(v.model.config.get_text_config(decoder=True)._attn_implementation),
        "quantisation": quantisation,
        "weights": lambda v: size_told(sum(map(_stored, [*v.model.parameters(), *v.model.buffers()]))),
        "cache": _cache,
        "batches": lambda v: f"one by one: {v.anatomy.alone}" if v.anatomy.alone else "together, padded on the left",
        "decode loop": _loop,
    },
}
"""Part and name of everything that is told."""
