"""Hosts of a Ray cluster, all on this machine: each a raylet with its own workers and its own share of CPUs."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Node:
    """One host; `begun` is what holds its processes."""

    begun: subprocess.Popen[bytes]

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Its processes, or those whose command line holds a word."""
        found: list[psutil.Process] = []
        for one in [psutil.Process(self.begun.pid), *psutil.Process(self.begun.pid).children(recursive=True)]:
            with suppress(psutil.Error):
                found += [one] if word in " ".join(one.cmdline()) else []
        return found

    def kill(self) -> None:
        """As when the power goes."""
        for one in self.processes() if self.begun.poll() is None else []:
            with suppress(psutil.Error):
                one.kill()
        self.begun.wait()


@contextmanager
def cluster(*cpus: int) -> Iterator[tuple[str, Sequence[Node]]]:
    """Address and hosts of a cluster, the head first; host k has `cpus[k]` CPUs. Who joins it knows its token."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    port = free_port()
    address = f"127.0.0.1:{port}"
    nodes: list[Node] = []
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    try:
        for count in cpus:
            role = [f"--address={address}"] if nodes else ["--head", f"--port={port}", "--include-dashboard=false"]
            command = [*ray, *role, f"--num-cpus={count}", "--node-ip-address=127.0.0.1"]
            nodes.append(Node(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)))
            _answers(nodes[-1], port)
        yield address, nodes
    finally:
        for node in reversed(nodes):
            node.kill()
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            del os.environ[name]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _answers(node: Node, port: int) -> None:
    until = time.monotonic() + 120
    while not node.processes("raylet/raylet"):
        assert node.begun.poll() is None, "it ended"
        assert time.monotonic() < until
        time.sleep(0.2)
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert time.monotonic() < until
        time.sleep(0.2)
