"""The two towers of a dual encoder, found by structure, and the states inside them.

A dual encoder of transformers has `get_image_features` and `get_text_features`, a scale (`logit_scale`, or ALIGN's
`temperature`) and, where it was trained with the sigmoid loss, a `logit_bias`. That much tells the families apart:

- with a bias (SigLIP, SigLIP 2) texts are padded on the right to the full length and no attention mask is given:
  the embedding is read off the last position, padding or not, as in training;
- without one (CLIP, ALIGN, AltCLIP, ...) texts are padded to the longest of the batch, and masked.

`BlipForImageTextRetrieval` has none of this and is told by its class. What embeddings are good for is `dual`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any, Literal, Protocol, cast, runtime_checkable

import PIL.Image
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval, PreTrainedConfig, PreTrainedModel

from vlmend.core.sites import Site
from vlmend.core.targets import PairKind
from vlmend.errors import AnatomyProblem, BadParameter, ModelProblem
from vlmend.models.anatomy.find import module_tree
from vlmend.models.identity import config_digest, decoding_part, processor_identity
from vlmend.models.reading.resizing import short_side
from vlmend.models.reading.states import precise

__all__ = ["Featured", "Features", "Inputs", "Towers", "black_and_span", "find_towers", "pooled_states"]

Inputs = Mapping[str, Tensor]
Features = Callable[[Inputs], Float[Tensor, "row width"]]

SHORTEST = 3
"""Tokens of a text that says anything: one, between a first and a last."""


@runtime_checkable
class Featured(Protocol):
    """A model of transformers with an embedding of images and one of texts."""

    def get_image_features(self) -> Any: ...

    def get_text_features(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Towers:
    """What a dual encoder is made of, whatever library it comes from.

    Attributes:
        model: The whole model, frozen.
        picture: One picture as inputs of one row; `pixels` is the key of those that depend on its pixels.
        tokens: Texts as inputs, cut so that so many places are left free, and padded as the family was trained.
        features: From a model of this class to its image and its text features: inputs to embeddings of any length.
        vision, text: The towers, or None where they cannot be told.
        kind: How similarities become probabilities.
        scale, bias: logit = scale * cosine + bias.
        pixels: Name of the pixels among a picture's inputs.
        parts: Digests of what makes the inputs.
        short_side: Size to which the processor brings the short side of a picture, where the long one just follows.
    """

    model: nn.Module
    picture: Callable[[PIL.Image.Image], Inputs]
    tokens: Callable[[Sequence[str], int], Inputs]
    features: Callable[[Any], tuple[Features, Features]]
    vision: nn.Module | None
    text: nn.Module | None
    kind: PairKind
    scale: float
    bias: float = 0.0
    pixels: str = "pixel_values"
    parts: Callable[[], Mapping[str, str]] = dict[str, str]
    short_side: int | None = None

    @cached_property
    def image_features(self) -> Features:
        """From an image's inputs to embeddings of any length."""
        return self.features(self.model)[0]

    @cached_property
    def text_features(self) -> Features:
        """From a text's inputs to embeddings of any length."""
        return self.features(self.model)[1]

    def on(self, model: nn.Module) -> Towers:
        """The same towers in another model of the same class and shape."""
        vision, text = (
            None if tower is None else model.get_submodule(self.path(tower)) for tower in (self.vision, self.text)
        )
        return replace(self, model=model, vision=vision, text=text)

    def path(self, tower: nn.Module) -> str:
        """Dotted path of a tower in the model."""
        return next(path for path, module in self.model.named_modules() if module is tower)

    @cached_property
    def input_digests(self) -> Mapping[str, str]:
        """What `parts` gives, made once for all views."""
        return self.parts()

    @cached_property
    def decoding(self) -> str:
        """How embeddings are computed, made once for all views (`models.identity`)."""
        return decoding_part(self.model)

    def placed(self, inputs: Inputs) -> dict[str, Tensor]:
        """On the model's device, floating point in its dtype."""
        weight = next(self.model.parameters())
        return {
            key: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }

    def blocks(self, stack: Literal["vision", "text"]) -> nn.ModuleList:
        """The blocks of one tower: its longest list of modules that is inside no other list.

        Raises:
            AnatomyProblem: No such list, or two of one length.
        """
        tower = self.vision if stack == "vision" else self.text
        found = [] if tower is None else _outer_lists(tower)
        longest = [blocks for blocks in found if len(blocks) == max(map(len, found))]
        if len(longest) == 1:
            return longest[0]
        raise AnatomyProblem(
            f"The {stack} blocks of {type(self.model).__name__} cannot be told. Its lists are:\n"
            f"{module_tree(self.model)}\n",
            "Embeddings, logits and gradients work; states of this tower do not.",
        )


