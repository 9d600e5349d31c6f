"""What every family is asked, by the tests and by the table in docs/models.md."""

from __future__ import annotations

import numpy as np
import PIL.Image

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image

__all__ = ["BATCH", "BIG", "DATA", "GREEDY", "ODD", "SEEN", "SMALL", "SYSTEM", "TWO", "WORDS", "noise"]


def noise(width: int, height: int, seed: int) -> Image:
    """A picture that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.from_pixels(PIL.Image.fromarray(pixels))


SMALL, BIG, ODD = noise(16, 16, 1), noise(64, 48, 2), noise(37, 11, 3)
WORDS = Conversation.ask("a text that is longer than the others, without any picture")
SEEN = Conversation.ask("what is it", SMALL)
BATCH = [Conversation.ask("hi"), SEEN, WORDS, Conversation.ask("and what is this thing here", BIG)]
TWO = [Conversation((Turn("user", "compare", (SMALL, noise(16, 16, seed))),)) for seed in (7, 8)]
"""Two requests with two images, which differ in the second image only."""
SYSTEM = [Conversation((Turn("system", words), *SEEN.turns)) for words in ("be kind", "be terse")]
"""Two requests that differ in their system turn only."""

GREEDY = Sampling(max_new_tokens=4)
PROMPTS = ("hello", "name a fruit and a bird", "why?", "tell me a story about the sea")
DATA = Dataset("tiny", tuple(Example(str(k), prompt, "benign") for k, prompt in enumerate(PROMPTS)))
