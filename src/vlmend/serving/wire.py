"""What a request to `/v1/chat/completions` may hold, and the form of its answers.

A field that we do not know, or know and cannot honour, is refused with the reason: nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from vlmend.core.conversation import Conversation, Reply, Role, Turn
from vlmend.core.images import Image
from vlmend.serving.limits import Limits, Refusal

__all__ = ["ChatRequest", "chunk", "completion", "conversation_of", "parsed", "schema_of", "usage_of"]

LONGEST_NAME = 200


NEUTRAL: dict[str, tuple[str, tuple[object, ...]]] = {
    "n": ("one reply a request: ask again with another seed", (1,)),
    "top_p": ("draws are from the whole distribution: set temperature alone", (1,)),
    "frequency_penalty": ("tokens are chosen without penalties", (0,)),
    "presence_penalty": ("tokens are chosen without penalties", (0,)),
    "logit_bias": ("single tokens cannot be favoured", ({},)),
    "logprobs": ("likelihoods are not served: read them where the model is loaded", (False,)),
    "top_logprobs": ("likelihoods are not served: read them where the model is loaded", (0,)),
    "stop": ("a reply ends where the model ends it, or at max_tokens", ([],)),
    "tools": ("this server calls no tools", ([],)),
    "tool_choice": ("this server calls no tools", ("none",)),
    "tool_calls": ("this server calls no tools", ([],)),
    "functions": ("this server calls no tools", ([],)),
    "function_call": ("this server calls no tools", ("none",)),
    "response_format": ("replies are plain text", ({"type": "text"},)),
    "store": ("nothing is stored here", (False,)),
    "metadata": ("nothing is stored here", ({},)),
    "name": ("chat templates have no place for the name of a speaker", ()),
    "refusal": ("send what was said as content", ()),
    "audio": ("no sound is read", ()),
    "annotations": ("no annotations are read", ([],)),
}
"""Fields of OpenAI that we know and cannot honour: why, and the values beside null that change nothing."""


def _neutral(value: object, field: ValidationInfo) -> None:
    """Nothing, where a value changes nothing.

    Raises:
        ValueError: It would change something.
    """
    why, neutral = NEUTRAL[str(field.field_name)]
    if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in (None, *neutral)):
        raise ValueError(why)


Neutral = Annotated[Any, BeforeValidator(_neutral)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _TextPart(_Strict):
    type: Literal["text"]
    text: str


class _Address(_Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class _ImagePart(_Strict):
    type: Literal["image_url"]
    image_url: _Address


_Part = Annotated[_TextPart | _ImagePart, Field(discriminator="type")]


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: Neutral = None
    refusal: Neutral = None
    tool_calls: Neutral = None
    function_call: Neutral = None
    audio: Neutral = None
    annotations: Neutral = None


class _StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(_Strict):
    """One request; temperature 0, which is greedy, unless it says otherwise."""

    model: str = Field(max_length=LONGEST_NAME)
    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    n: Neutral = None
    top_p: Neutral = None
    frequency_penalty: Neutral = None
    presence_penalty: Neutral = None
    logit_bias: Neutral = None
    logprobs: Neutral = None
    top_logprobs: Neutral = None
    stop: Neutral = None
    tools: Neutral = None
    tool_choice: Neutral = None
    functions: Neutral = None
    function_call: Neutral = None
    response_format: Neutral = None
    store: Neutral = None
    metadata: Neutral = None

    def new_tokens(self, limits: Limits) -> int:
        """The longest reply that is wanted, in tokens.

        Raises:
            Refusal: It is more than the server gives, or told twice.
        """
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise Refusal(400, "max_tokens and max_completion_tokens differ: send one of them.", "two_limits")
        wanted = self.max_completion_tokens or self.max_tokens
        if wanted is not None and wanted > limits.new_tokens:
            said = f"Replies have {limits.new_tokens:,} tokens at most here, and {wanted:,} were asked for."
            raise Refusal(400, said, "too_many_tokens", "max_tokens")
        return wanted or min(limits.default_new_tokens, limits.new_tokens)


def schema_of(models: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a request, with the models that are there and the values that fields may have which change
    nothing; its references stay within the place that the OpenAPI document gives it."""
    place = "#/paths/~1v1~1chat~1completions/post/requestBody/content/application~1json/schema/$defs/{model}"
    schema = ChatRequest.model_json_schema(ref_template=place)
    for part in (schema, schema["$defs"]["_Message"]):
        for name in NEUTRAL.keys() & part["properties"].keys():
            why, neutral = NEUTRAL[name]
            part["properties"][name] |= {"enum": [None, *neutral], "description": why}
    schema["properties"]["model"]["enum"] = list(models)
    return schema