def find_towers(model: PreTrainedModel, processor: Any) -> Towers:
    """The towers of a dual encoder of transformers; the model is put into eval mode and frozen.

    Raises:
        ModelProblem: It is no dual encoder.
    """
    model.eval().requires_grad_(False)
    blip = isinstance(model, BlipForImageTextRetrieval)
    scale, bias = (1.0, None) if blip else _scale_and_bias(model)
    if scale is None or not (blip or isinstance(model, Featured)):
        raise ModelProblem(
            f"{type(model).__name__} is no dual encoder: it lacks image features, text features or a scale of their "
            "similarity.",
            "Use a CLIP, SigLIP, ALIGN, AltCLIP, Chinese-CLIP or BLIP retrieval checkpoint.",
        )
    config: Any = model.config
    text = _tower(model, getattr(config, "text_config", None))
    limit = _text_limit(processor, text or model, config.get_text_config())
    return Towers(
        model,
        picture=lambda picture: processor.image_processor(images=[picture], return_tensors="pt"),
        short_side=short_side(processor.image_processor),
        tokens=lambda texts, free: _tokens(processor, texts, limit, free, masked=bias is None),
        features=_of_blip if blip else _of_featured,
        vision=_tower(model, getattr(config, "vision_config", None)), text=text,
        kind="softmax" if bias is None else "sigmoid", scale=scale, bias=bias or 0.0,
        parts=lambda: processor_identity(processor) | {"config": config_digest(config)},
    )  # fmt: skip


def black_and_span(towers: Towers, size: tuple[int, int], name: str) -> tuple[Tensor, Tensor]:
    """What the processor makes of black, and of white less black, for images of this size.

    Raises:
        ModelProblem: It does more than shift and scale.
    """
    black, grey, white = (
        towers.picture(PIL.Image.new("RGB", size, (value,) * 3))[towers.pixels].float() for value in (0, 51, 255)
    )
    if not torch.allclose(grey, black + 0.2 * (white - black), atol=1e-4):
        raise ModelProblem(
            f"The image processor of {name} does more to colours than shift and scale them.",
            "Gradients in [0, 1] have no meaning then; use an image processor without that step.",
        )
    return black, white - black


def pooled_states(
    blocks: nn.ModuleList, features: Features, inputs: Inputs, sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "row width"]]:
    """States of blocks, averaged over the positions that the embedding reads, in float32 or better.

    Which positions these are is told by the model itself: those of the last block with any gradient of the embedding.
    CLIP reads one (class token, end of text), SigLIP its last text position and every patch, ALIGN every place.

    Raises:
        BadParameter: There is no such site.
        AnatomyProblem: A block has another number of positions than the last one, which does not read all of its own.
    """
    wrong = [str(site) for site in sites if site.layer >= len(blocks) or site.point != "resid_post"]
    if wrong:
        raise BadParameter(
            f"This tower has no site {', '.join(wrong)}.",
            f"It has {sites[0].stack}.0.resid_post to {sites[0].stack}.{len(blocks) - 1}.resid_post.",
        )
    with _watched(blocks, {site.layer for site in sites}) as seen, torch.enable_grad():
        embedding = features(inputs).float()
        last = seen[len(blocks) - 1]
        pattern = torch.randn(embedding.shape[1], generator=torch.Generator().manual_seed(0)).to(embedding.device)
        (gradient,) = torch.autograd.grad((embedding @ pattern).sum(), last)
    read = _sequence(gradient).abs().amax(-1) > 0
    return {site: _mean(_sequence(seen[site.layer].detach()), read, site) for site in sites}


def _outer_lists(tower: nn.Module) -> list[nn.ModuleList]:
    found: dict[str, nn.ModuleList] = {}
    for path, module in tower.named_modules():
        if isinstance(module, nn.ModuleList) and not any(path.startswith(f"{outer}.") for outer in found):
            found[path] = module
    return list(found.values())


