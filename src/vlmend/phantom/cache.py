"""Where phantoms are kept: one folder for each, made once, in the user's cache, with the digests of its files."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock

from vlmend.core.files import read_json, write_json
from vlmend.errors import EnvironmentProblem

__all__ = ["cache_folder", "kept_folder"]

log = logging.getLogger(__name__)

DIGESTS = "digests.json"
"""SHA-256 of every other file of the folder, by name."""


def cache_folder() -> Path:
    """`$VLMEND_CACHE`, or `vlmend` in the user's cache folder."""
    if chosen := os.environ.get("VLMEND_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlmend"


def kept_folder(name: str, make: Callable[[Path], Path], room: str) -> Path:
    """The folder of that name in the cache, made on first use; who asks meanwhile waits for it.

    One whose files are not those that were written is made anew, which is said.

    Args:
        name: Of the folder; it holds a digest of all that the folder is made from.
        make: Fills the folder that it is given and returns it or one inside it, which is kept. It gets the same
            folder again when it was stopped before, with what it had left there.
        room: What it takes on the disk ("40 MB").

    Raises:
        EnvironmentProblem: It cannot be written.
    """
    folder = cache_folder() / name
    if folder.exists() and _whole(folder):
        return folder
    building = folder.with_name(f"{name}.building")
    try:
        building.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if folder.exists() and not _whole(folder):
                shutil.rmtree(folder)
            if not folder.exists():
                made = make(building)
                write_json(made / DIGESTS, _digests(made))
                made.replace(folder)
                _whole.cache_clear()
            shutil.rmtree(building, ignore_errors=True)
    except OSError as problem:
        raise EnvironmentProblem(
            f"{name} cannot be put together in {folder.parent} ({problem}).",
            f"It needs {room} there; set VLMEND_CACHE to a folder with room. What was begun is in {building}.",
        ) from problem
    return folder


@cache
def _whole(folder: Path) -> bool:
    """Whether the files of a folder are as they were written, looked up once; of folders of before it is not known."""
    told = read_json(folder / DIGESTS)
    if told is None:
        return not (folder / DIGESTS).exists()
    found = _digests(folder)
    changed = sorted(name for name, digest in told.items() if found.get(name) != digest)
    if changed:
        log.warning("%s was changed since it was put together (%s); it is put together again.", folder, changed[0])
    return not changed


def _digests(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name != DIGESTS:
            with file.open("rb") as held:
                found[file.name] = hashlib.file_digest(held, "sha256").hexdigest()
    return found
