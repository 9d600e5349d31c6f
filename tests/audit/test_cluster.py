"""Shards over workers that die: a pool that is none, and Ray itself where it is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.nodes import cluster

from vlmend.audit.cluster import DEATHS, Lost, spread
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.audit.sharding import Shard, ask_shard
from vlmend.core.conversation import Conversation
from vlmend.core.samples import read_samples
from vlmend.errors import RunProblem, UsageError
from vlmend.testing import ScriptedTarget, tiny_vlm

PLAN = Plan(("safety/over_refusal",), limit=8, max_new_tokens=4)
SHARDS = [Shard(k, 5) for k in range(1, 6)]


class Inline:
    """Workers that are none: a shard is done when its worker is asked for what it did.

    Args:
        size: How many.
        work: What becomes of a shard.
        comes_back: Whether one that died is replaced, as it is not where its host is gone.
    """

    def __init__(self, size: int, work: Callable[[int, Shard], Exception | None], *, comes_back: bool = True) -> None:
        self.size, self._work, self._comes_back = size, work, comes_back
        self.running: deque[tuple[int, Shard]] = deque()
        self.rising = deque(range(size))
        self.renewed: list[int] = []

    def give(self, worker: int, shard: Shard) -> None:
        assert worker not in dict(self.running)
        self.running.append((worker, shard))

    def next(self) -> tuple[int, Shard | None, Exception | None]:
        if self.rising:
            return self.rising.popleft(), None, None
        worker, shard = self.running.popleft()
        return worker, shard, self._work(worker, shard)

    def renew(self, worker: int) -> None:
        self.renewed.append(worker)
        self.rising += [worker] if self._comes_back else []


def test_every_shard_is_done_once_by_a_worker_that_is_free() -> None:
    done: list[Shard] = []
    told: list[tuple[str, int, int]] = []
    pool = Inline(2, lambda worker, shard: done.append(shard))
    spread(SHARDS, pool, lambda *parts: told.append(parts))
    assert done == SHARDS
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {("shards", k, 5) for k in range(6)} == {*told}


def test_a_worker_that_is_killed_loses_no_reply_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    asked: list[str] = []
    alive = iter([*range(4), None, *range(1000)])

    def answer(conversation: Conversation, mended: bool) -> str:
        if next(alive) is None:
            raise Killed
        asked.append(conversation.digest)
        return "yes"

    def work(worker: int, shard: Shard) -> Exception | None:
        try:
            ask_shard(ScriptedTarget(answer), PLAN, tmp_path / "parts", shard, batch=1)
        except Killed:
            return Lost("killed")
        return None

    pool = Inline(2, work)
    spread(SHARDS, pool)
    assert len(pool.renewed) == 1
    audit(ScriptedTarget(answer), PLAN, tmp_path / "parts", judges=())
    whole = ScriptedTarget(lambda conversation, mended: "yes")
    audit(whole, PLAN, tmp_path / "whole", judges=())
    assert Counter(asked) == Counter(one.digest for one in whole.asked.conversations)
    assert read_samples(tmp_path / "parts") == read_samples(tmp_path / "whole")


def test_a_host_that_does_not_come_back_leaves_its_shards_to_the_others() -> None:
    done: list[tuple[int, Shard]] = []

    def work(worker: int, shard: Shard) -> Exception | None:
        if worker == 1:
            return Lost("its host is gone")
        return done.append((worker, shard))

    pool = Inline(2, work, comes_back=False)
    spread(SHARDS, pool)
    assert pool.renewed == [1]
    assert sorted(shard.number for _, shard in done) == [1, 2, 3, 4, 5]


def test_workers_that_die_before_they_are_up_end_the_run() -> None:
    class Stillborn(Inline):
        def next(self) -> tuple[int, Shard | None, Exception | None]:
            return self.rising.popleft(), None, Lost("no such model")

    with pytest.raises(RunProblem, match=r"4 workers died before they were up \(no such model\)"):
        spread(SHARDS, Stillborn(1, lambda worker, shard: None))


def test_a_shard_whose_workers_keep_dying_ends_the_run() -> None:
    pool = Inline(2, lambda worker, shard: Lost("no memory") if shard == SHARDS[3] else None)
    with pytest.raises(RunProblem, match=r"4 workers died at shard 4-of-5 \(no memory\)"):
        spread(SHARDS, pool)
    assert len(pool.renewed) == DEATHS


def test_what_is_wrong_with_a_shard_ends_the_run() -> None:
    with pytest.raises(UsageError, match="No such"):
        spread(SHARDS, Inline(1, lambda worker, shard: UsageError("No such suite.", "See the list.")))


@pytest.mark.slow
def test_ray_asks_what_the_plain_audit_asks_though_worker_and_driver_are_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    tiny = tiny_vlm()
    for part in (tiny.model, tiny.processor):
        part.save_pretrained(tmp_path / "model")

    def command(out: str, *more: str) -> list[str]:
        common = ["--suite", "safety", "--limit", "24", "--max-new-tokens", "64", "--judge", "rules"]
        return [sys.executable, "-m", "vlmend", "audit", "model", *common, "--out", out, *more]

    assert subprocess.run(command("whole"), cwd=tmp_path, check=False).returncode == 0
    ray = command("parts", "--ray", "local", "--workers", "2")
    driver = _begun(ray, tmp_path / "parts")
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    driver = _begun(ray, tmp_path / "parts")
    below = psutil.Process(driver.pid).children(recursive=True)
    os.kill(next(one.pid for one in below if "_Worker" in " ".join(one.cmdline())), signal.SIGKILL)
    assert driver.wait() == 0
    assert read_samples(tmp_path / "parts") == read_samples(tmp_path / "whole")
    keys = [json.loads(line)["key"] for file in _journals(tmp_path / "parts") for line in file.open()]
    assert len(keys) == len(set(keys)) == sum(1 for _ in (tmp_path / "whole" / "replies.jsonl").open())


@pytest.mark.slow
def test_a_host_that_is_killed_and_does_not_come_back_loses_no_reply(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    tiny = tiny_vlm()
    for part in (tiny.model, tiny.processor):
        part.save_pretrained(tmp_path / "model")
    common = ["--suite", "safety", "--limit", "12", "--max-new-tokens", "64", "--judge", "rules"]
    command = [sys.executable, "-m", "vlmend", "audit", "model", *common]
    assert subprocess.run([*command, "--out", "whole"], cwd=tmp_path, check=False).returncode == 0
    with cluster(1, 1) as (address, nodes):
        driver = subprocess.Popen([*command, "--out", "parts", "--ray", address, "--workers", "2"], cwd=tmp_path)
        working: set[int] = set()
        while not working:  # both hosts have one, and its shard has replies
            assert driver.poll() is None, "it ended before a host could be killed"
            both = all(node.processes("_Worker.ask") for node in nodes)
            working = (
                {one.pid for one in nodes[1].processes("_Worker.ask")}
                if both and _replies(tmp_path / "parts")
                else set()
            )
            time.sleep(0.02)
        nodes[1].kill()
        assert driver.wait() == 0
    assert read_samples(tmp_path / "parts") == read_samples(tmp_path / "whole")
    keys = [json.loads(line)["key"] for file in _journals(tmp_path / "parts") for line in file.open()]
    assert len(keys) == len(set(keys)) == sum(1 for _ in (tmp_path / "whole" / "replies.jsonl").open())


def _begun(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    """An audit that has replies which were not there before."""
    before, driver = _replies(out), subprocess.Popen(command, cwd=out.parent)
    while _replies(out) == before:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    return driver


def _journals(out: Path) -> list[Path]:
    return sorted(out.glob("shards/*/replies.jsonl"))


def _replies(out: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in _journals(out))
