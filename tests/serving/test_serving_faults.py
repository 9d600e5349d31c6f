"""Clients that leave, dawdle, flood and send nonsense; mends that never act."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.serving import Asked, mend_of, post, started, vector

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import AddVector
from vlmend.core.images import Image, noise_image
from vlmend.core.sites import Site
from vlmend.errors import ModelProblem
from vlmend.models.vlm import VLM
from vlmend.serving import worker as working
from vlmend.serving.app import Service
from vlmend.serving.limits import Limits
from vlmend.serving.run import views_of
from vlmend.serving.settings import Settings
from vlmend.testing import tiny_vlm

LIMITS = Limits(body_bytes=100_000, pixels=10_000, new_tokens=200, held=4, timeout_s=20, header_s=0.5, body_s=0.5)
SETTINGS = Settings(limits=LIMITS)
HELLO = Asked("base", Conversation.ask("hello"), Sampling(5)).body


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with started({"base": tiny_vlm(seed=0)}, SETTINGS) as (address, service):
        yield address, service


def eventually(found: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not found() and time.monotonic() < until:
        time.sleep(0.01)
    return found()


def slowed(vlm: VLM, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make every token of the worker take so long."""
    step = working.Live.step

    def late(self: working.Live) -> None:
        time.sleep(seconds)
        step(self)

    monkeypatch.setattr(working.Live, "step", late)


