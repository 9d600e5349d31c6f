"""Inspect's model API over a local target, images included.

Batches by itself (per loaded model, by view and sampling), reports true token counts and stop reasons, and carries the
mends' digests in the model name, since Inspect's cache key leaves model arguments out. Dual encoders are loaded too:
suites that measure them look at `local.target`.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

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
from vlmend.core.conversation import Conversation, Sampling, StopReason, Turn
from vlmend.core.images import Image
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget, Target
from vlmend.errors import SampleError, UsageError
from vlmend.models.batching import Batcher
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target

__all__ = ["BATCH_SIZE", "Local", "VlmendAPI"]

BATCH_SIZE = 32

STOPS: dict[StopReason, Literal["stop", "max_tokens", "content_filter"]] = {
    "stop": "stop", "length": "max_tokens", "filtered": "content_filter",
}  # fmt: skip
"""Why a reply ended, in Inspect's words."""


@dataclass(frozen=True, eq=False)
class Local:
    """A target with its queue, ready to be asked one request at a time."""

    target: Target
    batcher: Batcher


_loading = threading.Lock()


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
        with _loading:
            loaded, batcher = _loaded(model_name, base_url, LoadOptions(**model_args))
        view = loaded
        for folder in filter(None, mends.split(",")):
            view = view.with_mend(Mend.load(Path(folder)))
        super().__init__(view.id, base_url, api_key, [], config)
        self.local = Local(view, batcher)

    @property
    def side(self) -> int:
        """Of made images, in pixels."""
        return self._chat.image_side

    @property
    def _chat(self) -> ChatTarget:
        if not isinstance(self.local.target, ChatTarget):
            raise UsageError(f"{self.local.target.name} gives no replies.", "Choose a suite of its kind.")
        return self.local.target

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        if tools:
            raise UsageError("vlmend models call no tools.", "Use a task without tools.")
        sampling = Sampling(config.max_tokens or Sampling.max_new_tokens, config.temperature or 0.0, config.seed or 0)
        asked = self.local.batcher.submit(self._chat, to_conversation(input), sampling)
        reply = await asyncio.wrap_future(asked)
        message = ChatMessageAssistant(content=reply.text, model=self.model_name, source="generate")
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=STOPS[reply.stop])],
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
def _loaded(name: str, base_url: str | None, options: LoadOptions) -> tuple[Target, Batcher]:
    """Each model is loaded once, however many views of it are asked."""
    return open_target(name, options, base_url, folder=registry.model_folder(name)), Batcher(BATCH_SIZE)
