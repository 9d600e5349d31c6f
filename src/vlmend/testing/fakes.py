"""Small models and fakes for tests, ours and those of other packages.

`tiny_vlm` and `tiny_clip` are random models of real classes with real processors, in milliseconds and offline.
`ScriptedTarget` answers by rule and counts what it is asked. `narrowed` shows as much of a target as a level of access
does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import PIL.Image
import torch
from jaxtyping import Float
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from typing_extensions import get_protocol_members

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.provenance import fingerprint
from vlmend.core.sites import Site
from vlmend.core.state_edits import Tokens
from vlmend.core.steering import Push, steer_by_passes
from vlmend.core.targets import LEVELS, PROTOCOLS, Access, Kind, Target, levels_of
from vlmend.models.anatomy.find import find_anatomy
from vlmend.models.dual.encoder import DualEncoder, dual_of
from vlmend.models.vlm import VLM

__all__ = ["ScriptedTarget", "full_digest", "hook_count", "narrowed", "tiny_clip", "tiny_tokenizer", "tiny_vlm"]

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
SIDE = 16


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character, and the special tokens a chat needs."""
    special = ["<pad>", "<eos>", "<unk>", "<image>"]
    vocabulary = {token: k for k, token in enumerate([*special, *map(chr, range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


def tiny_vlm(seed: int = 0, layers: int = 4, dtype: torch.dtype = torch.float32, template: str = TEMPLATE) -> VLM:
    """A random LLaVA with a few thousand weights; `template` is its chat template."""
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=8, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1, image_seq_length=4
    )
    model: Any = _drawn(seed, lambda: LlavaForConditionalGeneration(config))
    model.to(dtype).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=side, crop_size=side)
    processor = LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        chat_template=template, num_additional_image_tokens=1,
    )  # fmt: skip
    return VLM(f"tiny-{seed}", model, processor, find_anatomy(model), fingerprint(model))


def tiny_clip(seed: int = 0, layers: int = 2) -> DualEncoder:
    """A random CLIP with a few thousand weights; texts are cut to 24 tokens, one a character."""
    letters = [chr(k) for k in range(33, 127) if not chr(k).isupper()]
    words = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: k for k, word in enumerate(words)}, [], model_max_length=24)
    shape: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2,
        "projection_dim": 16,
    }  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=24, bos_token_id=0, eos_token_id=len(words) - 1, **shape
    )
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=8, **shape)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    model = _drawn(seed, lambda: CLIPModel(config))
    size = {"shortest_edge": SIDE}
    images = CLIPImageProcessorPil(size=size, crop_size={"height": SIDE, "width": SIDE})
    return dual_of(model, CLIPProcessor(images, tokenizer), f"tiny-clip-{seed}")


def _drawn(seed: int, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """A model with the first weights of this seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def full_digest(module: nn.Module) -> str:
    """SHA-256 over every weight: has anything at all been changed?"""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hook_count(module: nn.Module) -> int:
    """Hooks of every kind on a module and all below it."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in module.modules() for kind in kinds)


def narrowed(target: Target, access: Access) -> Any:
    """The same target with what it has of one level of access and those above it, and with nothing else."""
    order = LEVELS[target.kind]
    given: list[Access] = [level for level in levels_of(target) if order.index(level) <= order.index(access)]
    names = {name for level in given for name in get_protocol_members(PROTOCOLS.get((target.kind, level), Target))}

    def shown(name: str) -> Any:
        return property(lambda _: getattr(target, name))

    parts: dict[str, Any] = {name: shown(name) for name in names}
    parts["bare"] = property(lambda _: narrowed(target.bare, access))
    parts["with_mend"] = lambda _, mend: narrowed(target.with_mend(mend), access)
    return type("Narrowed", (), parts)()


@dataclass(frozen=True)
class PlainDrawer:
    """Draws a picture of one colour, by prompt and seed (`DrawStates`)."""

    own: int = 0
    name: str = "plain drawer"
    mends: tuple[Mend, ...] = ()
    kind: ClassVar[Kind] = "draw"

    @property
    def id(self) -> str:
        return self.name

    @property
    def model_digest(self) -> str:
        return hashlib.sha256(f"{self.name}:{self.own}".encode()).hexdigest()

    @property
    def identity(self) -> Mapping[str, str]:
        return {"weights": self.model_digest}

    @property
    def bare(self) -> PlainDrawer:
        return self

    def with_mend(self, mend: Mend) -> PlainDrawer:
        raise NotImplementedError

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        told = [hashlib.sha256(f"{self.own}:{p}:{s}".encode()).digest() for p, s in zip(prompts, seeds, strict=True)]
        return [Image.from_pixels(PIL.Image.new("RGB", (SIDE, SIDE), (one[0], one[1], one[2]))) for one in told]

    def draw_with_pull(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image | None, float]]:
        """The pictures, each with the length of its prompt for a pull."""
        drawn = self.draw(prompts, seeds)
        return [(picture, float(len(prompt))) for picture, prompt in zip(drawn, prompts, strict=True)]


@dataclass
class Asked:
    """What a `ScriptedTarget` was asked, over all its views."""

    conversations: list[Conversation] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ScriptedTarget:
    """Answers with `script(conversation, mended)`; its states are random numbers fixed by the words.

    It gives replies and states (`ChatStates`), and nothing below.

    Attributes:
        script: Gives the reply; `mended` tells whether a mend is on.
        asked: Every conversation it was asked, in order.
    """

    script: Callable[[Conversation, bool], str]
    name: str = "scripted"
    layers: int = 3
    width: int = 8
    image_side: int = 16
    mends: tuple[Mend, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: ClassVar[Kind] = "chat"
    asked: Asked = field(default_factory=Asked)

    @property
    def id(self) -> str:
        return "+".join([self.name, *(f"{m.card.method}@{m.digest[:8]}" for m in self.mends)])

    @property
    def model_digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def bare(self) -> Self:
        return replace(self, mends=())

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        return 128, 128, 128

    def with_mend(self, mend: Mend) -> Self:
        mend.check_base(self.name, self.model_digest, self.identity)
        return replace(self, mends=(*self.mends, mend))

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[Reply]:
        self.asked.conversations += batch
        texts = [self.script(conversation, bool(self.mends)) for conversation in batch]
        return [Reply(text, "stop", 10, len(text.split()), 0.001) for text in texts]

    def hidden(
        self, batch: Sequence[Conversation], sites: Sequence[Site]
    ) -> Mapping[Site, Float[Tensor, "example width"]]:
        return {site: torch.stack([self._state(c, site) for c in batch]) for site in sites}

    def steer(self, batch: Sequence[Conversation], sites: Sequence[Site], push: Push, tokens: Tokens) -> None:
        steer_by_passes(self, batch, sites, push, tokens)

    def _state(self, conversation: Conversation, site: Site) -> Tensor:
        seed = int(conversation.without_images().digest[:8], 16) + site.layer
        noise = torch.randn(self.width, generator=torch.Generator().manual_seed(seed))
        return noise + conversation.has_image * (1.0 + site.layer)
