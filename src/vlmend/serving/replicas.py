"""Replicas of a model in Ray Serve: each loads it once, with all mends, and batches requests as a lone server does.

Ray Serve places them, replaces those that die, makes more or fewer of them, and picks one for each request. Its own
HTTP proxies stay off: the server in front (`app`) is one process of ours.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vlmend import errors
from vlmend.cluster import check_ray, joined, on_this_host, ray_itself, ray_serve, share_of
from vlmend.core.mend import Mend
from vlmend.errors import ModelProblem, RunProblem, UsageError, VlmendError
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target
from vlmend.registry import model_folder
from vlmend.serving.answering import Answering
from vlmend.serving.jobs import Answer
from vlmend.serving.limits import Limits, Refusal
from vlmend.serving.logs import logger
from vlmend.serving.pool import Asked, Heard, Lost
from vlmend.serving.proof import Shown
from vlmend.serving.settings import Scale
from vlmend.serving.views import views_of

__all__ = ["Opening", "RayFleet"]

AT_ONCE = 32
"""Requests that one replica holds; the others wait in front, for whichever has room first."""
TARGET = 8
"""Requests a replica for which the number of replicas is made more or less."""
WATCH_S, HEALTH_S = 2.0, 2.0
UNTOLD_S = 10.0
"""Without word of them for so long, replicas count as none."""
PLACED_S = 300.0
"""How long a replica may wait for a place where there seemed to be room."""
DEPLOYMENT = "model"
MARK = "vlmend-problem"


@dataclass(frozen=True)
class Opening:
    """How a replica comes to its views.

    Attributes:
        model: Its name, as on the command line.
        mends: By the name under which they are asked for.
        options: How to load it.
        base: Whether the model without mends can be asked for.
        folder: From which relative paths count.
    """

    model: str
    mends: Mapping[str, Mend] = field(default_factory=dict[str, Mend])
    options: LoadOptions = field(default_factory=LoadOptions)
    base: bool = True
    folder: str = "."


class Replica(Answering):
    """What runs in a replica's process: one model and its worker.

    Args:
        opening: Its views.
        most: Requests that it may hold.
        front: The actor that lives as long as the server in front.
        app: Name of the application in Ray Serve; it is ended when the server is gone.

    Raises:
        RuntimeError: The model or a mend cannot be served; the text holds which of our errors it was.
    """

    def __init__(self, opening: Opening, most: int, front: Any, app: str) -> None:
        with suppress(OSError):  # another host need not have it
            os.chdir(opening.folder)
        try:
            target = open_target(opening.model, opening.options, folder=model_folder(opening.model))
            served = views_of(target, opening.mends, base=opening.base)
        except VlmendError as problem:
            told = json.dumps([type(problem).__name__, problem.message, problem.hint])
            raise RuntimeError(f"{MARK} {told.encode().hex()}.") from problem
        logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.INFO)
        super().__init__(str(ray_serve().get_replica_context().replica_id.unique_id), served, most)
        threading.Thread(target=_watch, args=(front, app), daemon=True).start()


class Front:
    """An actor on the host of the server in front, which ends with it."""

    def here(self) -> None:
        """Answers while the server is there."""


class RayFleet:
    """Replicas as an application of Ray Serve, until it is closed or this process ends.

    Args:
        opening: Their views.
        limits: What the server takes.
        scale: How many; one for each GPU of the cluster unless given, or for each host where there are none.
        address: Of the cluster, as `cluster.joined` takes it; this host must be one of it.

    Raises:
        MissingExtra: Ray Serve is not installed.
        RunProblem: No cluster answers, or it has no room for them.
        VlmendError: What is wrong with the model or a mend.
    """

    def __init__(self, opening: Opening, limits: Limits, scale: Scale | None, address: str) -> None:
        check_ray(serve=True)
        if address.startswith("ray://"):
            raise UsageError(
                f"{address} is Ray's address for guests, through which replies do not stream.",
                "Serve on a host of the cluster: --ray auto, or --ray HOST:6379.",
            )
        self._app, self._alive, self._closed = f"vlmend-{uuid.uuid4().hex[:8]}", 0, threading.Event()
        self._ray = joined(address, scale.most if scale else 1)
        self._serve = ray_serve()
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            self._begin(opening, limits, scale)
            self.shown: list[Shown] = self._handle.shown.remote().result()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._look, daemon=True, name="vlmend-replicas").start()

    async def ask(self, asked: Asked) -> AsyncGenerator[Heard, None]:
        """What some replica says of a request.

        Raises:
            Lost: It died.
        """
        kinds, ended = self._ray.exceptions, False
        response = self._handle.options(stream=True).ask.remote(asked)
        try:
            async for one in response:
                ended = isinstance(one.told, Answer | Refusal)
                yield one
            ended = True
        except kinds.RayTaskError:  # a bug of ours over there
            raise
        except (kinds.RayError, self._serve.exceptions.RayServeException) as problem:
            raise Lost(type(problem).__name__) from problem
        finally:
            if not ended:
                response.cancel()

    def alive(self) -> int:
        """How many answer, as Ray Serve said in the last seconds."""
        return self._alive

    def close(self) -> None:
        """End the replicas, and a cluster that is this process's own."""
        self._closed.set()
        with suppress(Exception):  # the cluster may be gone
            self._serve.delete(self._app, _blocking=False)
        self._ray.shutdown()

    def _begin(self, opening: Opening, limits: Limits, scale: Scale | None) -> None:
        """Have Ray Serve start them, and wait for the first so many."""
        ray, serve = self._ray, self._serve
        has, device = ray.cluster_resources(), opening.options.device
        gpu = device.startswith("cuda") or (not device and bool(has.get("GPU")))
        alive = [node for node in ray.nodes() if node["Alive"]]
        count = int(has.get("GPU", 0)) if gpu else len(alive)
        scale = scale or Scale(max(1, count), max(1, count))
        free, pinned = ray.available_resources(), on_this_host()
        share = share_of(alive, scale.most, gpu=gpu)
        if "num_cpus" in share:  # others may hold some of them
            share["num_cpus"] = max(1, min(share["num_cpus"], int(free.get("CPU", 0)) // scale.most))
        self._front = ray.remote(Front).options(num_cpus=0, max_restarts=-1, scheduling_strategy=pinned).remote()
        many: dict[str, Any] = {"num_replicas": scale.least}
        if scale.most > scale.least:
            grown = {"min_replicas": scale.least, "max_replicas": scale.most, "target_ongoing_requests": TARGET}
            many = {"autoscaling_config": grown}
        made = serve.deployment(Replica, name=DEPLOYMENT).options(
            ray_actor_options=share, max_ongoing_requests=AT_ONCE, health_check_period_s=HEALTH_S,
            graceful_shutdown_timeout_s=limits.timeout_s, logging_config={"enable_access_log": False}, **many,
        )  # fmt: skip
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(
            made.bind(opening, limits.held, self._front, self._app), name=self._app, route_prefix=None
        )
        (self._handle,) = serve.run_many([target], wait_for_applications_running=False)
        self._wait(scale, share, has, free)

    def _wait(
        self, scale: Scale, share: Mapping[str, int], has: Mapping[str, float], free: Mapping[str, float]
    ) -> None:
        """Until the application runs.

        Raises:
            RunProblem: The cluster has no room now, or replicas end.
            VlmendError: What is wrong with the model or a mend.
        """
        room = all(free.get(kind, 0) >= scale.least * count for kind, count in _kinds(share).items())
        began = time.monotonic()
        while True:
            app = self._serve.status().applications[self._app]
            told = "\n".join([app.message, *(one.message for one in app.deployments.values())])
            if app.status == "RUNNING":
                self._count()
                return
            if found := re.search(rf"{MARK} ([0-9a-f]+)\.", told):
                raise _problem(found[1])
            if app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise RunProblem(
                    f"The replicas do not start ({errors.cause_of(RuntimeError(told))}).", "See Ray's logs."
                )
            if "to be scheduled" in told and (not room or time.monotonic() - began > PLACED_S):
                raise RunProblem(
                    f"Each of {scale.least} replicas asks for {_shown(_kinds(share))}; of the cluster's "
                    f"{_shown(has)} {_shown(free)} were free.",
                    "Wait until others have ended, or ask for fewer: --replicas.",
                )
            time.sleep(0.2)

    def _look(self) -> None:
        told = time.monotonic()
        while not self._closed.wait(1.0):
            with suppress(Exception):  # the controller may be on its way back
                self._count()
                told = time.monotonic()
            if time.monotonic() - told > UNTOLD_S:
                self._alive = 0

    def _count(self) -> None:
        found = self._serve.status().applications.get(self._app)
        states = found.deployments[DEPLOYMENT].replica_states if found else {}
        self._alive = sum(count for state, count in states.items() if state == "RUNNING")


def _watch(front: Any, app: str) -> None:
    """End the application when the server in front is gone, however it ended."""
    ray = ray_itself()
    while True:
        time.sleep(WATCH_S)
        try:
            ray.get(front.here.remote(), timeout=60)
        except ray.exceptions.ActorDiedError:
            with suppress(Exception):  # another replica may have done it
                ray_serve().delete(app, _blocking=False)
            return
        except Exception:  # a host that cannot be reached for a moment
            continue


def _problem(told: str) -> VlmendError:
    """One of our errors that a replica met."""
    name, message, hint = json.loads(bytes.fromhex(told))
    kind = getattr(errors, name, ModelProblem)
    return kind(message, hint) if kind.__init__ is VlmendError.__init__ else ModelProblem(message, hint)


def _kinds(share: Mapping[str, int]) -> dict[str, int]:
    """Options of a Ray actor as kinds of resources."""
    return {{"num_cpus": "CPU", "num_gpus": "GPU"}[option]: count for option, count in share.items()}


def _shown(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs of some resources."""
    return (
        " and ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU") if kind in resources) or "0 CPUs"
    )