def _tower(model: PreTrainedModel, config: PreTrainedConfig | None) -> nn.Module | None:
    """The outermost part that was built from this config."""
    parts = (m for m in model.modules() if m is not model and type(getattr(m, "config", None)) is type(config))
    return None if config is None else next(parts, None)


def _scale_and_bias(model: PreTrainedModel) -> tuple[float | None, float | None]:
    scale, temperature, bias = (
        cast("Tensor | None", getattr(model, name, None)) for name in ("logit_scale", "temperature", "logit_bias")
    )
    if scale is not None:
        highest = float(getattr(model, "max_log_logit_scale", inf))  # AIMv2 holds its scale to a range
        return scale.float().clamp(max=highest).exp().item(), None if bias is None else bias.float().item()
    return None if temperature is None else 1 / temperature.float().item(), None


def _text_limit(processor: Any, text: nn.Module, config: PreTrainedConfig) -> int:
    """The longest text in tokens: of the processor, of the tokenizer and of the position table, the least."""
    places = int(config.max_position_embeddings)
    for path, module in text.named_modules():
        if "position" in path and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            places = module.num_embeddings - module.padding_idx - 1  # RoBERTa-like: counting starts after padding
    told = getattr(processor, "text_kwargs", {}).get("max_length", places)
    return min(places, told, processor.tokenizer.model_max_length)


def _tokens(processor: Any, texts: Sequence[str], limit: int, free: int, masked: bool) -> Inputs:
    if limit - free < SHORTEST:
        raise BadParameter(
            f"Texts of this model have {limit} tokens, and {free} of them are to be left free.",
            f"Leave {SHORTEST} or more to the text: fit the mend with fewer tokens.",
        )
    made = processor(
        text=list(texts), truncation=True, max_length=limit - free, padding="longest" if masked else "max_length",
        padding_side="right", return_tensors="pt",
    )  # fmt: skip
    return made if masked else {"input_ids": made["input_ids"]}


def _features(function: Callable[..., Any]) -> Features:
    def features(inputs: Inputs) -> Tensor:
        made = function(**inputs)
        return made if isinstance(made, Tensor) else made.pooler_output

    return features


def _of_featured(model: Any) -> tuple[Features, Features]:
    return _features(model.get_image_features), _features(model.get_text_features)


def _of_blip(model: Any) -> tuple[Features, Features]:
    return (
        lambda inputs: model.vision_proj(model.vision_model(**inputs).last_hidden_state[:, 0]),
        lambda inputs: model.text_proj(model.text_encoder(**inputs).last_hidden_state[:, 0]),
    )


@contextmanager
def _watched(blocks: nn.ModuleList, layers: set[int]) -> Generator[dict[int, Tensor]]:
    """Outputs of some blocks and of the last one, from which the gradient starts."""
    seen: dict[int, Tensor] = {}

    def watch(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: object, output: Any) -> Any:
            bare = isinstance(output, Tensor)
            state = cast("Tensor", output if bare else output[0])
            seen[layer] = state.detach()
            if layer < len(blocks) - 1:
                return output
            seen[layer].requires_grad_()
            return seen[layer] if bare else (seen[layer], *output[1:])

        return hook

    with ExitStack() as stack:
        for layer in layers | {len(blocks) - 1}:
            stack.callback(blocks[layer].register_forward_hook(watch(layer)).remove)
        yield seen


def _sequence(state: Tensor) -> Float[Tensor, "row position width"]:
    """Convolutional states, "row width height across", as positions."""
    return state.flatten(2).transpose(1, 2) if state.ndim == 4 else state


def _mean(
    state: Float[Tensor, "row position width"], read: Bool[Tensor, "row last_position"], site: Site
) -> Float[Tensor, "row width"]:
    if state.shape[1] != read.shape[1] and not read.all():
        raise AnatomyProblem(
            f"{site} has {state.shape[1]} positions and the last block {read.shape[1]}, of which the embedding reads "
            "some only: which of the former they are cannot be told.",
            "Ask for the last blocks of this tower.",
        )
    weight = (read if state.shape[1] == read.shape[1] else torch.ones_like(state[..., 0])).to(state.dtype)
    return precise(state * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
