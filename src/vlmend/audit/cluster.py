"""The shards of an audit over the workers of a Ray cluster: one loaded model a worker.

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
from pathlib import Path
from typing import Any, Protocol

from vlmend.audit.plan import Plan, default_suites
from vlmend.audit.sharding import Shard, ask_shard, shards_folder, wait_until_free
from vlmend.cluster import LOCAL, check_ray, joined, share_of
from vlmend.core.files import held
from vlmend.core.mend import Mend
from vlmend.core.targets import Target
from vlmend.errors import RunProblem, VlmendError
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target
from vlmend.registry import model_folder

__all__ = ["Lost", "Opening", "Pool", "ask_on_ray", "spread"]

SHARES = 4
"""Shards for each worker, so that none waits long for the last."""
DEATHS = 3
"""How often the workers of one shard may die."""
PATIENCE_S = 60.0
"""How long the workers of a driver or a host that was killed may take to end."""
START_S = 1800.0
"""How long to wait for a first worker: it loads a model."""

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

    def next(self) -> tuple[int, Shard | None, Exception | None]:
        """Wait for news of some worker: its shard is done, or, without a shard, it is up; `Lost` where it died."""
        ...

    def renew(self, worker: int) -> None:
        """Another worker in the place of one that died; it may be up late, or never."""
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
    waiting, deaths, done = deque(shards), Counter[Shard | None](), 0
    free, busy = deque[int](), 0
    progress("shards", 0, len(shards))
    while waiting or busy:
        while waiting and free:
            pool.give(free.popleft(), waiting.popleft())
            busy += 1
        worker, shard, problem = pool.next()
        busy -= shard is not None
        if isinstance(problem, Lost):
            deaths[shard] += 1
            _check_deaths(shard, deaths[shard], problem)
            pool.renew(worker)
            waiting += [] if shard is None else [shard]
        elif problem is not None:
            raise problem
        else:
            free.append(worker)
            done += shard is not None
            progress("shards", done, len(shards))


def _check_deaths(shard: Shard | None, deaths: int, problem: Lost) -> None:
    if deaths > DEATHS:
        where = "before they were up" if shard is None else f"at shard {shard.name}"
        raise RunProblem(
            f"{deaths} workers died {where} ({problem}).",
            "Look at their memory; then run the same command again: what is finished is kept.",
        )


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

    def up(self) -> None:
        """Answers once the model is loaded."""

    def ask(self, shard: Shard) -> str:
        """What is wrong, or nothing."""
        try:
            wait_until_free(self._out, PATIENCE_S, shard)  # the worker before may be on its way out
            ask_shard(self._target, self._plan, self._out, shard)
        except VlmendError as problem:
            return f"{problem.message} {problem.hint}"
        return ""


class _RayPool:
    """Actors of a Ray cluster."""

    def __init__(self, opening: Opening, plan: Plan, out: Path, address: str, workers: int | None) -> None:
        self._ray = ray = joined(address, workers or 1)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        self.size = workers or gpus or sum(bool(node["Alive"]) for node in ray.nodes())
        self._share = share_of(ray.nodes(), self.size, gpu=bool(gpus))
        made = ray.remote(_Worker).options(**self._share)
        given = ray.put((opening, plan, out))
        self._make = lambda: made.remote(*ray.get(given))
        self._running: dict[Any, tuple[int, Shard | None]] = {}
        self._actors: dict[int, Any] = {}
        for worker in range(self.size):
            self.renew(worker)

    def give(self, worker: int, shard: Shard) -> None:
        self._running[self._actors[worker].ask.remote(shard)] = worker, shard

    def next(self) -> tuple[int, Shard | None, Exception | None]:
        asking = any(shard for _, shard in self._running.values())
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=None if asking else START_S)
        if not ended:
            raise RunProblem(
                f"No worker was up within {START_S / 60:g} minutes; each asks for {self._share}.",
                "See what the cluster has free (ray status); then run the same command again.",
            )
        worker, shard = self._running.pop(ended[0])
        try:
            told = self._ray.get(ended[0])
        except self._ray.exceptions.RayActorError as problem:
            first, *_, last = [*str(problem).strip().splitlines(), ""]
            return worker, shard, Lost(f"{first} {last}" if "creation task" in first else first)
        except self._ray.exceptions.RayTaskError as problem:
            cause = f"{type(problem.cause).__name__}: {problem.cause}"
            where, hint = (shard.name, "Run one shard alone: --shard.") if shard else ("none", "See Ray's logs.")
            return worker, shard, RunProblem(f"Shard {where} failed ({cause}).", hint)
        return worker, shard, RunProblem(f"Shard {shard.name}: {told}", "") if told and shard else None

    def renew(self, worker: int) -> None:
        self._actors[worker] = self._make()
        self._running[self._actors[worker].up.remote()] = worker, None

    def close(self) -> None:
        """End the workers, and a cluster that is the run's own."""
        self._ray.shutdown()
