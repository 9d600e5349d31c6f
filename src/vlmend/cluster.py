"""Joining a Ray cluster, and what of it one process gets. Ray is met here alone."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from vlmend.errors import MissingExtra, RunProblem, cause_of

__all__ = ["LOCAL", "check_ray", "joined", "on_this_host", "ray_itself", "ray_serve", "share_of"]

LOCAL = "local"
"""Address of a cluster on this machine that lives as long as the process that made it."""
REACH_S = 5.0


def check_ray(*, serve: bool = False) -> None:
    """
    Args:
        serve: Whether Ray Serve is needed too.

    Raises:
        MissingExtra: Ray is not installed.
    """
    needed = ("ray", "aiohttp") if serve else ("ray",)  # without aiohttp ray.serve cannot be imported
    if missing := [name for name in needed if find_spec(name) is None]:
        what = "Workers on a cluster need Ray" + (" Serve" if serve else "")
        raise MissingExtra(f"{what} ({missing[0]} is not installed).", "Run: pip install 'vlmend[ray]'")


def joined(address: str, cpus: int = 1) -> Any:
    """Ray itself, joined to a cluster.

    Args:
        address: `local`, or that of a cluster as `ray.init` takes it (`auto`, `HOST:6379`, `ray://HOST:10001`).
        cpus: What a cluster of this machine shall pretend to have at least.

    Raises:
        MissingExtra: Ray is not installed.
        RunProblem: No cluster answers there.
    """
    check_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = ray_itself()
    if address == LOCAL:
        ray.init(LOCAL, num_cpus=max(cpus, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
        return ray
    try:
        if found := re.fullmatch(r"(?:ray://)?\[?([^\]/]+?)\]?:(\d+)", address):
            socket.create_connection((found[1], int(found[2])), REACH_S).close()
        ray.init(address=address, log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as problem:
        raise RunProblem(
            f"No Ray cluster answers at {address} ({cause_of(problem)}).",
            "Start one (ray start --head) and give its address, or auto on one of its hosts; --ray local needs none.",
        ) from problem
    return ray


def ray_itself() -> Any:
    """The module `ray`."""
    return import_module("ray")


def on_this_host() -> Any:
    """A strategy of Ray that keeps an actor on the host of this process."""
    kinds = import_module("ray.util.scheduling_strategies")
    return kinds.NodeAffinitySchedulingStrategy(ray_itself().get_runtime_context().get_node_id(), soft=False)


def ray_serve() -> Any:
    """The module `ray.serve`."""
    return import_module("ray.serve")


def share_of(nodes: Iterable[Mapping[str, Any]], places: int, *, gpu: bool) -> dict[str, int]:
    """What each of so many processes may ask for, as options of a Ray actor: a GPU, or as many CPUs as go around.

    Args:
        nodes: Of the cluster, as `ray.nodes` tells them.
        places: How many processes.
        gpu: Whether each needs a GPU.

    Raises:
        RunProblem: They do not go around.
    """
    kind, what = ("GPU", "GPUs") if gpu else ("CPU", "CPUs")
    counts = [int(node["Resources"].get(kind, 0)) for node in nodes if node["Alive"]]
    fitting = [share for share in range(1, max(counts, default=0) + 1) if sum(n // share for n in counts) >= places]
    if not fitting:
        raise RunProblem(
            f"{places} processes of one {kind} each were asked for, and the cluster has {sum(counts)} {what} on "
            f"{len(counts)} hosts.",
            "Ask for fewer, or add hosts: ray start --address=HEAD:6379.",
        )
    return {"num_gpus": 1} if gpu else {"num_cpus": max(fitting)}
