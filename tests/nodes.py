"""Hosts of a Ray cluster, all on this machine: each a raylet with its own workers and its own share of CPUs."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
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
    apart = ["--min-worker-port=0", "--max-worker-port=0", "--node-ip-address=127.0.0.1"]  # hosts of one machine
    try:
        for count in cpus:
            role = [f"--address={address}"] if nodes else ["--head", f"--port={port}", "--include-dashboard=false"]
            command = [*ray, *role, *apart, f"--dashboard-agent-listen-port={free_port()}", f"--num-cpus={count}"]
            nodes.append(Node(subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)))
            _up(nodes[-1])
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


def _up(node: Node) -> None:
    assert node.begun.stdout is not None
    said = b""
    while b"Ray runtime started" not in said:
        line = node.begun.stdout.readline()
        assert line, f"it ended: {said.decode()}"
        said += line
