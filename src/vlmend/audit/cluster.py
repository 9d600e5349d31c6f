"""The shards of an audit over the workers of a Ray cluster: one loaded model a worker. Ray is known here alone.

Each worker asks its shard into the shard's own journal (`sharding`), so one that is killed loses the batch on its way:
its shard goes to a new worker. The driver asks nothing. Every host sees the run folder, the data and the model under
the same paths.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vlmend.audit.plan import Plan, default_suites
from vlmend.audit.sharding import Shard, ask_shard, shards_folder, wait_until_free
from vlmend.core.files import held
from vlmend.core.mend import Mend
from vlmend.core.targets import Target
from vlmend.errors import MissingExtra, RunProblem, VlmendError
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target
from vlmend.registry import model_folder

__all__ = ["LOCAL", "Lost", "Opening", "Pool", "ask_on_ray", "check_ray", "spread"]

LOCAL = "local"
"""Address of a cluster on this machine that lives as long as the run."""
SHARES = 4
"""Shards for each worker, so that none waits long for the last."""
DEATHS = 3
"""How often the workers of one shard may die."""
PATIENCE_S = 60.0
"""How long the workers of a driver that was killed may take to end."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Opening:
    """How a worker comes to its model.

    Attributes:
        model: Its name, as on the command line.
        mends: Put on it in this order.
        options: How to load it.
        api_base: Address of an API model.
        folder: From which relative paths count.
    """

    model: str
    mends: Sequence[Mend] = ()
    options: LoadOptions = field(default_factory=LoadOptions)
    api_base: str | None = None
    folder: str = "."

    def opened(self, plan: Plan) -> tuple[Target, Plan]:
        """The model under its mends, and the plan with the suites of its kind where it names none."""
        target = open_target(self.model, self.options, self.api_base, folder=model_folder(self.model))
        for mend in self.mends:
            target = target.with_mend(mend)
        return target, plan if plan.suites else replace(plan, suites=default_suites(target.kind))


class Lost(Exception):
    """A worker that died at its shard."""


class Pool(Protocol):
    """Workers, by number; each does one shard at a time."""

    size: int

    def give(self, worker: int, shard: Shard) -> None:
        """Have a worker that is free do a shard."""
        ...

    def next(self) -> tuple[int, Shard, Exception | None]:
        """Wait until some worker ends: which, its shard, and what went wrong; `Lost` where the worker died."""
        ...

    def renew(self, worker: int) -> None:
        """Another worker in the place of one that died."""
        ...


def spread(shards: Sequence[Shard], pool: Pool, progress: Progress = lambda step, done, total: None) -> None:
    """Have every shard done; one whose worker died is given to the next that is free.

    Args:
        shards: In the order in which they are begun.
        pool: Who does them.
        progress: Called with (`shards`, done, total).

    Raises:
        RunProblem: The workers of a shard keep dying.
        VlmendError: What went wrong with a shard; those that are done stay done.
    """
    waiting, deaths, done = deque(shards), Counter[Shard](), 0
    free, busy = deque(range(pool.size)), 0
    progress("shards", 0, len(shards))
    while waiting or busy:
        while waiting and free:
            pool.give(free.popleft(), waiting.popleft())
            busy += 1
        worker, shard, problem = pool.next()
        busy -= 1
        free.append(worker)
        if isinstance(problem, Lost):
            deaths[shard] += 1
            if deaths[shard] > DEATHS:
                raise RunProblem(
                    f"{deaths[shard]} workers died at shard {shard.name} ({problem}).",
                    "Look at their memory; then run the same command again: what is finished is kept.",
                )
            pool.renew(worker)
            waiting.append(shard)
        elif problem is not None:
            raise problem
        else:
            done += 1
            progress("shards", done, len(shards))


def check_ray() -> None:
    """
    Raises:
        MissingExtra: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise MissingExtra("Workers on a cluster need Ray.", "Run: pip install 'vlmend[ray]'")


def ask_on_ray(
    opening: Opening, plan: Plan, out: Path, address: str = LOCAL, workers: int | None = None,
    progress: Progress = lambda step, done, total: None,
) -> None:  # fmt: skip
    """Ask all of an audit on a cluster; `run.audit` of the same folder then makes the scorecard of what is there.

    Args:
        opening: The model, its mends.
        plan: What to ask; its data is a line of text, or None.
        out: The run folder.
        address: `local`, or that of a cluster as `ray.init` takes it (`auto`, `ray://HOST:10001`).
        workers: How many; one for each GPU of the cluster unless given, or for each host where there are none.
        progress: Called with (`shards`, done, total).

    Raises:
        MissingExtra: Ray is not installed.
        RunProblem: Another driver is at work, or workers keep dying.
        VlmendError: What went wrong with a shard.
    """
    check_ray()
    place = out.resolve()
    with held(shards_folder(place)):
        wait_until_free(place, PATIENCE_S)
        pool = _RayPool(opening, plan, place, address, workers)
        try:
            count = SHARES * pool.size
            spread([Shard(k + 1, count) for k in range(count)], pool, progress)
        finally:
            pool.close()


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, opening: Opening, plan: Plan, out: Path) -> None:
        with suppress(OSError):  # another host need not have it
            os.chdir(opening.folder)
        self._target, self._plan, self._out = *opening.opened(plan), out

    def ask(self, shard: Shard) -> str:
        """What is wrong, or nothing."""
        try:
            ask_shard(self._target, self._plan, self._out, shard)
        except VlmendError as problem:
            return f"{problem.message} {problem.hint}"
        return ""


class _RayPool:
    """Actors of a Ray cluster."""

    def __init__(self, opening: Opening, plan: Plan, out: Path, address: str, workers: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray: Any = import_module("ray")
        ray = self._ray
        local = {"num_cpus": max(workers or 1, os.cpu_count() or 1), "include_dashboard": False}
        ray.init(**(local if address == LOCAL else {"address": address}), log_to_driver=False)
        has = ray.cluster_resources()
        gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 1))
        self.size = workers or gpus or len(ray.nodes())
        share = {"num_gpus": 1} if gpus else {"num_cpus": max(1, cpus // self.size)}
        made = ray.remote(_Worker).options(**share)
        given = ray.put((opening, plan, out))
        self._make = lambda: made.remote(*ray.get(given))
        self._actors = [self._make() for _ in range(self.size)]
        self._running: dict[Any, tuple[int, Shard]] = {}

    def give(self, worker: int, shard: Shard) -> None:
        self._running[self._actors[worker].ask.remote(shard)] = worker, shard

    def next(self) -> tuple[int, Shard, Exception | None]:
        (ended,), _ = self._ray.wait(list(self._running), num_returns=1)
        worker, shard = self._running.pop(ended)
        try:
            told = self._ray.get(ended)
        except self._ray.exceptions.RayActorError as problem:
            return worker, shard, Lost(str(problem).partition("\n")[0])
        except self._ray.exceptions.RayTaskError as problem:
            cause = f"{type(problem.cause).__name__}: {problem.cause}"
            return worker, shard, RunProblem(f"Shard {shard.name} failed ({cause}).", "Run one shard alone: --shard.")
        return worker, shard, RunProblem(f"Shard {shard.name}: {told}", "") if told else None

    def renew(self, worker: int) -> None:
        self._actors[worker] = self._make()

    def close(self) -> None:
        """End the workers, and a cluster that is the run's own."""
        self._ray.shutdown()