def raw(address: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What comes back over a bare connection, until it is closed."""
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause)
        found = b""
        while True:
            try:
                more = connection.recv(65_536)
            except ConnectionError:
                return found
            if not more:
                return found
            found += more


def test_a_client_that_leaves_frees_its_row(server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    address, service = server
    slowed(tiny_vlm(), monkeypatch, 0.05)
    whole, streamed = (Asked("base", Conversation.ask("long"), Sampling(200), stream).body for stream in (False, True))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/chat/completions", json=whole, timeout=0.4, trust_env=False)
    assert eventually(lambda: service.worker.held == 0, 3)  # 200 tokens would take 10 s
    url = f"{address}/v1/chat/completions"
    with httpx.Client(trust_env=False) as client, client.stream("POST", url, json=streamed) as answer:
        lines = (line for line in answer.iter_lines() if "content" in line)
        assert next(lines) != next(lines)
        assert service.worker.running == 1
    assert eventually(lambda: service.worker.held == 0, 3)
    assert eventually(lambda: service.worker._live.rows == [], 3)
    left = 'vlmend_requests_total{model="base",status="499"} 2.0'
    assert eventually(lambda: left in service.metrics.text().decode(), 3)


def test_a_full_queue_says_when_to_come_again(server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    address, _ = server
    slowed(tiny_vlm(), monkeypatch, 0.03)
    body = Asked("base", Conversation.ask("long"), Sampling(20)).body
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(address, body), range(8)))
    busy = [answer for answer in answers if answer.status_code == 429]
    assert len(busy) == 4
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in busy)
    assert busy[0].json()["error"]["type"] == "rate_limit_error"


def test_an_answer_that_takes_too_long_is_given_up_and_its_row_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(tiny_vlm(), monkeypatch, 0.05)
    quick = Settings(limits=replace(LIMITS, timeout_s=0.4))
    with started({"base": tiny_vlm(seed=0)}, quick) as (address, service):
        long = Asked("base", Conversation.ask("long"), Sampling(200))
        assert post(address, long.body).status_code == 504
        streamed = post(address, replace(long, stream=True).body).text
        assert json.loads(streamed.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        assert eventually(lambda: service.worker.held == 0, 3)


def test_slow_headers_are_cut_off_and_a_slow_body_is_told(server: tuple[str, Service]) -> None:
    address, service = server
    began = time.monotonic()
    assert raw(address, b"POST /v1/chat/compl") == b""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 408 " in raw(address, head + b"Content-Length: 1000\r\n\r\n", b"{")
    assert time.monotonic() - began < 5
    assert service.worker.held == 0
    assert post(address, HELLO).status_code == 200


def test_a_large_body_is_refused_by_its_length_or_when_it_comes(server: tuple[str, Service]) -> None:
    address, _ = server
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 413 " in raw(address, head + b"Content-Length: 99999999999\r\n\r\n")
    chunks = b"".join(b"4000\r\n" + b" " * 0x4000 + b"\r\n" for _ in range(8))
    assert b" 413 " in raw(address, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)


def test_a_picture_that_would_be_too_many_pixels_is_refused_undecoded(
    server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = server
    decoded: list[str] = []
    monkeypatch.setattr(Image, "decode", lambda self: decoded.append(self.name))
    bomb = Image.from_pixels(PIL.Image.new("1", (5000, 5000)))
    answer = post(address, Asked("base", Conversation.ask("x", bomb)).body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad-image")
    assert "5000x5000" in answer.json()["error"]["message"]
    assert decoded == []


def test_a_broken_picture_fails_alone(server: tuple[str, Service]) -> None:
    address, _ = server
    cut = Image(noise_image(64, 0).content[:900])
    bodies = [Asked("base", Conversation.ask(str(k), cut if k == 1 else noise_image(16, k))).body for k in (0, 2)]
    bad = json.loads(json.dumps(bodies[0]).replace("data:image/png;base64,", "data:image/png;base64,AAAA", 1))
    with ThreadPoolExecutor(3) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda body: post(address, body), [*bodies, bad])]
    assert statuses == [200, 200, 400]


def test_a_failure_beside_others_is_that_of_its_request_alone(
    server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = server
    admit = working.Live.admit

    def picky(self: working.Live, batch: list[Any]) -> list[int]:
        if any("poison" in one.asked.prompt for one in batch):
            raise RuntimeError("cannot be read")
        return admit(self, batch)

    monkeypatch.setattr(working.Live, "admit", picky)
    asked = [Asked("base", Conversation.ask(text), Sampling(4)).body for text in ("a", "poison", "b")]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda body: post(address, body), asked))
    assert [answer.status_code for answer in answers] == [
        200,
        200,
        200,
    ]  # `generate` answers it: it was our loop's fault


def test_rows_that_break_while_they_write_begin_again_alone(
    server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, service = server
    step, calls = working.Live.step, list[int]()

    def once(self: working.Live) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        step(self)

    monkeypatch.setattr(working.Live, "step", once)
    view = service.worker._views["base"]
    room = view.workings.room(view.reader.model.device)
    before = room.tokens
    for stream in (False, True):
        calls.clear()
        one = Asked("base", Conversation.ask("hello there"), Sampling(12), stream)
        answer = post(address, one.body)
        said = view.generate([one.conversation], one.sampling)[0].text
        assert (said in answer.text.replace('\\"', '"')) or stream
        assert answer.status_code == 200
    assert room.tokens == before // 4  # less room, for good
    room.tokens = before


class Passing(AddVector):
    """An edit that is put on and never acts."""


def test_a_mend_that_never_acts_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_vlm(seed=0)
    mended = vlm.with_mend(mend_of(vlm, AddVector(Site("language", 1), vector(1), "last")))
    aimed = VLM.aimed
    monkeypatch.setattr(
        VLM, "aimed", lambda self, batch, rows, mine: [] if self.mends else aimed(self, batch, rows, mine)
    )
    with pytest.raises(ModelProblem, match="never acted"):
        views_of(vlm, {"push": mended.mends[0]})  # the server does not even begin
    with started({"base": vlm, "base+push": mended}, SETTINGS) as (address, _):
        for image in (None, noise_image(16, 1)):
            one = Asked("base+push", Conversation.ask("x", image))
            answer = post(address, one.body)
            assert answer.status_code == 500
            assert "never acted" in answer.json()["error"]["message"]
            streamed = post(address, replace(one, stream=True).body).text
            assert "never acted" in streamed
            assert '"content": ""' in streamed
            assert streamed.count('"content"') == 1  # the role alone: not a word was sent
        assert post(address, HELLO).status_code == 200


def test_a_bug_in_the_worker_ends_no_thread(server: tuple[str, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    address, service = server
    with monkeypatch.context() as patched:
        patched.setattr(working, "takes_company", lambda view: 1 / 0)
        answer = post(address, HELLO)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "division" not in answer.text
    assert post(address, HELLO).status_code == 200
    assert service.worker.held == 0


def test_closing_tells_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(tiny_vlm(), monkeypatch, 0.05)
    with started({"base": tiny_vlm(seed=0)}, SETTINGS) as (address, service), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, address, Asked("base", Conversation.ask("long"), Sampling(200)).body)
        assert eventually(lambda: service.worker.running == 1)
        service.worker.close()
        assert waiting.result().status_code == 503
        assert httpx.get(f"{address}/health", trust_env=False).status_code == 503


KEYS = ["model", "messages", "max_tokens", "temperature", "stream", "seed", "n", "stop", "tools", "role", "content",
        "type", "text", "image_url", "url", "stream_options", "logit_bias", "frob", "user"]  # fmt: skip
WORDS = ["base", "user", "system", "assistant", "text", "image_url", "hello", "<image>", "", "data:image/png;base64,AA",
         "data:,%zz", "file:///etc/passwd", "http://169.254.169.254/", "{{ 7 * 7 }}", "\ud800", "\x00", "[user]",
         "<eos>", noise_image(2, 0).to_data_uri()]  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=9),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.sampled_from(WORDS) | ANYTHING})
    | st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": st.sampled_from(WORDS)}) | ANYTHING}
    ),
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool"]), "content": st.sampled_from(WORDS) | PARTS}
    ),
    max_size=3,
)
NEARLY = st.fixed_dictionaries(
    {"model": st.sampled_from(["base", "nope"]), "messages": MESSAGES | ANYTHING, "max_tokens": st.integers(-1, 4)},
    optional={key: ANYTHING for key in KEYS if key not in ("model", "messages", "max_tokens")},
)
TALK = st.fixed_dictionaries(
    {
        "model": st.just("base"), "max_tokens": st.integers(1, 3),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.just("user"), "content": st.text(max_size=30) | st.sampled_from(WORDS) | PARTS}
            ),
            min_size=1, max_size=2,
        ),
    },
    optional={
        "temperature": st.floats(0, 2), "seed": st.integers(0, 9), "stream": st.booleans(), "n": st.just(1),
        "stop": st.none(), "user": st.text(max_size=3),
    },
)  # fmt: skip
"""Bodies that get past the schema: what the model makes of odd words is tried, too."""
BODIES = st.one_of(
    TALK.map(lambda found: json.dumps(found).encode()),
    NEARLY.map(lambda found: json.dumps(found).encode()), ANYTHING.map(lambda found: json.dumps(found).encode()),
    st.binary(max_size=60), st.integers(1, 5000).map(lambda deep: b'{"messages":' * deep),
)  # fmt: skip


def fuzz(address: str, count: int) -> dict[int, int]:
    """Send so many bodies; how many got each status.

    They are drawn before any is sent: what the server's threads draw meanwhile is no draw of hypothesis.
    """
    bodies: list[bytes] = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(BODIES)
    def draw(body: bytes) -> None:
        bodies.append(body)

    draw()
    statuses: dict[int, int] = {}
    with httpx.Client(timeout=20, trust_env=False) as client:  # a hang is a time-out
        for body in bodies:
            answer = client.post(
                f"{address}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
            )
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, (body, answer.text)
            assert "server_error" not in answer.text, (body, answer.text)  # nor in the middle of a stream
            if answer.status_code != 200:
                assert answer.json()["error"]["message"]
    return statuses


def test_a_temperature_of_next_to_nothing_is_greedy(server: tuple[str, Service]) -> None:
    address, _ = server
    plain, cold = (post(address, {**HELLO, "temperature": heat}) for heat in (0, 7.5e-56))
    assert cold.status_code == 200
    assert cold.json()["choices"] == plain.json()["choices"]


def test_malformed_bodies_get_an_error_of_theirs(server: tuple[str, Service]) -> None:
    address, service = server
    statuses = fuzz(address, 60)
    assert statuses[400] > 20
    assert statuses[200] > 2
    assert service.worker.held == 0


@pytest.mark.slow
def test_ten_thousand_malformed_bodies(server: tuple[str, Service]) -> None:
    address, service = server
    statuses = fuzz(address, 10_000)
    print("statuses:", statuses)
    assert statuses[200] > 500
    assert service.worker.held == 0
