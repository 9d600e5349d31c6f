"""Replicas that die, requests that are asked again, and limits over all of them: without Ray."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.serving.serving import Asked as Request
from tests.serving.serving import alone, listening, mends_that_share, post, text_of

from vlmend.core.conversation import Conversation, Reply, Sampling
from vlmend.core.images import noise_image
from vlmend.models.vlm import VLM
from vlmend.serving import pool as pools
from vlmend.serving.answering import Answering
from vlmend.serving.jobs import Answer, Job, Piece, Told
from vlmend.serving.limits import Limits, Refusal
from vlmend.serving.pool import DEATHS, Asked, Heard, Lost, Pool
from vlmend.serving.proof import Served
from vlmend.serving.run import service_on
from vlmend.serving.settings import Settings
from vlmend.testing import tiny_vlm

ANSWER = Answer(Reply("yes", "stop", 3, 1, 0.1), {})
LOST = Lost("killed")
Step = Heard | Exception


class Scripted:
    """A fleet that says what it is told to; one that runs out of steps waits for ever."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.scripts, self.asked, self.closed = [*scripts], list[Asked](), 0

    async def ask(self, asked: Asked) -> AsyncGenerator[Heard, None]:
        self.asked.append(asked)
        steps = self.scripts.pop(0)
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                yield step
            await asyncio.Event().wait()
        finally:
            self.closed += 1

    def alive(self) -> int:
        return len(self.scripts)

    def close(self) -> None:
        self.scripts = []


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PAUSE_S", 0.0)


def job(told: list[Told], *, stream: bool = False) -> Job:
    return Job("base", Conversation.ask("x"), Sampling(4), stream, told.append)


def outcome(fleet: Scripted, *, stream: bool = False) -> tuple[Job, list[Told]]:
    """One request to a pool, until it is answered."""

    async def asked() -> tuple[Job, list[Told]]:
        told: list[Told] = []
        pool, one = Pool(fleet, 4), job(told, stream=stream)
        pool.submit(one)
        await until(lambda: pool.held == 0)
        assert pool.running == 0
        return one, told

    return asyncio.run(asked())


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0)


def test_a_request_whose_replica_dies_before_a_word_is_asked_again() -> None:
    fleet = Scripted([Heard("a"), LOST], [LOST], [Heard("c"), Heard("c", ANSWER, 0.5)])
    one, told = outcome(fleet, stream=True)
    assert told == [ANSWER]
    assert (one.replica, one.again) == ("c", 2)
    assert one.first_s is not None
    assert one.first_s >= 0.5
    assert len(fleet.asked) == fleet.closed == 3
    assert fleet.asked[0] == fleet.asked[2]


def test_a_stream_that_has_begun_ends_with_one_error() -> None:
    fleet = Scripted([Heard("a"), Heard("a", Piece("ye")), LOST], [Heard("b"), Heard("b", ANSWER)])
    one, told = outcome(fleet, stream=True)
    assert one.again == 0
    assert told[0] == Piece("ye")
    (refusal,) = told[1:]
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (503, "replica_died")
    assert len(fleet.asked) == 1


def test_a_request_at_which_replicas_keep_dying_is_given_up() -> None:
    fleet = Scripted(*([[Heard("a"), LOST]] * (DEATHS + 1)), [Heard("b"), Heard("b", ANSWER)])
    one, told = outcome(fleet)
    (refusal,) = told
    assert one.again == len(fleet.asked) - 1
    assert isinstance(refusal, Refusal)
    assert refusal.said == "4 replicas died at this request (killed)."


def test_a_replica_that_is_closing_counts_as_none() -> None:
    closing = Refusal(503, "The server is closing.", "closing")
    leaving: Sequence[Step] = [Heard("a"), Heard("a", closing)]
    one, told = outcome(Scripted(*([leaving] * (DEATHS + 2)), [Heard("b"), Heard("b", ANSWER)]))
    assert (told, one.replica) == ([ANSWER], "b")


def test_what_is_wrong_with_a_request_is_told_and_not_asked_again() -> None:
    bad, bug = Refusal(400, "No picture.", "bad-image"), ValueError("ours")
    assert outcome(Scripted([Heard("a"), Heard("a", bad)]))[1] == [bad]
    assert outcome(Scripted([bug]))[1] == [bug]


def test_the_limit_is_that_of_all_replicas_together() -> None:
    async def asked() -> None:
        told: list[Told] = []
        fleet = Scripted([Heard("a")], [Heard("b")], [Heard("a"), Heard("a", ANSWER)])
        pool, first = Pool(fleet, 2), job(told)
        pool.submit(first)
        pool.submit(job(told))
        with pytest.raises(Refusal, match="busy") as refused:
            pool.submit(job(told))
        assert refused.value.status == 429
        await until(lambda: pool.running == 2)
        first.leave()
        await until(lambda: pool.held == 1)
        assert (fleet.closed, pool.running) == (1, 1)  # its replica lets it go
        pool.submit(job(told))
        await until(lambda: pool.held == 1)
        assert told == [ANSWER]
        pool.close()
        with pytest.raises(Refusal, match="closing"):
            pool.submit(job(told))
        await until(lambda: pool.held == 0)

    asyncio.run(asked())


