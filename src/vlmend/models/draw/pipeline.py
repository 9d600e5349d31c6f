"""A loaded text-to-image pipeline: pictures from prompts and seeds.

The pipeline is any of diffusers that takes a prompt; loading is in `models/loading/draw`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.provenance import bits_digest, fingerprint
from vlmend.core.targets import Kind
from vlmend.errors import NeedsAccess
from vlmend.models.identity import config_digest, digest_of, tokenizer_digest

__all__ = ["BATCH", "DenoisingPipeline", "DrawPipeline", "Settings", "pipeline_of"]

BATCH = 16
"""Pictures that are drawn at once."""


@dataclass(frozen=True)
class Settings:
    """How a pipeline draws.

    Attributes:
        steps: Of denoising.
        guidance: How far each step goes from what an empty prompt gives beyond what the prompt does; 1 is the prompt
            alone.
    """

    steps: int = 25
    guidance: float = 3.0


@dataclass(frozen=True, eq=False)
class DrawPipeline:
    """A text-to-image pipeline of diffusers.

    Attributes:
        name: Name or folder it was loaded from.
        pipeline: The loaded pipeline.
        identity: Digest of each part that can change a picture: `weights`, `config`, `tokenizer`, `decoding`.
        settings: How it draws.
        mends: None: no mend edits a pipeline yet.
    """

    name: str
    pipeline: Any  # DiffusionPipeline
    identity: Mapping[str, str]
    settings: Settings = Settings()
    mends: tuple[Mend, ...] = ()
    kind: ClassVar[Kind] = "draw"

    @property
    def id(self) -> str:
        """Its name."""
        return self.name

    @property
    def model_digest(self) -> str:
        """Fingerprint of the weights of every part."""
        return self.identity["weights"]

    @property
    def bare(self) -> Self:
        """Itself."""
        return self

    def with_mend(self, mend: Mend) -> Self:
        """Refused: there is no edit of a pipeline yet.

        Raises:
            NeedsAccess: Always.
        """
        raise NeedsAccess(
            f"{mend.card.method} cannot be put on {self.name}: no mend edits a text-to-image pipeline yet.",
            "Screen its pictures instead: vlmend list steps.",
        )

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image | None]:
        """A picture for each prompt, from noise of its own seed: the same whatever else is drawn beside it.

        Returns:
            In order; None where the pipeline's own filter held a picture back.
        """
        drawn: list[Image | None] = []
        for start in range(0, len(prompts), BATCH):
            some = slice(start, start + BATCH)
            drawn += self._batch(list(prompts[some]), seeds[some])
        return drawn

    def _batch(self, prompts: list[str], seeds: Sequence[int]) -> list[Image | None]:
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        wanted = {"num_inference_steps": self.settings.steps, "guidance_scale": self.settings.guidance}
        taken = inspect.signature(self.pipeline.__call__).parameters
        asked = {name: value for name, value in wanted.items() if name in taken}
        made = self.pipeline(prompt=prompts, generator=noise, **asked)
        held = getattr(made, "nsfw_content_detected", None) or [False] * len(prompts)
        return [
            None if back else Image.from_pixels(picture.convert("RGB"), prompt)
            for picture, prompt, back in zip(made.images, prompts, held, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class DenoisingPipeline(DrawPipeline):
    """One whose denoiser can be listened to: a `unet`, called once a step for the prompts and for none."""

    @torch.no_grad()
    def draw_with_pull(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image | None, float]]:
        """Pictures, each with the pull of its prompt (`DrawStates`); the pictures are those that `draw` gives."""
        drawn: list[tuple[Image | None, float]] = []
        for start in range(0, len(prompts), BATCH):
            some = slice(start, start + BATCH)
            drawn += self._heard(list(prompts[some]), seeds[some])
        return drawn

    def _heard(self, prompts: list[str], seeds: Sequence[int]) -> list[tuple[Image | None, float]]:
        steps: list[Tensor] = []

        def hear(module: nn.Module, given: Any, made: Any) -> None:
            del module, given
            noise: Tensor = made[0]
            if len(noise) == 2 * len(prompts):  # with and without the prompt, in the one call that guidance needs
                without, told = noise.float().chunk(2)
                steps.append((told - without).flatten(1).norm(dim=1).cpu())

        handle = self.pipeline.unet.register_forward_hook(hear)
        try:
            pictures = self._batch(prompts, seeds)
        finally:
            handle.remove()
        pulls = torch.stack(steps).mean(0).tolist() if steps else [math.nan] * len(prompts)
        return list(zip(pictures, pulls, strict=True))


def pipeline_of(pipeline: Any, name: str, settings: Settings = Settings()) -> DrawPipeline:
    """A loaded pipeline as a target."""
    parts = {part: held for part, held in pipeline.components.items() if held is not None}
    modules = {part: held for part, held in parts.items() if isinstance(held, nn.Module)}
    configs = {part: config_digest(held.config) for part, held in parts.items() if hasattr(held, "config")}
    read = {part: tokenizer_digest(held) for part, held in parts.items() if hasattr(held, "get_vocab")}
    bits = {part: bits_digest(module) for part, module in modules.items()}
    identity = {
        "weights": digest_of({part: fingerprint(module) for part, module in modules.items()}),
        "config": digest_of(
            [type(pipeline).__name__, {part: type(held).__name__ for part, held in parts.items()}, configs]
        ),
        "tokenizer": digest_of(read),
        "decoding": digest_of([torch.__version__, vars(settings), str(pipeline.device.type), bits]),
    }
    kind = DenoisingPipeline if isinstance(modules.get("unet"), nn.Module) else DrawPipeline
    return kind(name, pipeline, identity, settings)
