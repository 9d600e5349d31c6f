"""Inspect's model API over a local target, images included.

Batches by itself (per loaded model, by view and sampling), reports true token counts and stop
reasons, and carries the mend's digest in the model name, since Inspect's cache key leaves model
arguments out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from vlmend import registry
from vlmend.audit.journal import Journal
from vlmend.core.contracts import GenerativeTarget
from vlmend.core.conversation import Conversation, Reply, Sampling, Turn
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.errors import BadImage, SampleError, UsageError
from vlmend.models.api.target import PREFIX, ApiTarget
from vlmend.models.batching import Batcher
from vlmend.models.loading.vlm import LoadOptions, load

__all__ = ["BATCH_SIZE", "Local", "VlmendAPI", "offered"]

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Local:
    """A target with its queue and its journal, ready to be asked one request at a time."""

    target: GenerativeTarget
    batcher: Batcher
    journal: Journal | None = None
    on_reply: Callable[[], None] = lambda: None

    async def ask(self, conversation: Conversation, sampling: Sampling) -> Reply:
        request = (self.target.id, conversation, sampling)
        known = self.journal.get(*request) if self.journal else None
        problem = self.journal.problem(*request) if self.journal else None
        if problem is not None:
            raise problem
        try:
            found = known or await asyncio.wrap_future(self.batcher.submit(self.target, conversation, sampling))
        except SampleError as new:
            if self.journal and not isinstance(new, BadImage):
                self.journal.note(*request, new)
            raise
        self.on_reply()
        return found


_offered: dict[str, Local] = {}
_loading = threading.Lock()


@contextmanager
def offered(target: GenerativeTarget, journal: Journal, on_reply: Callable[[], None], batch: int) -> Generator[str]:
    """Make a loaded target known to Inspect for as long as the block lasts; gives its model name."""
    batcher = Batcher(batch, journal.write)
    _offered[target.id] = Local(target, batcher, journal, on_reply)
    try:
        yield f"vlmend/{target.id}"
    finally:
        del _offered[target.id]
        batcher.close()


class VlmendAPI(ModelAPI):
    """`vlmend/NAME`: a hub name, a folder, or an embedded model such as `phantom`.

    Args:
        model_name: NAME.
        mends: Folders of mends, separated by commas (`-M mends=mends/cmrm`).
        model_args: How it is loaded (`-M dtype=bfloat16`): the fields of `LoadOptions`.
    """

    def __init__(
        self, model_name: str, base_url: str | None = None, api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(), mends: str = "", **model_args: Any,
    ) -> None:  # fmt: skip
        local = _offered.get(model_name)
        if local is None:
            with _loading:
                loaded, batcher = _loaded(model_name, base_url, LoadOptions(**model_args))
            view = loaded
            for folder in filter(None, mends.split(",")):
                view = view.with_mend(Mend.load(Path(folder)))
            local = Local(view, batcher)
        super().__init__(local.target.id, base_url, api_key, [], config)
        self.local = local

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        if tools:
            raise UsageError("vlmend models call no tools.", "Use a task without tools.")
        sampling = Sampling(config.max_tokens or Sampling.max_new_tokens, config.temperature or 0.0, config.seed or 0)
        reply = await self.local.ask(to_conversation(input), sampling)
        message = ChatMessageAssistant(content=reply.text, model=self.model_name, source="generate")
        stop = "stop" if reply.stop == "stop" else "max_tokens"
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=stop)],
            usage=ModelUsage(
                input_tokens=reply.prompt_tokens,
                output_tokens=reply.new_tokens,
                total_tokens=reply.prompt_tokens + reply.new_tokens,
            ),
            time=reply.seconds,
            metadata={"fired": dict(reply.fired)},
        )

    def max_connections(self) -> int:
        return 4 * BATCH_SIZE

    def connection_key(self) -> str:
        return self.model_name

    def should_retry(self, ex: BaseException) -> bool:
        return False


def to_conversation(messages: list[ChatMessage]) -> Conversation:
    """Inspect's messages as ours; images must be `data:` URIs, which Inspect makes of files."""
    return Conversation(tuple(_turn(message) for message in messages))


def _turn(message: ChatMessage) -> Turn:
    if message.role == "tool":
        raise UsageError("vlmend models call no tools.", "Use a task without tools.")
    parts = [ContentText(text=message.content)] if isinstance(message.content, str) else message.content
    other = [part.type for part in parts if not isinstance(part, ContentText | ContentImage)]
    if other:
        raise SampleError(f"A message holds {', '.join(other)}.", "vlmend models read text and images.")
    images = tuple(Image.from_data_uri(part.image) for part in parts if isinstance(part, ContentImage))
    words = "\n".join(part.text for part in parts if isinstance(part, ContentText))
    return Turn(message.role, words, images)


@cache
def _loaded(name: str, base_url: str | None, options: LoadOptions) -> tuple[GenerativeTarget, Batcher]:
    """Each model is loaded once, however many views of it are asked."""
    if name.startswith(PREFIX):
        return ApiTarget.of(name, base_url), Batcher(BATCH_SIZE)
    loaded = load(registry.model_folder(name), name=name, options=options)
    return loaded, Batcher(BATCH_SIZE)
