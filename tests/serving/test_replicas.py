"""Replicas in Ray Serve itself, where it is installed; and what is told where it is not, or has no room."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from tests.nodes import Node, cluster, free_port
from tests.serving.serving import Asked, alone, mends_that_share, post, text_of

from vlmend import cluster as clusters
from vlmend.cluster import check_ray, joined, share_of
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import noise_image
from vlmend.errors import BadParameter, MendMismatch, MissingExtra, ModelProblem, RunProblem
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.serving.replicas import MARK, _problem
from vlmend.serving.settings import Scale, check_replicas
from vlmend.testing import tiny_vlm

LONG = Asked("base+picture", Conversation.ask("a long one", noise_image(16, 3)), Sampling(400))


def test_so_many_replicas_or_a_range() -> None:
    assert Scale.parse("3") == Scale(3, 3)
    assert Scale.parse("1-4") == Scale(1, 4)
    for bad in ("0", "0-2", "3-2", "two", "1-", "-1"):
        with pytest.raises(BadParameter, match="no number of replicas"):
            Scale.parse(bad)
    with pytest.raises(BadParameter, match="without --ray"):
        check_replicas("", "2")


def test_where_ray_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="Ray Serve") as missing:
        check_replicas("local", None)
    assert missing.value.hint == "Run: pip install 'vlmend[ray]'"
    monkeypatch.setattr(clusters, "find_spec", lambda name: None if name == "aiohttp" else object())
    check_ray()  # audits need no Ray Serve
    with pytest.raises(MissingExtra, match="aiohttp is not installed"):
        check_ray(serve=True)


def test_an_address_at_which_nobody_answers_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**given: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(clusters, "check_ray", lambda: None)
    monkeypatch.setattr(clusters, "ray_itself", lambda: SimpleNamespace(init=refused))
    for address in (f"127.0.0.1:{free_port()}", f"ray://127.0.0.1:{free_port()}", "auto"):
        began = time.monotonic()
        with pytest.raises(RunProblem, match=f"No Ray cluster answers at {re.escape(address)}"):
            joined(address)
        assert time.monotonic() - began < 1


def test_every_process_gets_as_many_cpus_as_go_around_or_one_gpu() -> None:
    def node(alive: bool = True, **resources: int) -> dict[str, Any]:
        return {"Alive": alive, "Resources": resources}

    assert share_of([node(CPU=8)], 2, gpu=False) == {"num_cpus": 4}
    assert share_of([node(CPU=4), node(CPU=1)], 2, gpu=False) == {"num_cpus": 2}  # both on the first
    assert share_of([node(CPU=3), node(CPU=3)], 4, gpu=False) == {"num_cpus": 1}
    assert share_of([node(CPU=1, GPU=2)], 2, gpu=True) == {"num_gpus": 1}
    with pytest.raises(RunProblem, match="3 processes of one GPU each were asked for, and the cluster has 2 GPUs on 1"):
        share_of([node(CPU=64, GPU=2), node(False, CPU=64, GPU=8)], 3, gpu=True)
    with pytest.raises(RunProblem, match="has 2 CPUs"):
        share_of([node(CPU=2)], 3, gpu=False)


def test_what_a_replica_cannot_load_comes_back_as_the_error_that_it_is() -> None:
    def told(problem: Exception, name: str) -> Exception:
        text = json.dumps([name, "What is wrong.", "The way out."]).encode().hex()
        found = re.search(rf"{MARK} ([0-9a-f]+)\.", f"Traceback\n  RuntimeError: {MARK} {text}.\n\n more")
        assert found is not None
        return _problem(found[1])

    for kind in (MendMismatch, ModelProblem):
        found = told(kind("", ""), kind.__name__)
        assert type(found) is kind
        assert str(found) == "What is wrong. The way out."
    assert type(told(KeyError(), "SeveralProblems")) is ModelProblem  # one that is made otherwise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a mend of it."""
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'vlmend[ray]'")
    place, tiny = tmp_path_factory.mktemp("served"), tiny_vlm()
    for part in (tiny.model, tiny.processor):
        part.save_pretrained(place / "model")
    mends_that_share(load(place / "model", name="model"))["picture"].save(place / "picture")
    return place


@contextmanager
def served(folder: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "vlmend", "serve", "model", "--mend", "picture", "--port", "0", "--json", *more]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert server.stdout is not None
        told = ""
        while "}" not in told:
            line = server.stdout.readline()
            assert line, "it ended"
            told += line
        yield re.findall(r"http://127\.0\.0\.1:\d+", told)[0], server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def views(folder: Path) -> dict[str, VLM]:
    vlm = load(folder / "model", name="model")
    return {"base": vlm, "base+picture": vlm.with_mend(mends_that_share(vlm)["picture"])}


