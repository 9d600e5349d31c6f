"""Teaches the vision tower before any question is asked: each image token must speak of its own patch.

A token's state is held against the language model's word embeddings. It must be nearest to the words of the thing
in its quarter of the picture and of that quarter, or to the word that is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from vlmend.phantom.chat.assemble import Parts
from vlmend.phantom.mini.recipe import MiniRecipe
from vlmend.phantom.mini.scenes import CELLS, DrawnWord, Scene, drawn_word, scene
from vlmend.phantom.pixels import to_pixels

__all__ = ["look_loss", "words_of_patches"]

ACROSS = 4
"""Places of a row at which a letter of a drawn word can be, and patches of a row of a mini's own tower."""
TEMPERATURE = 0.07
WORDS = 0.3
"""Share of drawn words among the pictures."""
THINGS = (1, 2, 3, 4)
"""How many things a scene has; more than are asked about, since each is something to learn."""


def look_loss(parts: Parts, recipe: MiniRecipe, step: int) -> Tensor:
    """Cross-entropy of the words of each patch over the vocabulary, on the pictures of one step."""
    rng = random.Random(f"mini:look:{recipe.seed}:{step}")
    seen = [_picture(rng) for _ in range(recipe.look_batch)]
    vision = parts.model.config.vision_config
    pixels = to_pixels([one.draw(rng).resize((vision.image_size,) * 2, Resampling.BICUBIC) for one in seen])
    found = parts.model.model.get_image_features(pixels, return_dict=True).pooler_output
    words = parts.model.get_input_embeddings().weight.detach()
    nearness = normalize(torch.stack(found), dim=-1) @ normalize(words, dim=-1).T / TEMPERATURE
    told = _targets(parts.processor.tokenizer, seen, vision.image_size // vision.patch_size)
    return cross_entropy(nearness.flatten(0, 1), told.flatten(0, 1))


def words_of_patches(seen: Scene | DrawnWord, across: int = ACROSS) -> list[str]:
    """What each patch must speak of, row by row, with so many in a row."""
    places = list(product(range(across), repeat=2))
    if isinstance(seen, DrawnWord):
        middles = [((2 * row + 1) * ACROSS, (2 * column + 1) * ACROSS) for row, column in places]
        return [_word_at(seen, y // (2 * across), x // (2 * across)) for y, x in middles]
    things = {thing.cell: thing.name for thing in seen.things}
    cells = [2 * (2 * row // across) + 2 * column // across for row, column in places]
    return [f"{things.get(cell, 'nothing')} {CELLS[cell]}" for cell in cells]


def _picture(rng: random.Random) -> Scene | DrawnWord:
    return drawn_word("train", rng) if rng.random() < WORDS else scene("train", rng, rng.choice(THINGS))


def _word_at(seen: DrawnWord, row: int, column: int) -> str:
    """The word, and its letter where one is."""
    place = column - seen.column
    here = seen.row <= row <= seen.row + 1 and 0 <= place < len(seen.word)
    return f"{seen.word} {seen.word[place]}" if here else seen.word


def _targets(tokenizer: Any, seen: Sequence[Scene | DrawnWord], across: int) -> Tensor:
    """Equal shares for the words of each patch, "picture patch vocabulary"."""
    shares = torch.zeros(len(seen), across**2, len(tokenizer))
    for picture, one in enumerate(seen):
        for patch, words in enumerate(words_of_patches(one, across)):
            ids = tokenizer.convert_tokens_to_ids(words.split())
            shares[picture, patch, ids] = 1 / len(ids)
    return shares
