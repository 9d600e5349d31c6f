"""The phantom's eye: a small vision transformer and the projector, trained from scratch.

The pair learns to speak the backbone's own words before the backbone ever sees a picture: each
projected image token must be nearest to the input embedding of one token of the picture's name.
That costs no pass through the backbone, and naming needs little tuning afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from vlmend.core.images import noise_image
from vlmend.phantom.pictures import SIZE, Picture, View, picture, picture_names

__all__ = ["IMAGE_TOKENS", "VISION_CONFIG", "Eye", "train_eye"]

VISION_CONFIG = CLIPVisionConfig(
    hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3,
    image_size=SIZE, patch_size=16, projection_dim=192,
)  # fmt: skip
IMAGE_TOKENS = (SIZE // 16) ** 2
CONTENT_FREE = ("blank", "noise")
"""Names of the pictures that hold nothing; one in twelve is one of them."""


class Eye(nn.Module):
    """Vision tower and projector: pixels to soft words of the backbone.

    Shape: pixels "image 3 64 64" -> "image 16 width".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(VISION_CONFIG)
        with torch.no_grad():  # at the default scale places are drowned by the patches
            self.tower.embeddings.position_embedding.weight.mul_(15)
        hidden = VISION_CONFIG.hidden_size
        self.projector = nn.Sequential(nn.Linear(hidden, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.tower(pixel_values=pixels).last_hidden_state
        return self.projector(features[:, 1:])


def eye_picture(view: View, seed: int, index: int) -> Picture:
    """Picture `index` of the eye's stream: as `picture`, and now and then one that is empty."""
    rng = random.Random(f"eye:{view}:{seed}:{index}")
    if rng.random() > 1 / 12:
        return picture(view, seed, index)
    if rng.random() < 0.5:
        return Picture(noise_image(SIZE, rng.getrandbits(32)).decode(), "noise", "empty")
    grey = rng.choice((0, 255, rng.randint(0, 255)))
    colour = (grey, grey, grey) if rng.random() < 0.7 else tuple(rng.randint(0, 255) for _ in range(3))
    return Picture(Image.new("RGB", (SIZE, SIZE), colour), "blank", "empty")


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """The image processor's arithmetic for pictures of the right size already: [0,255] to [-1,1]."""
    raw = torch.stack([torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) for image in images])
    return rearrange(raw.float() / 127.5 - 1, "n (h w c) -> n c h w", h=SIZE, c=3)


def train_eye(
    words: Tensor,
    spell: Callable[[str], list[int]],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    log: Callable[[dict[str, float]], None],
) -> Eye:
    """Train tower and projector together against the backbone's input embeddings.

    Args:
        words: The backbone's input embeddings, "vocabulary width".
        spell: A name to its token ids.
        steps: Optimiser steps.
        batch: Pictures a step.
        rate: Peak learning rate (one-cycle).
        seed: Of weights and pictures.
        log: Called every 50 steps with step, loss and held-out naming accuracy.
    """
    torch.manual_seed(seed)
    eye = Eye(words.shape[1])
    targets = _NameTargets(words, spell)
    optimiser = torch.optim.AdamW(eye.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        pictures = [eye_picture("train", seed, step * batch + k) for k in range(batch)]
        loss = targets.loss(eye(to_pixels([p.image for p in pictures])), [p.name for p in pictures])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(eye.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            log({"step": step, "loss": loss.item(), "accuracy": _accuracy(eye, targets, seed)})
    return eye.eval()


class _NameTargets:
    """Names as rows of word embeddings, one word a image token, repeated to fill the row."""

    def __init__(self, words: Tensor, spell: Callable[[str], list[int]]) -> None:
        self.names = (*picture_names(), *CONTENT_FREE)
        spelled = [spell(name) for name in self.names]
        self.tokens = sorted({token for name in spelled for token in name})
        place = {token: k for k, token in enumerate(self.tokens)}
        rows = [[place[name[k % len(name)]] for k in range(IMAGE_TOKENS)] for name in spelled]
        self.rows = torch.tensor(rows)
        self.words = words[self.tokens].detach().clone()
        self.centre = self.words.mean(0)
        self.place = {name: k for k, name in enumerate(self.names)}

    def logits(self, seen: Tensor) -> Tensor:
        """Centred cosine of each image token with each word of a name, over temperature 0.07."""
        seen = nn.functional.normalize(seen - self.centre, dim=-1)
        words = nn.functional.normalize(self.words - self.centre, dim=-1)
        return seen @ words.T / 0.07

    def loss(self, seen: Tensor, names: Sequence[str]) -> Tensor:
        wanted = self.rows[[self.place[name] for name in names]]
        choice = nn.functional.cross_entropy(self.logits(seen).flatten(0, 1), wanted.flatten())
        distance = (seen - self.words[wanted]).square().sum(-1).mean() / self.words.square().sum(-1).mean()
        return choice + 0.5 * distance

    def guess(self, seen: Tensor) -> list[str]:
        """The name whose row of words fits best."""
        scores = self.logits(seen).log_softmax(-1)
        totals = torch.stack([scores[:, k, self.rows[:, k]] for k in range(IMAGE_TOKENS)]).sum(0)
        return [self.names[k] for k in totals.argmax(-1).tolist()]


@torch.no_grad()
def _accuracy(eye: Eye, targets: _NameTargets, seed: int) -> float:
    pictures = [eye_picture("held_out", seed, k) for k in range(200)]
    guesses = targets.guess(eye.eval()(to_pixels([p.image for p in pictures])))
    eye.train()
    return sum(g == p.name for g, p in zip(guesses, pictures, strict=True)) / len(pictures)