def metric(address: str, name: str) -> float:
    lines = httpx.get(f"{address}/metrics", trust_env=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def until(check: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def alive(address: str) -> int:
    return httpx.get(f"{address}/health", trust_env=False).json()["replicas"]


def all_asked_while(address: str, here: dict[str, VLM], act: Callable[[], object]) -> None:
    """Long requests, something that happens once both replicas have some, and the right replies to all of them."""
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(post, address, LONG.body) for _ in range(8)]
        until(lambda: metric(address, "vlmend_requests_running") == 8)
        act()
        answers = [one.result() for one in waiting]
    assert [text_of(answer, stream=False) for answer in answers] == alone(here[LONG.model], [LONG]) * 8


@pytest.mark.slow
def test_replicas_say_what_generate_says_and_one_that_is_killed_loses_nothing(folder: Path) -> None:
    here = views(folder)
    with served(folder, "--ray", "local", "--replicas", "2") as (address, server):
        asked = [
            Asked([*here][k % 2], Conversation.ask(f"word {k}", noise_image(16, k)), stream=k % 3 == 0)
            for k in range(12)
        ]
        with ThreadPoolExecutor(6) as pool:
            answers = [*pool.map(lambda one: post(address, one.body), asked)]
        found = [text_of(answer, one.stream) for answer, one in zip(answers, asked, strict=True)]
        assert found == [alone(here[one.model], [one])[0] for one in asked]
        assert metric(address, "vlmend_replica_replies_total") == 12
        assert alive(address) == 2

        all_asked_while(address, here, lambda: replicas_below(server)[0].kill())
        assert metric(address, "vlmend_requests_again_total") >= 1
        until(lambda: alive(address) == 2)  # Ray Serve put another in its place
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{address}/v1/chat/completions", json=LONG.body, timeout=0.05, trust_env=False)
        until(lambda: metric(address, "vlmend_requests_held") == 0, 5)
        stream, rows = LONG.body | {"stream": True}, list[str]()
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=stream, trust_env=False, timeout=60) as answer:
            for line in answer.iter_lines():
                rows += [line] if line else []
                if len(rows) == 4:
                    for one in replicas_below(server):
                        one.kill()
        assert "replica_died" in rows[-1]
        assert text_of(post(address, Asked("base", Conversation.ask("hi")).body), stream=False)  # it waits for the next


@pytest.mark.slow
def test_a_host_that_is_killed_loses_no_request_and_a_server_that_is_killed_leaves_no_replica(folder: Path) -> None:
    here = views(folder)
    with cluster(1, 1) as (address, nodes), served(folder, "--ray", address, "--replicas", "2") as (at, server):
        assert [bool(replicas_of(node)) for node in nodes] == [True, True]
        all_asked_while(at, here, nodes[1].kill)
        until(lambda: alive(at) == 1)
        assert text_of(post(at, LONG.body), stream=False) == alone(here[LONG.model], [LONG])[0]
        server.kill()
        until(lambda: not replicas_of(nodes[0]))


def replicas_of(node: Node) -> list[psutil.Process]:
    return node.processes("ServeReplica")


def replicas_below(server: subprocess.Popen[str]) -> list[psutil.Process]:
    below = psutil.Process(server.pid).children(recursive=True)
    return [one for one in below if one.status() != psutil.STATUS_ZOMBIE and "ServeReplica" in " ".join(one.cmdline())]


@pytest.mark.slow
def test_a_replica_comes_as_requests_do(folder: Path) -> None:
    with served(folder, "--ray", "local", "--replicas", "1-2") as (address, _), ThreadPoolExecutor(24) as pool:
        assert alive(address) == 1
        asked: list[Future[httpx.Response]] = []

        def two() -> bool:
            asked.extend(
                pool.submit(post, address, LONG.body) for _ in range(24 - sum(not one.done() for one in asked))
            )
            return alive(address) == 2

        until(two, 300)
        assert {one.result().status_code for one in asked} == {200}


@pytest.mark.slow
def test_what_is_wrong_is_told_as_by_a_lone_server(folder: Path) -> None:
    def told(*command: str) -> str:
        given = [sys.executable, "-m", "vlmend", "serve", *command, "--port", "0"]
        ended = subprocess.run(given, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode in (2, 3)
        return ended.stderr

    tiny = tiny_vlm(seed=1)
    for part in (tiny.model, tiny.processor):
        part.save_pretrained(folder / "other")
    assert "error[mend-mismatch]" in told("other", "--mend", "picture", "--ray", "local", "--replicas", "1")
    with cluster(1) as (address, _):
        assert "2 processes of one CPU each were asked for, and the cluster has 1 CPUs" in told(
            "model", "--ray", address, "--replicas", "2"
        )
    assert "No Ray cluster answers at 127.0.0.1:1 " in told("model", "--ray", "127.0.0.1:1")
