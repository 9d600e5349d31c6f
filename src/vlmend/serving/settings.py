"""How a model is served: read and checked before anything is loaded."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from vlmend.cluster import check_ray
from vlmend.core.secrets import read_secret
from vlmend.errors import BadParameter, MissingExtra, UsageError
from vlmend.serving.limits import Limits

__all__ = ["Scale", "Settings", "check_replicas", "named_mends", "read_keys"]

LEAST_KEY = 16


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        host, port: Where; port 0 takes any free one.
        keys: Any of them opens; none are asked for on this machine alone.
        limits: What is taken.
        base: Whether the model without mends can be asked for.
        remote_images: Whether pictures are fetched from public addresses.
        log_words: Whether requests and replies go into the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[bytes, ...] = ()
    limits: Limits = field(default_factory=Limits)
    base: bool = True
    remote_images: bool = False
    log_words: bool = False

    def check(self) -> None:
        """
        Raises:
            UsageError: Others could ask without a key.
            MissingExtra: A library of the extra `serve` is not installed.
        """
        if not self.keys and not _loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached by others, and no key is asked for.",
                "Give --api-key-file, or listen on 127.0.0.1.",
            )
        missing = [name for name in ("fastapi", "prometheus_client") if find_spec(name) is None]
        if missing:
            raise MissingExtra(f"Serving needs {' and '.join(missing)}.", "Run: pip install 'vlmend[serve]'")


@dataclass(frozen=True)
class Scale:
    """How many replicas: from `least` to `most`."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Scale:
        """`4` are four, `1-4` one to four as requests come.

        Raises:
            BadParameter: It is no such number.
        """
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= least <= most:
            raise BadParameter(f"{text!r} is no number of replicas.", "Write 4 for four, 1-4 for one to four.")
        return cls(least, most)


def check_replicas(ray: str, replicas: str | None) -> Scale | None:
    """How many replicas were asked for; None leaves it to the cluster.

    Raises:
        BadParameter: It is no number, or is told without a cluster.
        MissingExtra: Ray Serve is not installed.
    """
    if replicas is not None and not ray:
        raise BadParameter("--replicas is told without --ray.", "Give --ray local too, or leave it out.")
    scale = None if replicas is None else Scale.parse(replicas)
    if ray:
        check_ray(serve=True)
    return scale


def named_mends(folders: list[str]) -> dict[str, Path]:
    """`DIR` under the folder's own name, or `NAME=DIR`.

    Raises:
        UsageError: Two have one name, or a name that cannot be asked for.
    """
    found: dict[str, Path] = {}
    for text in folders:
        name, given, folder = text.partition("=")
        place = Path(folder if given else text)
        name = name if given else place.resolve().name
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,60}", name):
            raise UsageError(
                f"{name!r} is no name to ask for.", "Write --mend NAME=DIR, letters, digits and ._- alone."
            )
        if name in found:
            raise UsageError(f"Two mends are called {name}.", "Give one another name: --mend NAME=DIR.")
        found[name] = place
    return found


def read_keys(file: Path) -> tuple[bytes, ...]:
    """The keys of a file, one a line.

    Raises:
        UsageError: It is not there, others may read it, or a key could be guessed.
    """
    how = f"Make one: (umask 077; openssl rand -hex 32 > {file})."
    keys = tuple(line.strip() for line in read_secret(file, how, LEAST_KEY).splitlines() if line.strip())
    if any(len(key) < LEAST_KEY or not key.isascii() or b" " in key for key in keys) or not keys:
        raise UsageError(f"{file} holds a line that is no key of {LEAST_KEY} letters or more.", how)
    return keys


def _loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
