"""Words that are changed so that their meaning stays for people, and what attacks on words climb.

A word is what stands between white space. It becomes a synonym of a short list, or gets a slip of the keyboard: two
inner letters exchanged, or an inner letter left out. First and last letters stay, as does a word below four letters.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vlmend.attacks.tasks import REPLY_TOKENS, holds_answer
from vlmend.core.conversation import Sampling
from vlmend.core.examples import Dataset, Example, class_names
from vlmend.core.images import Image
from vlmend.core.targets import ChatLikelihoods, DualGradients, DualTarget
from vlmend.errors import SampleError
from vlmend.pictures.galleries import PHOTO

__all__ = ["ChatWords", "DualWords", "WordTask", "at_random", "variants", "words_of"]

SYNONYMS = (
    ("picture", "image"), ("photo", "photograph"), ("show", "display"), ("shows", "displays"), ("shown", "displayed"),
    ("see", "spot"), ("name", "identify"), ("describe", "depict"), ("tell", "inform"), ("thing", "object"),
    ("things", "objects"), ("colour", "hue"), ("color", "hue"), ("shape", "form"), ("word", "term"),
    ("written", "spelled"), ("read", "decipher"), ("corner", "nook"), ("count", "tally"), ("big", "large"),
    ("small", "little"), ("many", "numerous"), ("answer", "reply"), ("visible", "apparent"), ("contain", "hold"),
    ("contains", "holds"), ("located", "situated"), ("person", "individual"), ("people", "persons"),
    ("car", "automobile"), ("bike", "bicycle"), ("boat", "vessel"), ("house", "dwelling"), ("kid", "child"),
    ("dog", "hound"), ("cat", "feline"),
)  # fmt: skip
"""Words that mean about the same; each may stand for the other."""

SHORTEST = 4
"""Letters from which on a word may have a slip."""

SIDES = re.compile(r"(\W*)(.*?)(\W*)")
"""What stands before, in and behind a word."""


def variants(text: str, whole: str = "") -> list[str]:
    """The text with one word changed, in every way that there is.

    Args:
        text: To change.
        whole: The text as it was, where some of its words are changed already: those stay.
    """
    words, before = text.split(), (whole or text).split()
    found = [
        " ".join([*words[:k], other, *words[k + 1 :]])
        for k, word in enumerate(words)
        if word == before[k]
        for other in _others(word)
    ]
    return list(dict.fromkeys(found))


def at_random(text: str, words: int, seed: int) -> str:
    """The text with so many words changed, or as many as can be, each way as likely as another."""
    rng, made = random.Random(seed), text
    for _ in range(words):
        made = rng.choice(variants(made, text) or [made])
    return made


def _others(word: str) -> list[str]:
    found = SIDES.fullmatch(word)
    assert found is not None
    before, core, behind = found.groups()
    alike = [b for pair in SYNONYMS for a, b in (pair, pair[::-1]) if a == core.lower()]
    written = [one.capitalize() if core[:1].isupper() else one for one in alike] + _slips(core)
    return [f"{before}{one}{behind}" for one in written]


def _slips(word: str) -> list[str]:
    """Two neighbouring inner letters exchanged, or one inner letter left out."""
    if len(word) < SHORTEST or not word.isalpha():
        return []
    inner = range(1, len(word) - 1)
    swapped = [word[:k] + word[k + 1] + word[k] + word[k + 2 :] for k in inner if k + 1 in inner]
    found = [*swapped, *(word[:k] + word[k + 1 :] for k in inner)]
    return [one for one in dict.fromkeys(found) if one != word]


class WordTask(ABC):
    """A target, and what counts as right for each row under other words."""

    @abstractmethod
    def worded(self, row: Example) -> Example:
        """The row with its words as the prompt."""

    @abstractmethod
    def losses(self, row: Example, texts: Sequence[str]) -> list[float]:
        """Loss of the row's right answer under each of these words."""

    @abstractmethod
    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        """For each row whether the target gets it wrong under its words."""


@dataclass(frozen=True, eq=False)
class ChatWords(WordTask):
    """A model that answers: the words are the question's, the loss is that of the first answer."""

    target: ChatLikelihoods

    def worded(self, row: Example) -> Example:
        """As it is."""
        return row

    def losses(self, row: Example, texts: Sequence[str]) -> list[float]:
        asked = [replace(row, prompt=text).conversation for text in texts]
        found = self.target.logprobs(asked, [row.answers[0]] * len(texts))
        return [-float(one.mean()) for one in found]

    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        replies = self.target.generate([row.conversation for row in rows], Sampling(REPLY_TOKENS))
        return [not holds_answer(reply.text, row.answers) for reply, row in zip(replies, rows, strict=True)]


@dataclass(frozen=True, eq=False)
class DualWords(WordTask):
    """A dual encoder: the words are the text of the picture's own class, beside the texts of the others.

    Attributes:
        target: The encoder.
        names: Classes.
    """

    target: DualTarget
    names: tuple[str, ...]

    def worded(self, row: Example) -> Example:
        """With the text of its class where it brings none of its own."""
        return row if row.prompt else replace(row, prompt=PHOTO.format(row.answers[0]))

    def losses(self, row: Example, texts: Sequence[str]) -> list[float]:
        return cross_entropy(self._logits(row, texts), self._right(row).expand(len(texts)), reduction="none").tolist()

    def wrong(self, rows: Sequence[Example]) -> list[bool]:
        return [bool(self._logits(row, [row.prompt]).argmax(1) != self._right(row)) for row in rows]

    def _logits(self, row: Example, texts: Sequence[str]) -> Tensor:
        """Logits of the classes, a line for each of the texts in the place of the row's own."""
        if row.image is None:
            raise SampleError(f"{row.id} has no image.", "Leave it out, or give it one.")
        logits = self._told(row.image, texts)
        table = logits[:, : len(self.names)].repeat(len(texts), 1)
        table[:, self.names.index(row.answers[0])] = logits[0, len(self.names) :]
        return table

    def _told(self, image: Image, texts: Sequence[str]) -> Tensor:
        """Logits of one image and the texts of all classes, then of these."""
        if not isinstance(self.target, DualGradients):
            return self.target.logits([image], [*self._given, *texts])
        every = torch.cat([self._embedded, self.target.embed_texts(texts)])
        return self.target.scored(self.target.embed_images([image]), every)

    @property
    def _given(self) -> list[str]:
        return [PHOTO.format(name) for name in self.names]

    @cached_property
    def _embedded(self) -> Tensor:
        """The texts of all classes, embedded once."""
        return self.target.embed_texts(self._given)

    def _right(self, row: Example) -> Tensor:
        return torch.tensor([self.names.index(row.answers[0])])


def words_of(target: DualTarget | ChatLikelihoods, data: Dataset) -> WordTask:
    """What is attacked, by the target's kind.

    Raises:
        BadData: A dual encoder would have one class only.
    """
    return DualWords(target, class_names(data)) if isinstance(target, DualTarget) else ChatWords(target)
