"""Files that hold a secret: read only where nobody else can read them."""

from __future__ import annotations

import stat
from pathlib import Path

from vlmend.errors import UsageError

__all__ = ["read_secret"]


def read_secret(file: Path, how: str, least: int = 1) -> bytes:
    """The content of a secret file.

    Args:
        file: Its place.
        how: What to do where there is none, said in every error.
        least: Bytes; a shorter secret could be guessed.

    Raises:
        UsageError: It cannot be read, others may read it, or it is too short.
    """
    try:
        mode, content = file.stat().st_mode, file.read_bytes()
    except OSError as problem:
        raise UsageError(f"The key {file} cannot be read ({problem.strerror or problem}).", how) from problem
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"The key {file} may be read by others.", f"chmod 600 {file}, or make a new one.")
    if len(content) < least:
        raise UsageError(f"The key {file} holds {len(content)} bytes: it could be guessed.", how)
    return content
