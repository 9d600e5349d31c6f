"""What methods that learn tokens of a dual encoder share: the tokens, the loop, and things that are new to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmend.core.contracts import AbstractMethod
from vlmend.core.dual_edits import InsertTokens
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, DualWeights, Kind
from vlmend.errors import BadParameter, ModelProblem
from vlmend.pictures.galleries import PHOTO, training_objects
from vlmend.training.batches import chosen
from vlmend.training.loop import LoopSettings, train_at_once

__all__ = ["AbstractPrompting", "Prompt", "every_second_thing"]

WORDS = PHOTO.format("").strip()
"""What tokens of texts stand in the place of, and begin as."""
APART = 0.3
"""Noise that sets of tokens begin apart by, in spreads of what the words are read as."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Tokens that learn in the place of `WORDS`, and linear maps that make those of pictures from them.

    Attributes:
        words: One set of tokens behind the other.
        maps, bias: Of the tokens of pictures.
        sets: How many sets there are; more than one where pictures have none.

    Shape: words "block token text_width", maps "block vision_width text_width", bias "block vision_width"; no block
    in maps and bias where pictures have none.
    """

    words: nn.Parameter
    maps: nn.Parameter
    bias: nn.Parameter
    sets: int = 1

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser steps."""
        return [self.words, self.maps, self.bias] if len(self.maps) else [self.words]

    @property
    def visual(self) -> Float[Tensor, "block token vision_width"]:
        """The tokens of pictures."""
        return self.words[: len(self.maps)] @ self.maps.mT + self.bias[:, None]

    @property
    def edits(self) -> list[InsertTokens]:
        """The tokens as edits; gradients of a view that they are at work in reach the parameters."""
        texts = InsertTokens("text", self.words, instead=WORDS, sets=self.sets)
        return [texts, InsertTokens("vision", self.visual)] if len(self.maps) else [texts]

    @property
    def each(self) -> list[InsertTokens]:
        """Every set of tokens of texts as an edit of its own."""
        return [InsertTokens("text", one, instead=WORDS) for one in self.words.chunk(self.sets, dim=1)]


@dataclass(frozen=True)
class AbstractPrompting(AbstractMethod[DualWeights]):
    """Learning of tokens that stand in texts and pictures; every weight of the towers stays.

    Subclasses write `learn`, with `prompt` and `learnt`.

    Attributes:
        steps: Optimiser steps.
        rate: Peak learning rate.
        batch: Pictures a step.
    """

    needs: ClassVar[Access] = "weights"
    works_on: ClassVar[Kind] = "dual"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 2, "rate": 0.1}

    steps: int = 60
    rate: float = 3e-2
    batch: int = 32

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.rate <= 0:
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, rate={self.rate:g} cannot be.",
                "rate is above 0, the others are at least 1.",
            )

    def prompt(
        self, target: DualWeights, seed: int, *, depth: int = 1, visual: bool = False, sets: int = 1
    ) -> Prompt:  # fmt: skip
        """Tokens for the first `depth` blocks of the text tower, with maps to those of pictures where `visual`.

        They begin as what these blocks read for the words; of several sets all but the first are moved off that by
        noise, `APART` of its spread, or they would all learn the same. Where each token sees those before it only
        (CLIP), texts that begin with the words are embedded as before by the first set.

        Raises:
            BadParameter: A tower has fewer blocks.
            AnatomyProblem: Its blocks cannot be told.
            ModelProblem: The words of a text cannot be told from its padding.
        """
        towers = target.towers
        blocks = min(len(towers.blocks(stack)) for stack in (("text", "vision") if visual else ("text",)))
        if depth > blocks:
            raise BadParameter(
                f"{target.name} has {blocks} blocks in its shorter tower, and depth={depth}.", f"Pass {blocks} or less."
            )
        words = _read(target, depth)
        vision, count = (towers.vision.config.hidden_size, depth) if visual else (0, 0)
        generator = torch.Generator().manual_seed(seed)
        maps = torch.randn(count, vision, words.shape[2], generator=generator) / words.shape[2] ** 0.5
        others = [words + APART * words.std() * torch.randn(words.shape, generator=generator) for _ in range(sets - 1)]
        every = torch.cat([words, *others], dim=1)
        return Prompt(nn.Parameter(every), nn.Parameter(maps), nn.Parameter(torch.zeros(count, vision)), sets)

    def learnt(
        self, target: DualWeights, data: Dataset, prompt: Prompt, pictures: int, seed: int,
        loss: Callable[[int, DualWeights, Sequence[int]], Tensor],
        others: Sequence[nn.Parameter] = (),
    ) -> Mend:  # fmt: skip
        """The mend after training.

        Args:
            target: Whose towers.
            data: For the card.
            prompt: What learns.
            pictures: How many there are; the batch of a step follows from seed and step.
            seed: Of the batches.
            loss: Of a step, from its number, the view with the tokens as they are, and the places of its pictures.
            others: What learns beside the tokens.
        """
        plain = self.made(target, data, seed, [], {})

        def loss_of_step(step: int) -> Tensor:
            view = target.bare.with_mend(replace(plain, edits=tuple(prompt.edits)))
            return loss(step, view, chosen(range(pictures), self.batch, f"prompting:{seed}:{step}"))

        train_at_once([*prompt.parameters, *others], loss_of_step, LoopSettings(self.steps, self.rate))
        edits = tuple(replace(edit, tokens=edit.tokens.detach().clone()) for edit in prompt.edits)
        return replace(plain, edits=edits)


@torch.no_grad()
def _read(target: DualWeights, depth: int) -> Float[Tensor, "block token width"]:
    """What the first blocks of the text tower read for `WORDS`, behind the first token and before the last.

    Raises:
        ModelProblem: Where the text ends cannot be told.
    """
    if "attention_mask" not in target.towers.tokens([WORDS], 0):
        raise ModelProblem(
            f"{target.name} reads texts padded to one length, so words in the place of which to learn cannot be told.",
            "Take a model of the CLIP kind; SigLIP's texts are read with their padding.",
        )
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for block in target.towers.blocks("text")[:depth]:
            hook = block.register_forward_pre_hook(lambda module, args: seen.append(args[0][0, 1:-1].float().cpu()))
            stack.callback(hook.remove)
        target.bare.text_features([WORDS])
    return torch.stack(seen)


@cache
def every_second_thing() -> tuple[Dataset, Dataset]:
    """A training view on a ground of light and shade of every second known object, and the names of the others."""
    rows = training_objects(1, "ground").examples
    names = tuple(Example(row.id, group=row.group, answers=row.answers) for row in rows[1::2])
    return Dataset("every-second-object", rows[::2], "Apache-2.0 (Noto Emoji)"), Dataset("names-of-others", names)
