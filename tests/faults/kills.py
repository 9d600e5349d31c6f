"""Work that is killed with -9, interrupted or meets a full disk at any moment and is done again until it ends.

What comes of it is held to the work that nobody disturbed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from tests.faults.table import Tally
from tests.faults.works import WORKS

from vlmend.audit.desk import Desk
from vlmend.audit.journal import Journal
from vlmend.errors import VlmendError

How = Literal["kill -9", "Ctrl-C", "full disk"]

LONGEST_S = 60.0
"""An invocation that takes longer hangs, and so does one that has not left so long after Ctrl-C."""
OURS, STOPPED, FOREIGN = 3, 130, 70
"""How an invocation ends: by one of our errors, by Ctrl-C, by any other exception."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.kills"])


def disturbed(name: str, how: How, times: int, seed: int, folder: Path) -> Tally:
    """Disturb so many invocations of a piece of work; each folder is finished before the next is begun."""
    tally, work = Tally(f"{name}, {how}"), WORKS[name]
    begun, whole = folder / "begun", folder / "whole"
    begun.mkdir()
    work.before(begun)
    shutil.copytree(begun, whole)
    seconds = _whole(name, whole, folder)
    truth, room = work.outcome(whole), max(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    rng = random.Random(f"{name}:{how}:{seed}")
    run = 0
    while tally.attempts < times:
        out = folder / f"run-{run}"
        run += 1
        shutil.copytree(begun, out)
        for _ in range(rng.randrange(1, 4)):
            kept = _kept(out)
            invoked = _Invocation(name, out, rng.randrange(1, room) if how == "full disk" else 0)
            if how != "full disk":
                invoked.process.join(rng.uniform(0.0, seconds))
                with suppress(ProcessLookupError):  # it has ended
                    os.kill(invoked.process.pid or 0, signal.SIGKILL if how == "kill -9" else signal.SIGINT)
            tally.attempts += 1
            _count(tally, invoked, out, kept)
        kept = _kept(out)
        _count(tally, last := _Invocation(name, out), out, kept)
        if last.process.exitcode == 0 and work.outcome(out) != truth:
            tally.wrong += 1
            tally.note(f"{out.name}: another outcome")
        elif last.process.exitcode:
            tally.lost += 1
            tally.note(f"{out.name}: not finished ({last.process.exitcode})")
    return tally


class _Invocation:
    """A process that does a piece of work; who is asked is written down first, so that a kill in between is seen."""

    def __init__(self, name: str, out: Path, room: int = 0) -> None:
        self.asked, self.told = out.with_name("asked.txt"), out.with_name("told.txt")
        for file in (self.asked, self.told):
            file.unlink(missing_ok=True)
        self.process: BaseProcess = CONTEXT.Process(target=_invoke, args=(name, out, self.asked, self.told, room))
        self.process.start()


def _invoke(name: str, out: Path, asked: Path, told: Path, room: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    honest = Desk._ask

    def noted(desk: Desk, batch: Sequence[Any]) -> None:
        with asked.open("a") as lines:
            lines.writelines(f"{row.key}\n" for row in batch)
        honest(desk, batch)

    Desk._ask = noted  # type: ignore[method-assign]
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        Desk._ask = honest  # type: ignore[method-assign]
    code = 0
    try:
        WORKS[name].run(out)
    except VlmendError:
        code = OURS
    except KeyboardInterrupt:
        code = STOPPED
    except BaseException:
        code = FOREIGN
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told.write_text(traceback.format_exc())
    os._exit(code)


def _count(tally: Tally, invoked: _Invocation, out: Path, kept: set[str]) -> None:
    """Wait for an invocation, and count what it did that it should not."""
    invoked.process.join(LONGEST_S)
    if invoked.process.is_alive():
        tally.hangs += 1
        invoked.process.kill()
        invoked.process.join()
    if invoked.process.exitcode == FOREIGN:
        tally.tracebacks += 1
        tally.note(invoked.told.read_text()[-300:])
    asked = invoked.asked.read_text().splitlines() if invoked.asked.exists() else []
    tally.asked_twice += len(kept & set(asked))
    tally.lost += len(kept - _kept(out))
    try:
        sound = WORKS[tally.what.partition(",")[0]].sound(out)
    except VlmendError as problem:
        sound = False
        tally.note(problem.message)
    tally.wrong += not sound


def _kept(out: Path) -> set[str]:
    return {key for file in out.rglob("replies.jsonl") for key in Journal(file, foreign=True).keys}


@cache
def _warm() -> None:
    """The server of forks is there before anyone is timed."""
    process = CONTEXT.Process(target=int)
    process.start()
    process.join()


def _whole(name: str, out: Path, folder: Path) -> float:
    """Do the work undisturbed; gives the seconds that it takes."""
    _warm()
    began = time.monotonic()
    invoked = _Invocation(name, out)
    invoked.process.join(LONGEST_S)
    assert invoked.process.exitcode == 0, invoked.told.read_text() if invoked.told.exists() else "no end"
    return time.monotonic() - began
