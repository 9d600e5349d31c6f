"""The hub, where it does not answer: no minute of retries and no page of warnings before a message."""

from __future__ import annotations

import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

__all__ = ["without_a_silent_hub"]

PATIENCE_S = 3.0


@contextmanager
def without_a_silent_hub(model: str | Path) -> Generator[None]:
    """Inside the block, a hub that cannot be reached is not asked: what is in the cache is read, the rest is missing.

    Args:
        model: What is loaded; nothing is tried for a folder.
    """
    log, before = logging.getLogger("huggingface_hub"), constants.HF_HUB_OFFLINE
    level = log.level
    log.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = before or not (Path(model).exists() or _answers())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        log.setLevel(level)


def _answers() -> bool:
    """Whether a connection to the hub can be opened; taken for granted where a proxy stands between."""
    place = urlsplit(constants.ENDPOINT)
    if getproxies() or not place.hostname:
        return True
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        with socket.create_connection((place.hostname, port), timeout=PATIENCE_S):
            return True
    except OSError:
        return False
