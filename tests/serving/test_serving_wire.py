"""What a request may hold, and what it is told where it may not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.serving.serving import Asked, post, started

from vlmend.core.conversation import Conversation, Sampling, Turn
from vlmend.core.images import Image, noise_image
from vlmend.errors import BadImage
from vlmend.serving.app import Service
from vlmend.serving.limits import Limits, Refusal
from vlmend.serving.pictures import Pictures, public_address
from vlmend.serving.settings import Settings
from vlmend.serving.wire import NEUTRAL, ChatRequest, conversation_of, parsed
from vlmend.testing import tiny_vlm

LIMITS = Limits()
HELLO: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hello"}]}
KEYS = (b"first-key-of-sixteen", b"second-key-of-sixteen")


def read(body: dict[str, Any]) -> ChatRequest:
    return parsed(json.dumps(body).encode())


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with started({"base": tiny_vlm(seed=0)}, Settings(keys=KEYS)) as (address, service):
        yield address, service


def test_a_conversation_is_read_with_its_pictures_before_its_words() -> None:
    image = noise_image(16, 0)
    seen = {"type": "image_url", "image_url": {"url": image.to_data_uri(), "detail": "high"}}
    told = [{"type": "text", "text": "a"}, seen, {"type": "text", "text": "b"}]
    body = HELLO | {"messages": [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": told}]}
    found = conversation_of(read(body), LIMITS, Pictures(LIMITS).of)
    assert [turn.role for turn in found.turns] == ["system", "user"]
    assert found.prompt == "a\nb"
    assert found.images[0].content == image.content


@pytest.mark.parametrize("name", [name for name in NEUTRAL if name in ChatRequest.model_fields])
def test_fields_that_change_nothing_are_taken_and_others_refused_with_the_reason(name: str) -> None:
    why, neutral = NEUTRAL[name]
    for value in (None, *neutral):
        read(HELLO | {name: value})
    for value in ("frob", 7, [{}], {"type": "json_object"}, True):
        with pytest.raises(Refusal) as refused:
            read(HELLO | {name: value})
        assert why in refused.value.said
        assert (refused.value.status, refused.value.about) == (400, name)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (HELLO | {"frob": 1}, "frob: this server knows no such field"),
        (HELLO | {"temperature": 2.1}, "temperature: Input should be less than or equal to 2"),
        (HELLO | {"temperature": "1"}, "temperature: Input should be a valid number"),
        (HELLO | {"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        (HELLO | {"seed": 2**63}, "seed: Input should be less than"),
        (HELLO | {"stream": "yes"}, "stream: Input should be a valid boolean"),
        (HELLO | {"messages": []}, "messages: List should have at least 1 item"),
        (HELLO | {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'system'"),
        (HELLO | {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "does not match any of the"),
        (HELLO | {"messages": [{"role": "user", "content": "x", "name": "Jo"}]}, "no place for the name of a speaker"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(body)
    assert said in refused.value.said


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": NaN}', b"\xff\xfe", b'{"a":' * 3000, b'"\\ud800"'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        parsed(body)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_tokens": LIMITS.new_tokens + 1}, "too_many_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "two_limits"),
    ],
)
def test_longer_replies_than_there_are_are_refused_and_not_cut(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(HELLO | change).new_tokens(LIMITS)
    assert refused.value.code == code
    assert read(HELLO | {"max_completion_tokens": 7, "max_tokens": 7}).new_tokens(LIMITS) == 7
    assert read(HELLO).new_tokens(LIMITS) == LIMITS.default_new_tokens
    assert read(HELLO).new_tokens(Limits(new_tokens=9)) == 9


def picture_part(url: str = "data:,x") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"role": "user", "content": "x"}] * 257, "too_many_messages"),
        ([{"role": "user", "content": [picture_part()] * 9}], "too_many_pictures"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "last_message"),
        ([{"role": "system", "content": [picture_part()]}, {"role": "user", "content": "x"}], "picture_place"),
    ],
)
def test_conversations_beyond_the_limits_are_refused_before_a_picture_is_read(messages: list[Any], code: str) -> None:
    def read_none(url: str, name: str) -> Image:
        raise AssertionError(name)

    small, asked = Limits(pictures=0) if code == "too_many_pictures" else LIMITS, read(HELLO | {"messages": messages})
    with pytest.raises(Refusal) as refused:
        conversation_of(asked, small, read_none)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "fd00::1",
     "::ffff:10.0.0.1", "2002:7f00:1::", "100.64.0.1", "224.0.0.1"],
)  # fmt: skip
def test_no_address_of_a_private_net_is_asked_whatever_its_name(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for found in ([address], ["93.184.216.34", address]):  # one private address among public ones is enough
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *_, found=found, **__: [(family, 1, 6, "", (one, 443)) for one in found]
        )
        with pytest.raises(ValueError, match="no public address"):
            public_address("pictures.example", 443)
        with pytest.raises(BadImage, match="could not be fetched"):
            Pictures(LIMITS, remote=True).of("https://pictures.example/a.png", "one")


def test_a_public_picture_is_asked_at_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    image, asked = noise_image(16, 0), list[httpx.Request]()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("93.184.216.34", 443))])
    plain = httpx.Client

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        moved = httpx.Response(302, headers={"location": "http://127.0.0.1/"})
        return moved if "moved" in str(request.url) else httpx.Response(200, stream=httpx.ByteStream(image.content))

    monkeypatch.setattr(httpx, "Client", lambda **given: plain(transport=httpx.MockTransport(answer), **given))
    assert Pictures(LIMITS, remote=True).of("https://pictures.example/a.png", "one").content == image.content
    assert (asked[0].url.host, asked[0].headers["host"]) == ("93.184.216.34", "pictures.example")
    assert asked[0].extensions["sni_hostname"] == "pictures.example"
    with pytest.raises(BadImage, match="302"):
        Pictures(LIMITS, remote=True).of("https://pictures.example/moved.png", "one")
    assert len(asked) == 2
    with pytest.raises(BadImage, match="too large"):
        Pictures(Limits(body_bytes=100), remote=True).of("https://pictures.example/a.png", "one")


@pytest.mark.parametrize("url", ["http://a.example/x.png", "file:///etc/passwd", "/etc/passwd", "ftp://a/b", ""])
def test_only_data_urls_are_read_unless_told(url: str) -> None:
    with pytest.raises(BadImage, match="only data URLs"):
        Pictures(LIMITS).of(url, "one")


def test_a_key_is_asked_for_everywhere_but_at_health(server: tuple[str, Service]) -> None:
    address, service = server
    for path in ("/v1/models", "/metrics"):
        assert httpx.get(address + path, trust_env=False).status_code == 401
    for given in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer ö".encode("latin-1").decode("latin-1")},
    ):
        headers = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        answer = httpx.post(f"{address}/v1/chat/completions", json=HELLO, headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    for key in KEYS:
        headers = {"Authorization": f"Bearer {key.decode()}"}
        assert post(address, HELLO | {"max_tokens": 2}, headers=headers).status_code == 200
        told = httpx.get(f"{address}/metrics", headers=headers, trust_env=False).text
    assert 'vlmend_requests_total{model="base",status="200"} 2.0' in told
    assert httpx.get(f"{address}/health", trust_env=False).json() == {"status": "ok"}
    assert service.worker.held == 0


def test_without_a_key_only_names_of_this_machine_and_json_are_answered() -> None:
    with started({"base": tiny_vlm(seed=0)}) as (address, _):
        models = httpx.get(f"{address}/v1/models", trust_env=False)
        assert [row["id"] for row in models.json()["data"]] == ["base"]
        rebound = {"Host": "evil.example"}  # a web page elsewhere whose name was made to lead here
        assert httpx.get(f"{address}/v1/models", headers=rebound, trust_env=False).status_code == 400
        plain = {"content-type": "text/plain"}  # what a web page may send without asking
        body = json.dumps(HELLO).encode()
        answer = httpx.post(f"{address}/v1/chat/completions", content=body, headers=plain, trust_env=False)
        assert answer.status_code == 415
        assert post(address, HELLO | {"model": "base+none"}).json()["error"]["code"] == "model_not_found"
        assert httpx.get(f"{address}/v1/nothing", trust_env=False).json()["error"]["message"] == "Not Found"
        assert httpx.get(f"{address}/v1/chat/completions", trust_env=False).status_code == 405


def test_logs_hold_no_words_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    secret = Asked("base", Conversation((Turn("user", "zebra"),)), Sampling(3))
    for words in (False, True):
        caplog.clear()
        with (
            caplog.at_level("INFO", "vlmend.serving"),
            started({"base": tiny_vlm(seed=0)}, Settings(log_words=words)) as (address, _),
        ):
            said = post(address, secret.body).json()
        (row,) = [json.loads(record.message) for record in caplog.records]
        assert row["request"] == said["id"]
        assert {"model", "status", "new_tokens", "seconds", "first_s", "fired"} <= set(row)
        assert ("zebra" in caplog.text) is words
        assert (row.get("reply") == said["choices"][0]["message"]["content"]) is words


def test_the_document_describes_the_request() -> None:
    with started({"base": tiny_vlm(seed=0)}) as (address, _):
        found = httpx.get(f"{address}/openapi.json", trust_env=False).json()
    schema = found["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(ChatRequest.model_fields)
    assert schema["properties"]["model"]["enum"] == ["base"]
    assert schema["properties"]["n"]["enum"] == [None, 1]
    told = found["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "404", "429"} <= set(told)
    assert set(told["200"]["content"]) == {"application/json", "text/event-stream"}
