"""Audits that are killed with -9 at any moment and run again until they end, against one that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

from tests.faults.folders import PLAN, scores, script
from tests.faults.table import Tally

from vlmend.audit.journal import Journal
from vlmend.audit.judging import made_judges
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation
from vlmend.core.files import append
from vlmend.core.measures import Scorecard
from vlmend.testing import ScriptedTarget

LONGEST_S = 60.0
"""An invocation that takes longer hangs."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.kills"])


def _audit(out: Path, asked: Path) -> None:
    """One invocation; whoever is asked writes it down first, so that a kill in between is seen."""

    def told(conversation: Conversation, mended: bool) -> str:
        append(asked, conversation.digest + "\n", sync=False)
        time.sleep(0.01)
        return script(conversation, mended)

    audit(ScriptedTarget(told), PLAN, out, judges=made_judges(["rules"]), batch=2)


def killed_audits(kills: int, seed: int, folder: Path) -> Tally:
    """Kill so many invocations; each folder is finished before the next is begun."""
    tally = Tally("audits under kill -9")
    whole = folder / "whole"
    truth = scores(audit(ScriptedTarget(script), PLAN, whole, judges=made_judges(["rules"])))
    keys = set(Journal(whole / "replies.jsonl").keys)
    rng = random.Random(f"kill:{seed}")
    run = 0
    while tally.attempts < kills:
        out, asked = folder / f"run-{run}", folder / f"asked-{run}.txt"
        run += 1
        for _ in range(rng.randrange(1, 6)):
            kept, before = _kept(out), len(_lines(asked))
            process = CONTEXT.Process(target=_audit, args=(out, asked))
            process.start()
            process.join(rng.uniform(0.0, 1.0))
            process.kill()
            process.join()
            tally.attempts += 1
            tally.lost += len(kept - _kept(out))
            tally.asked_twice += max(0, len(_lines(asked)) - before - (len(keys) - len(kept)))
        kept, before = _kept(out), len(_lines(asked))
        process = CONTEXT.Process(target=_audit, args=(out, asked))
        process.start()
        process.join(LONGEST_S)
        tally.hangs += process.is_alive()
        process.kill()
        process.join()
        tally.asked_twice += max(0, len(_lines(asked)) - before - (len(keys) - len(kept)))
        tally.lost += len(keys - _kept(out))
        if process.exitcode:
            tally.tracebacks += 1
        elif scores(Scorecard.load(out / "scorecard.json")) != truth:
            tally.wrong += 1
    return tally


def _kept(out: Path) -> set[str]:
    return set(Journal(out / "replies.jsonl", foreign=True).keys)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
