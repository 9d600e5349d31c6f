"""Where the laws of methods and attacks are tried: a tiny model of each kind, requests, and all that is seen of it.

Models are made once a session; `fresh` ones where a law is about what a model remembers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.edits import AddVector, AnyEdit, LoadAdapter
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.sites import Site
from vlmend.core.targets import Kind
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.vlm import VLM
from vlmend.testing.fakes import SIDE, PlainDrawer, tiny_clip, tiny_vlm

__all__ = ["BROKEN", "ChatStage", "DualStage", "Seen", "Stage", "differing", "on_call", "stage_of"]

Seen = Mapping[str, Any]
"""What is seen of a view, by name: tensors, or lists of plain values."""

BROKEN = Image(b"no picture at all", "broken")
"""An image that cannot be read."""

UNEDITED = "no mend edits a pipeline"

ROUNDING = 1e-5
"""How far a number of a batch may be from that of its row alone."""


class Stage(ABC):
    """A tiny model of one kind, and what it is asked."""

    @abstractmethod
    def fresh(self, seed: int = 0) -> Any:
        """A new model; another seed has other weights."""

    @abstractmethod
    def seen(self, view: Any) -> Seen:
        """All of a view that a mend may change, requests in one batch."""

    @abstractmethod
    def alone(self, view: Any) -> Seen:
        """The same, each request by itself."""

    @abstractmethod
    def module(self, target: Any) -> nn.Module:
        """The whole model, whose weights and hooks no mend may change."""

    @abstractmethod
    def block(self, target: Any) -> nn.Module:
        """A part that runs several times while `seen` is read."""

    @abstractmethod
    def work(self, view: Any) -> int:
        """Calls of `block` for one request with an image."""

    @abstractmethod
    def rows(self) -> Dataset:
        """What a plug-in works on that brings no sample data."""

    @property
    @abstractmethod
    def misfit(self) -> AnyEdit:
        """An edit that cannot be installed."""

    @property
    @abstractmethod
    def stranger(self) -> Any:
        """A target of another kind."""

    @cached_property
    def base(self) -> Any:
        """The model that laws share."""
        target = self.fresh()
        self.seen(target)  # transformers leaves hooks of its own on first use
        return target

    @cached_property
    def plain(self) -> Seen:
        """What is seen of a fresh model without a mend."""
        return self.seen(self.fresh())


def plain_image(colour: str) -> Image:
    """A picture of one colour, 20 pixels a side: noise looks all alike to a tiny model."""
    return Image.from_pixels(PIL.Image.new("RGB", (20, 20), colour), colour)


class ChatStage(Stage):
    """A tiny LLaVA: a request without an image, and two with one."""

    texts = (Conversation.ask("hello"),)
    pictured = (
        Conversation.ask("what is it", noise_image(SIDE, 1)),
        Conversation.ask("a longer question about the thing in the picture", noise_image(SIDE, 2)),
    )
    sampling = Sampling(max_new_tokens=6)

    def fresh(self, seed: int = 0) -> VLM:
        return tiny_vlm(seed)

    def seen(self, view: VLM) -> Seen:
        requests = [*self.texts, *self.pictured]
        return self._seen(view.generate(requests, self.sampling), view.logits(requests))

    def alone(self, view: VLM) -> Seen:
        requests = [*self.texts, *self.pictured]
        replies = [view.generate([request], self.sampling)[0] for request in requests]
        return self._seen(replies, torch.cat([view.logits([request]) for request in requests]))

    def _seen(self, replies: Sequence[Reply], logits: Tensor) -> Seen:
        told, count = [(r.text, r.stop, r.prompt_tokens, r.new_tokens) for r in replies], len(self.texts)
        return {
            "replies to text": told[:count], "replies about images": told[count:],
            "logits of text": logits[:count], "logits beside images": logits[count:],
        }  # fmt: skip

    def module(self, target: VLM) -> nn.Module:
        return target.model

    def block(self, target: VLM) -> nn.Module:
        return target.anatomy.blocks[0]

    def work(self, view: VLM) -> int:
        calls: list[int] = []
        with on_call(self.block(view), lambda: calls.append(1)):
            view.generate(self.pictured[:1], Sampling(max_new_tokens=1))
        return len(calls)

    def rows(self) -> Dataset:
        prompts = ("how are you", "tell me a story about the sea", "why?", "name a fruit and a bird", "go on then")
        rows = [Example(str(k), text, "harmful" if k % 2 else "benign") for k, text in enumerate(prompts)]
        return Dataset("requests", tuple(rows))

    @property
    def misfit(self) -> AnyEdit:
        return AddVector(Site("language", 99), torch.ones(32))

    @property
    def stranger(self) -> Any:
        return stage_of("dual").base


class DualStage(Stage):
    """A tiny CLIP, pictures and texts."""

    images = (noise_image(20, 100), noise_image(20, 101), *map(plain_image, ("red", "maroon", "lime", "brown")))
    texts = ("a cat", "a photo of a man in the rain", "x")

    def fresh(self, seed: int = 0) -> DualEncoder:
        return tiny_clip(seed)

    def seen(self, view: DualEncoder) -> Seen:
        return {
            "embeddings of images": view.embed_images(self.images), "embeddings of texts": view.embed_texts(self.texts),
            "logits": view.logits(self.images, self.texts), "accepted images": view.accepts(self.images).tolist(),
            "retrieved images": view.retrieve(self.texts, self.images),
        }  # fmt: skip

    def alone(self, view: DualEncoder) -> Seen:
        return {
            "embeddings of images": torch.cat([view.embed_images([image]) for image in self.images]),
            "embeddings of texts": torch.cat([view.embed_texts([text]) for text in self.texts]),
            "logits": torch.cat([view.logits([image], self.texts) for image in self.images]),
            "accepted images": [bool(view.accepts([image])) for image in self.images],
            "retrieved images": [view.retrieve([text], self.images)[0] for text in self.texts],
        }

    def module(self, target: DualEncoder) -> nn.Module:
        return target.towers.model

    def block(self, target: DualEncoder) -> nn.Module:
        return target.towers.blocks("vision")[0]

    def work(self, view: DualEncoder) -> int:
        calls: list[int] = []
        with on_call(self.block(view), lambda: calls.append(1)):
            view.logits(self.images[:1], self.texts)
        return len(calls)

    def rows(self) -> Dataset:
        texts = (("a man", "spurious"), ("a woman", "spurious"), ("a man cook", "cook"), ("a woman cook", "cook"))
        named = [Example(str(k), image=noise_image(SIDE, k), answers=(f"thing {k % 4}",)) for k in range(8)]
        return Dataset("texts and pictures", (*(Example(text, text, group=group) for text, group in texts), *named))

    @property
    def misfit(self) -> AnyEdit:
        return LoadAdapter("no.such.module", torch.ones(1, 4), torch.ones(4, 1))

    @property
    def stranger(self) -> Any:
        return stage_of("chat").base


class DrawStage(Stage):
    """A stand-in for a pipeline; no mend edits one, so laws of methods have nothing to see here."""

    def fresh(self, seed: int = 0) -> PlainDrawer:
        return PlainDrawer(seed)

    @cached_property
    def base(self) -> PlainDrawer:
        return self.fresh()

    def seen(self, view: Any) -> Seen:
        raise AssertionError(UNEDITED)

    def alone(self, view: Any) -> Seen:
        raise AssertionError(UNEDITED)

    def module(self, target: Any) -> nn.Module:
        raise AssertionError(UNEDITED)

    def block(self, target: Any) -> nn.Module:
        raise AssertionError(UNEDITED)

    def work(self, view: Any) -> int:
        raise AssertionError(UNEDITED)

    def rows(self) -> Dataset:
        return Dataset("prompts", (Example("a", "a photo of a cat"),))

    @property
    def misfit(self) -> AnyEdit:
        raise AssertionError(UNEDITED)

    @property
    def stranger(self) -> Any:
        return tiny_clip()


@cache
def stage_of(kind: Kind) -> Stage:
    """The stage of a kind, one a session.

    Raises:
        AssertionError: There is no tiny model of that kind.
    """
    match kind:
        case "chat":
            return ChatStage()
        case "dual":
            return DualStage()
        case "draw":
            return DrawStage()
        case "data":
            raise AssertionError(f"there is no tiny target of kind {kind}")


def differing(first: Seen, second: Seen, rounding: float = 0.0) -> list[str]:
    """Names of what is not the same: bit for bit, or numbers up to rounding."""
    return [name for name, value in first.items() if not _same(value, second[name], rounding)]


@contextmanager
def on_call(module: nn.Module, act: Callable[[], object]) -> Generator[None]:
    """Act after each call of a module."""
    handle = module.register_forward_hook(lambda *_: act() and None)
    try:
        yield
    finally:
        handle.remove()


def _same(first: Any, second: Any, rounding: float) -> bool:
    if not isinstance(first, Tensor):
        return bool(first == second)
    if rounding:
        return torch.allclose(first, second, rtol=0, atol=rounding)
    return torch.equal(first, second)
