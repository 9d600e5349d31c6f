"""The one way to write a file, and to read it back.

A file is written beside its place, synced to disk and then renamed: whoever reads it sees the old content or the new
one, whatever ends the process in between. Lines are appended whole or not at all. Requests and replies can be harmful,
so only their owner may read what is written, unless it is meant for others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock, Timeout

from vlmend.core.jsontext import summed, to_json, unsummed
from vlmend.errors import RunProblem

__all__ = [
    "SHARED", "append", "check_writable", "held", "make_folder", "plain_name", "read_json", "replacing", "write_file",
    "write_json", "write_together",
]  # fmt: skip

log = logging.getLogger(__name__)

PRIVATE, FOLDER = 0o600, 0o700
"""Who may read and write a file or a folder: the owner alone."""
SHARED = 0o666
"""As the user's own setting has it (umask): for what holds no requests or replies and is made for others."""


def plain_name(name: str) -> str:
    """A name as that of a folder; another name gives another folder."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner can open, unless it is there.

    Raises:
        RunProblem: It cannot be made.
    """
    with _told(folder):
        folder.mkdir(FOLDER, parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse a place in which no folder can be made, before any work is done for it; nothing is written.

    Raises:
        RunProblem: It is a file, or lies below one or in a folder that may not be changed.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise RunProblem(f"{folder} cannot be written: {there} is a file.", "Choose another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunProblem(f"{folder} cannot be written: {there} may not be changed by you.", "Choose another place.")


@contextmanager
def held(folder: Path, name: str = ".lock") -> Generator[None]:
    """Hold a folder for this process; the system lets go of it when the process dies, however it dies.

    Args:
        folder: It is made.
        name: Of the lock file, where a part of the folder is held.

    Raises:
        RunProblem: Another process holds it, or it cannot be written.
    """
    make_folder(folder)
    lock = FileLock(folder / name, timeout=0, mode=PRIVATE)
    with _told(folder):
        try:
            lock.acquire()
        except Timeout as problem:
            raise RunProblem(
                f"Another process is working in {folder}.", "Wait for it, or choose another --out."
            ) from problem
    try:
        yield
    finally:
        lock.release()


def write_file(file: Path, content: str | bytes, *, mode: int = PRIVATE, sync: bool = True) -> None:
    """Write a file whole or not at all; its folder is made.

    Args:
        file: Its place.
        content: All of it.
        mode: Who may read it.
        sync: Wait until the disk has it. Without, a power cut may lose it: for one of many that can be made again.

    Raises:
        RunProblem: It cannot be written; what was there is as it was.
    """
    with replacing(file, mode=mode, sync=sync) as out:
        out.write(content.encode() if isinstance(content, str) else content)


def write_json(file: Path, content: Any) -> None:
    """Write JSON values, null for numbers that JSON has not; values by name with a sum of all.

    Raises:
        RunProblem: It cannot be written; what was there is as it was.
    """
    held = summed(cast("dict[str, Any]", content)) if isinstance(content, dict) else content
    write_file(file, to_json(held, indent=2) + "\n")


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all are on the disk before the first of them takes its place.

    Raises:
        RunProblem: One cannot be written; then all are as they were.
    """
    with ExitStack() as stack:
        made: dict[Path, Path] = {}
        for file, content in contents.items():
            made[file], out = stack.enter_context(_beside(file))
            out.write(content)
            _sync(out)
        for file, new in made.items():
            new.replace(file)


@contextmanager
def replacing(file: Path, *, mode: int = PRIVATE, sync: bool = True) -> Generator[BinaryIO]:
    """What is written to the block's file takes its place when the block ends without an error.

    A place that is no file on a disk (a terminal, a pipe) is written to as it is.

    Raises:
        RunProblem: It cannot be written; what was there is as it was.
    """
    with _told(file):
        if file.exists() and not file.is_file():
            with file.open("wb") as out:
                yield out
            return
        place = file.resolve()
        with _beside(place, mode) as (new, out):
            yield out
            out.flush()
            if sync:
                _sync(out)
            new.replace(place)


def append(file: Path, text: str, *, mode: int = PRIVATE, sync: bool = True) -> None:
    """Append whole lines; what a full disk took of them is cut off again, so that the next ones begin on their own.

    Args:
        file: Made where it is not there.
        text: One or more lines with their ends.
        mode: Who may read the file, where it is made.
        sync: Wait until the disk has them. Without, a power cut may lose the last ones.

    Raises:
        RunProblem: They cannot be written; the file is as it was.
    """
    with _told(file):
        file.parent.mkdir(FOLDER, parents=True, exist_ok=True)
        with open(file, "ab", buffering=0, opener=partial(os.open, mode=mode)) as out:
            size, content = os.fstat(out.fileno()).st_size, memoryview(text.encode())
            try:
                while content:
                    content = content[out.write(content) :]
                if sync:
                    _sync(out)
            except OSError:
                if _on_disk(out):
                    os.ftruncate(out.fileno(), size)
                raise


def read_json(file: Path) -> Any:
    """What a JSON file holds; None where it is not there, or is not as `write_json` left it, which is said.

    For files that can be made again from what else there is.
    """
    try:
        held = json.loads(file.read_bytes())
    except OSError:
        return None
    except (ValueError, RecursionError):
        held = None
    found = unsummed(cast("dict[str, Any]", held)) if isinstance(held, dict) else held
    if found is None:
        log.warning("%s was cut off or changed since it was written; it is not used.", file)
    return found


@contextmanager
def _beside(file: Path, mode: int = PRIVATE) -> Generator[tuple[Path, BinaryIO]]:
    """A new file next to another, open to be written; it is gone at the end unless it was renamed."""
    new = file.with_name(f"{file.name}.new")
    with _told(file):
        file.parent.mkdir(FOLDER, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)  # of a process that was killed, perhaps for others to read
        try:
            with open(new, "xb", opener=partial(os.open, mode=mode)) as out:
                yield new, out
        finally:
            new.unlink(missing_ok=True)


def _sync(out: BinaryIO) -> None:
    out.flush()
    if _on_disk(out):
        os.fsync(out.fileno())


def _on_disk(out: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(out.fileno()).st_mode)


@contextmanager
def _told(file: Path) -> Generator[None]:
    """Errors of the disk as one message."""
    try:
        yield
    except OSError as problem:
        raise RunProblem(
            f"{file} cannot be written ({problem.strerror or problem}).",
            "Make room or choose another place, and run the same command again: what is finished is kept.",
        ) from problem
