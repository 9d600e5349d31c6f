"""Where phantoms are kept: one folder for each, made once, in the user's cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from vlmend.errors import EnvironmentProblem

__all__ = ["cache_folder", "kept_folder"]


def cache_folder() -> Path:
    """`$VLMEND_CACHE`, or `vlmend` in the user's cache folder."""
    if chosen := os.environ.get("VLMEND_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlmend"


def kept_folder(name: str, make: Callable[[Path], Path], room: str) -> Path:
    """The folder of that name in the cache, made on first use; who asks meanwhile waits for it.

    Args:
        name: Of the folder; it holds a digest of all that the folder is made from.
        make: Fills the folder that it is given and returns it or one inside it, which is kept. It gets the same
            folder again when it was stopped before, with what it had left there.
        room: What it takes on the disk ("40 MB").

    Raises:
        EnvironmentProblem: It cannot be written.
    """
    folder = cache_folder() / name
    if folder.exists():
        return folder
    building = folder.with_name(f"{name}.building")
    try:
        building.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not folder.exists():
                make(building).replace(folder)
            shutil.rmtree(building, ignore_errors=True)
    except OSError as problem:
        raise EnvironmentProblem(
            f"{name} cannot be put together in {folder.parent} ({problem}).",
            f"It needs {room} there; set VLMEND_CACHE to a folder with room. What was begun is in {building}.",
        ) from problem
    return folder