def parsed(body: bytes) -> ChatRequest:
    """A request from its bytes.

    Raises:
        Refusal: It is none; the answer says which field and why.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as problem:
        errors = problem.errors(include_url=False, include_input=False)
        first = max(errors, key=lambda error: len(error["loc"]))  # of the forms that a field may have, the nearest one
        place = ".".join(str(part) for part in first["loc"] if part != "str" and "[" not in str(part))
        if first["type"] == "extra_forbidden":
            said = f"{place}: this server knows no such field, and leaves none out in silence."
        else:
            said = f"{place or 'The body'}: {first['msg'].removeprefix('Value error, ')}."
        raise Refusal(400, said[:500], "invalid_request", place[:LONGEST_NAME] or None) from problem


def conversation_of(asked: ChatRequest, limits: Limits, picture: Callable[[str, str], Image]) -> Conversation:
    """The conversation that a request holds; in each message its images come before its words.

    Args:
        asked: The request.
        limits: Of its size.
        picture: An image from its address and what errors are to call it.

    Raises:
        Refusal: It has too many messages or pictures, or does not end with the user's.
        BadImage: A picture cannot be read.
    """
    if len(asked.messages) > limits.turns:
        raise Refusal(400, f"At most {limits.turns} messages are read.", "too_many_messages", "messages")
    if asked.messages[-1].role != "user":
        raise Refusal(400, "The last message must be the user's: words put into the model's mouth are not taken.",
                      "last_message", "messages")  # fmt: skip
    turns: list[Turn] = []
    held = 0
    for place, message in enumerate(asked.messages):
        words, addresses = _split(message)
        held += len(addresses)
        if held > limits.pictures:
            raise Refusal(400, f"At most {limits.pictures} pictures are read.", "too_many_pictures", "messages")
        if addresses and message.role != "user":
            raise Refusal(400, "Pictures stand in the user's messages only.", "picture_place", f"messages.{place}")
        images = tuple(picture(url, f"messages.{place}, picture {k}") for k, url in enumerate(addresses))
        role: Role = "system" if message.role == "developer" else message.role
        turns.append(Turn(role, words, images))
    return Conversation(tuple(turns))


def _split(message: _Message) -> tuple[str, list[str]]:
    """Words and the addresses of images."""
    if isinstance(message.content, str):
        return message.content, []
    words = [part.text for part in message.content if isinstance(part, _TextPart)]
    return "\n".join(words), [part.image_url.url for part in message.content if isinstance(part, _ImagePart)]


def usage_of(reply: Reply) -> dict[str, int]:
    """Tokens, as OpenAI counts them."""
    total = reply.prompt_tokens + reply.new_tokens
    return {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.new_tokens, "total_tokens": total}


def completion(head: Mapping[str, Any], reply: Reply, proof: Mapping[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": reply.stop, "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage_of(reply), "vlmend": dict(proof)}


def chunk(head: Mapping[str, Any], delta: Mapping[str, Any], ended: str | None = None) -> dict[str, Any]:
    """A piece of a streamed answer."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": ended, "logprobs": None}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}
