"""What one stock client must do with `vlmend serve`; run by `tools.clients` in that client's own environment.

    python client_checks.py openai < case.json

Nothing of vlmend is imported here: the case holds the address, the key, and what `generate` says to each request. The
answer is a line of JSON: for each check null, or what went wrong. A client that has no such call leaves a check out.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "INSPECT_DISPLAY": "none"}

KEY, TOKENS = "a-key-that-opens-the-test-server", 12
Messages = list[dict[str, Any]]
Sent = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A reply as the client gives it; of a stream the pieces, and 0 tokens where it tells none."""

    text: str
    tokens: tuple[int, int]
    stop: str
    pieces: int = 1


class Client(ABC):
    """One stock client: how it asks, in its own words.

    Args:
        address: Of the server, with `/v1`.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        """A whole reply."""

    def stream(self, model: str, messages: Messages, **sent: Any) -> Said:
        """The same in pieces."""
        raise NotImplementedError

    def models(self) -> list[str]:
        """The names that can be asked for."""
        raise NotImplementedError

    def together(self, model: str, every: Sequence[Messages], **sent: Any) -> list[Said]:
        """Several at a time."""
        with ThreadPoolExecutor(len(every)) as pool:
            return list(pool.map(lambda one: self.ask(model, one, **sent), every))


class OpenAI(Client):
    """The `openai` package."""

    def _client(self, key: str) -> Any:
        import openai

        return openai.OpenAI(base_url=self.address, api_key=key, max_retries=0)

    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        answer = self._client(key).chat.completions.create(model=model, messages=messages, **sent)
        return _said(answer)

    def stream(self, model: str, messages: Messages, **sent: Any) -> Said:
        options = {"include_usage": True}
        return _joined(
            self._client(KEY).chat.completions.create(
                model=model, messages=messages, stream=True, stream_options=options, **sent
            )
        )

    def models(self) -> list[str]:
        return [one.id for one in self._client(KEY).models.list()]


class LangChain(Client):
    """`ChatOpenAI` of `langchain-openai`."""

    def _chat(self, model: str, key: str, sent: Sent) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(
            model=model, base_url=self.address, api_key=key, max_retries=0, stream_usage=True, **sent
        )  # fmt: skip

    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        return self._read(self._chat(model, key, sent).invoke(messages))

    def stream(self, model: str, messages: Messages, **sent: Any) -> Said:
        pieces = list(self._chat(model, KEY, sent).stream(messages))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole = whole + piece
        return self._read(whole, sum(bool(piece.content) for piece in pieces))

    def _read(self, message: Any, pieces: int = 1) -> Said:
        used = message.usage_metadata or {}
        stop = message.response_metadata.get("finish_reason", "")
        return Said(message.content, (used.get("input_tokens", 0), used.get("output_tokens", 0)), stop, pieces)


class LiteLLM(Client):
    """`litellm.completion` with its provider for servers that speak as OpenAI's."""

    def _asked(self, model: str, messages: Messages, key: str, **sent: Any) -> Any:
        import litellm

        return litellm.completion(
            model=f"openai/{model}", messages=messages, api_base=self.address, api_key=key, num_retries=0, **sent
        )  # fmt: skip

    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        return _said(self._asked(model, messages, key, **sent))

    def stream(self, model: str, messages: Messages, **sent: Any) -> Said:
        return _joined(self._asked(model, messages, KEY, stream=True, stream_options={"include_usage": True}, **sent))

    def models(self) -> list[str]:
        import litellm

        found = litellm.get_valid_models(
            check_provider_endpoint=True, custom_llm_provider="openai", api_key=KEY,
            api_base=self.address.removesuffix("/v1"),
        )  # fmt: skip
        return [name.removeprefix("openai/") for name in found]


class Inspect(Client):
    """Inspect AI's provider `openai`, which needs `responses_api=False`."""

    named = "openai"

    def ask(self, model: str, messages: Messages, *, key: str = KEY, **sent: Any) -> Said:
        return asyncio.run(self._ask(model, messages, key, sent))

    def together(self, model: str, every: Sequence[Messages], **sent: Any) -> list[Said]:
        async def asked() -> list[Said]:
            return [*await asyncio.gather(*(self._ask(model, one, KEY, sent) for one in every))]

        return asyncio.run(asked())

    async def _ask(self, model: str, messages: Messages, key: str, sent: Sent) -> Said:
        from inspect_ai.model import GenerateConfig, get_model

        named = {"stop": "stop_seqs"}
        config = GenerateConfig(max_retries=0, **{named.get(name, name): value for name, value in sent.items()})
        opened = get_model(
            f"{self.named}/{model}", base_url=self.address, api_key=key, responses_api=False, memoize=False
        )  # fmt: skip
        output = await opened.generate([self._message(one) for one in messages], config=config)
        if output.error:
            raise RuntimeError(output.error)
        used = output.usage
        tokens = (used.input_tokens, used.output_tokens) if used else (0, 0)
        stop = {"max_tokens": "length"}.get(output.stop_reason, output.stop_reason)
        return Said(output.completion, tokens, stop)

    def _message(self, message: dict[str, Any]) -> Any:
        from inspect_ai.model import (
            ChatMessageAssistant,
            ChatMessageSystem,
            ChatMessageUser,
            ContentImage,
            ContentText,
        )

        kinds = {"user": ChatMessageUser, "system": ChatMessageSystem, "assistant": ChatMessageAssistant}
        content: Any = message["content"]
        if not isinstance(content, str):
            content = [
                ContentText(text=part["text"])
                if part["type"] == "text"
                else ContentImage(image=part["image_url"]["url"])
                for part in content
            ]
        return kinds[message["role"]](content=content)


