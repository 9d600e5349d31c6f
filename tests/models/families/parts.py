"""What the tiny families share: tokenizer, sizes, chat templates, and how a model becomes a `VLM`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from vlmend.core.provenance import fingerprint
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.loading import without_video as door
from vlmend.models.vlm import VLM
from vlmend.testing import tiny_tokenizer

__all__ = [
    "EXPERTS",
    "SIDE",
    "TEXT",
    "VISION",
    "PixtralStandIn",
    "built",
    "template",
    "tokenizer_with",
    "without_video",
]

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
}  # fmt: skip
"""Sizes of a tiny decoder; a family adds `vocab_size` and what else it needs."""

VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
"""Sizes of a tiny CLIP-like tower: 2 x 2 patches of 8 pixels."""

EXPERTS: dict[str, Any] = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
"""Two small experts a token; the number of experts goes by another name in every family."""

SIDE = {"height": 16, "width": 16}

STANDARD_DEVIATION = 0.2


def without_video(kind: Callable[..., ProcessorMixin]) -> Callable[..., ProcessorMixin]:
    """Makes processors of this class with `NoVideo`, as the door to a checkpoint does."""

    def made(*parts: object, **settings: object) -> ProcessorMixin:
        with door.without_video():
            return kind(*parts, **settings)

    return made


class PixtralStandIn(ProcessorMixin):
    """Spreads an image as `PixtralProcessor` does; that one cannot be imported without torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any, patch_size: int, chat_template: str) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size = patch_size
        self.image_token = "[IMG]"
        self.image_token_id = tokenizer.convert_tokens_to_ids("[IMG]")

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: object) -> str:
        height, width = (int(size) // self.patch_size for size in image_inputs["image_sizes"][image_idx])
        return "[IMG_BREAK]".join(["[IMG]" * width] * height) + "[IMG_END]"


def tokenizer_with(*special: str, named: Mapping[str, str] | None = None) -> PreTrainedTokenizerFast:
    """`tiny_tokenizer` (id 3 is `<image>`), further special tokens, and names that processors read them by."""
    tokenizer = tiny_tokenizer()
    names = dict(named or {})
    tokenizer.add_tokens([*special, *names.values()], special_tokens=True)
    tokenizer._set_model_specific_special_tokens(special_tokens=names)  # as from_pretrained does
    return tokenizer


def template(image: str, roles: Sequence[str] = ("system", "user", "assistant")) -> str:
    """A chat template: `[role]`, then `image` for each image and the words; other roles are refused."""
    return (
        "{% for message in messages %}"
        f"{{% if message['role'] not in {list(roles)!r} %}}"
        "{{ raise_exception('role ' + message['role'] + ' is not supported') }}{% endif %}"
        "[{{ message['role'] }}]{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        f"{image}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )


def built(
    name: str, kind: type[PreTrainedModel], config: PreTrainedConfig, processor: Any, blocks: str | None = None
) -> VLM:
    """A random model of this class, the same on every run, as a `VLM`."""
    torch.manual_seed(0)
    model: Any = kind(config)
    randomise(model, seed=0)
    model.float().eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    return VLM(name, model, processor, find_anatomy(model, blocks), fingerprint(model))


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights that make replies differ; what starts at zero (biases, gates) too, or gates would stay shut."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 or not weight.any():
                weight.normal_(0.0, STANDARD_DEVIATION, generator=draw)