def test_a_refusal_survives_the_way_from_a_replica() -> None:
    refusal = Refusal(429, "Later.", "busy", about="model", headers={"Retry-After": "1"})
    assert vars(pickle.loads(pickle.dumps(refusal))) == vars(refusal)


class Standing:
    """Replicas in this process, asked in turns; a dead one says no more."""

    def __init__(self, replicas: dict[str, Answering]) -> None:
        self.there, self.dead, self.turn = replicas, set[str](), 0

    async def ask(self, asked: Asked) -> AsyncGenerator[Heard, None]:
        living = [tag for tag in self.there if tag not in self.dead]
        if not living:
            raise LOST
        self.turn += 1
        tag = living[self.turn % len(living)]
        async for one in self.there[tag].ask(asked):
            if tag in self.dead:
                raise LOST
            yield one

    def alive(self) -> int:
        return len(self.there) - len(self.dead)

    def close(self) -> None:
        for one in self.there.values():
            one.close()


Started = tuple[str, Standing, dict[str, VLM]]


@pytest.fixture
def server() -> Iterator[Started]:
    here, *others = (views(tiny_vlm(seed=0)) for _ in range(3))
    served = [{name: Served(name, view) for name, view in one.items()} for one in others]
    fleet = Standing({tag: Answering(tag, one, 32) for tag, one in zip("ab", served, strict=True)})
    shown = [one.shown for one in served[0].values()]
    with listening(service_on(Pool(fleet, 16), shown, Settings(limits=Limits(held=16)))) as address:
        yield address, fleet, here


def views(vlm: VLM) -> dict[str, VLM]:
    return {"base": vlm} | {f"base+{name}": vlm.with_mend(mend) for name, mend in mends_that_share(vlm).items()}


def test_any_replica_says_what_generate_says_and_the_server_tells_which(server: Started) -> None:
    address, _, here = server
    asked = [
        Request([*here][k % len(here)], Conversation.ask(f"word {k}", noise_image(16, k)), stream=k % 3 == 0)
        for k in range(12)
    ]
    with ThreadPoolExecutor(6) as pool, httpx.Client(timeout=60, trust_env=False) as client:
        answers = [*pool.map(lambda one: post(address, one.body, client), asked)]
    found = [text_of(answer, one.stream) for answer, one in zip(answers, asked, strict=True)]
    assert found == [alone(here[one.model], [one])[0] for one in asked]
    told = httpx.get(f"{address}/metrics", trust_env=False).text
    assert {f'vlmend_replica_replies_total{{replica="{tag}"}} 6.0' for tag in "ab"} <= {*told.splitlines()}
    assert "vlmend_requests_again_total 0.0" in told
    assert "vlmend_requests_held 0.0" in told
    models = httpx.get(f"{address}/v1/models", trust_env=False).json()["data"]
    assert [one["id"] for one in models] == [*here]
    assert answers[1].json()["vlmend"]["mends"] == models[1]["vlmend"]["mends"] != []
    assert answers[1].json()["system_fingerprint"] == here["base+picture"].id


def test_a_replica_that_dies_loses_no_request(server: Started) -> None:
    address, fleet, here = server
    long = Request("base", Conversation.ask("a long one"), Sampling(60))
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(post, address, long.body) for _ in range(6)]
        while not any(one._worker.running for one in fleet.there.values()):
            time.sleep(0.001)
        fleet.dead.add("a")
        answers = [one.result() for one in waiting]
    (wanted,) = alone(here["base"], [long])
    assert [text_of(answer, stream=False) for answer in answers] == [wanted] * 6
    told = httpx.get(f"{address}/metrics", trust_env=False).text
    assert "vlmend_requests_again_total 3.0" in told
    assert httpx.get(f"{address}/health", trust_env=False).json() == {"status": "ok", "replicas": 1}
    fleet.dead.add("b")
    health = httpx.get(f"{address}/health", trust_env=False)
    assert (health.status_code, health.json()["status"]) == (503, "no replica answers")
    lost = post(address, long.body)
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, "replica_died")


def test_a_stream_whose_replica_dies_has_no_end(server: Started) -> None:
    address, fleet, _ = server
    long = Request("base", Conversation.ask("a long one"), Sampling(200), stream=True)
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=long.body, trust_env=False, timeout=60) as answer:
        rows = [line.removeprefix("data: ") for line in _until_dead(answer.iter_lines(), fleet)]
    assert "[DONE]" not in rows
    assert json.loads(rows[-1])["error"]["code"] == "replica_died"
    assert sum('"error"' in row for row in rows) == 1


def _until_dead(lines: Iterator[str], fleet: Standing) -> Iterator[str]:
    for line in lines:
        if '"content": "' in line and '"content": ""' not in line:
            fleet.dead |= {*fleet.there}
        if line:
            yield line


def test_a_client_that_leaves_frees_its_row_in_the_replica(server: Started) -> None:
    address, fleet, _ = server
    long = Request("base", Conversation.ask("a long one"), Sampling(200))
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{address}/v1/chat/completions", json=long.body, timeout=0.2, trust_env=False)
    workers = [one._worker for one in fleet.there.values()]
    for _ in range(300):
        if sum(one.held for one in workers) == 0:
            return
        time.sleep(0.01)
    raise AssertionError("a row is held")