class InspectCompatible(Inspect):
    """Its provider for other servers that speak as OpenAI's."""

    named = "openai-api/vlmend"


CLIENTS: dict[str, type[Client]] = {
    "openai": OpenAI, "langchain-openai": LangChain, "litellm": LiteLLM, "inspect-ai openai/": Inspect,
    "inspect-ai openai-api/": InspectCompatible,
}  # fmt: skip


def _said(answer: Any) -> Said:
    choice, used = answer.choices[0], answer.usage
    return Said(choice.message.content, (used.prompt_tokens, used.completion_tokens), choice.finish_reason)


def _joined(events: Any) -> Said:
    """A stream in OpenAI's objects."""
    texts: list[str] = []
    stop, tokens = "", (0, 0)
    for event in events:
        for choice in event.choices:
            texts += [choice.delta.content] if choice.delta.content else []
            stop = choice.finish_reason or stop
        if used := getattr(event, "usage", None):
            tokens = (used.prompt_tokens, used.completion_tokens)
    return Said("".join(texts), tokens, stop, len(texts))


def checks(client: Client, case: Mapping[str, Any]) -> dict[str, str | None]:
    """Each check by name: None where it passes, else what was seen.

    Args:
        client: Who asks.
        case: `asked` has a request by name with the `generate` of each model (`text`, `tokens`, `stop`), `models` the
            names that are served.
    """
    asked = case["asked"]

    def same(name: str, model: str = "base", stream: bool = False, **sent: Any) -> None:
        one, how = asked[name], client.stream if stream else client.ask
        found, wanted = how(model, one["messages"], max_tokens=TOKENS, **sent), one["said"][model]
        _equal(found.text, wanted["text"])
        _equal(list(found.tokens), wanted["tokens"])
        _equal(found.stop, wanted["stop"])
        assert not stream or found.pieces > 1, "the stream came in one piece"

    def mended() -> None:
        same("picture", "base+test")
        assert asked["picture"]["said"]["base"]["text"] != asked["picture"]["said"]["base+test"]["text"]

    def together() -> None:
        every = [name for name in asked if name.startswith("many")]
        found = client.together("base+test", [asked[name]["messages"] for name in every], max_tokens=TOKENS)
        _equal([one.text for one in found], [asked[name]["said"]["base+test"]["text"] for name in every])

    def refused(status: int, *words: str, model: str = "base", **sent: Any) -> None:
        try:
            client.ask(model, asked["words"]["messages"], max_tokens=TOKENS, **sent)
        except Exception as problem:  # each client has its own
            told = f"{_status(problem)} {problem}"
            assert all(word in told for word in (str(status), *words)), f"refused, but with {told[:300]}"
            return
        raise AssertionError("it was answered")

    every: dict[str, Callable[[], None]] = {
        "words": lambda: same("words"),
        "picture as data URL": lambda: same("picture"),
        "mend by the model's name": mended,
        "system turn and earlier turns": lambda: same("turns"),
        "temperature and seed": lambda: same("drawn", temperature=1.0, seed=7),
        "stream": lambda: same("words", stream=True),
        "stream beside a picture, mended": lambda: same("picture", "base+test", stream=True),
        "eight at a time": together,
        "list of models": lambda: _equal(sorted(client.models()), sorted(case["models"])),
        "unknown model": lambda: refused(404, "There is no model", model="nobody"),
        "wrong key": lambda: refused(401, "wants a key", key="wrong"),
        "what cannot be honoured": lambda: refused(400, "a reply ends where the model ends it", stop=["x"]),
    }
    found: dict[str, str | None] = {}
    for name, check in every.items():
        try:
            check()
            found[name] = None
        except NotImplementedError:
            continue
        except Exception as problem:
            found[name] = f"{type(problem).__name__}: {problem}"[:500]
    return found


def _equal(found: object, wanted: object) -> None:
    assert found == wanted, f"{found!r} is not {wanted!r}"


def _status(problem: Exception) -> int | None:
    """The HTTP status behind a client's error."""
    cause: BaseException | None = problem
    while cause is not None and not hasattr(cause, "status_code"):
        cause = cause.__cause__ or cause.__context__
    return getattr(cause, "status_code", None)


if __name__ == "__main__":
    case = json.load(sys.stdin)
    print(json.dumps(checks(CLIENTS[sys.argv[1]](case["address"]), case)))
