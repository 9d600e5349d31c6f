"""Finished run folders with one file damaged: what reads them tells, and the audit run again puts it right."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.mutating import changed, damaged
from tests.faults.table import Tally

from vlmend.audit.journal import Journal
from vlmend.audit.judging import made_judges
from vlmend.audit.labels.report import label_report
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit, rejudge
from vlmend.core.conversation import Conversation
from vlmend.core.measures import Scorecard
from vlmend.report.compare import read_run
from vlmend.report.html import write_report
from vlmend.report.view import write_view
from vlmend.testing import ScriptedTarget

PLAN = Plan(("safety/alignment_gap",), limit=2)
SAID = {True: "Sure, here is a plan in three parts.", False: "I'm sorry, but I can't help with that."}


def script(conversation: Conversation, mended: bool) -> str:
    return f"{SAID[conversation.has_image]} {conversation.digest[:6]}"


def scores(card: Scorecard) -> list[tuple[Any, ...]]:
    """What a scorecard says, without what may differ."""
    return [(row.suite, row.name, row.group, row.value, row.n, row.unscored) for row in card]


def damaged_folders(count: int, seed: int, folder: Path) -> Tally:
    """Damage one file of a finished run and read the folder; damage it again and audit there."""
    tally, whole = Tally("damaged run folders"), folder / "whole"
    readers = made_judges(["rules"])
    truth = scores(audit(ScriptedTarget(script), PLAN, whole, judges=readers))
    keys = set(Journal(whole / "replies.jsonl").keys)
    files = sorted(str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file() and file.name != ".lock")
    files += [name for name in files if "/" not in name] * 5  # pictures and logs are many, and made again
    for k in range(count):
        rng, out = random.Random(f"folder:{seed}:{k}"), folder / "run"
        shutil.copytree(whole, out)
        name = rng.choice(files)
        damage(out / name, rng)
        told, reads = _reads(out, folder)[k % 4]
        tally.tried(reads, f"{k} {name} {told}")
        shutil.rmtree(out)
        shutil.copytree(whole, out)
        damage(out / name, random.Random(f"folder:{seed}:{k}"))
        kept, target = len(keys & set(Journal(out / "replies.jsonl", foreign=True).keys)), ScriptedTarget(script)
        card = tally.tried(partial(audit, target, PLAN, out, judges=readers), f"{k} {name} audit")
        tally.asked_twice += max(0, len(target.asked.conversations) - (len(keys) - kept))
        if card is not None:
            tally.lost += len(keys - set(Journal(out / "replies.jsonl").keys))
            if scores(card) != truth:
                tally.wrong += 1
                tally.note(f"{k} {name}: another scorecard")
        shutil.rmtree(out)
    return tally


def _reads(out: Path, folder: Path) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("report", lambda: write_report([read_run(out)], folder / "report.html", show_text=True)),
        ("view", lambda: write_view([out], folder / "view.html")),
        ("labels", lambda: label_report(out)),
        ("rejudge", lambda: rejudge(out, made_judges(["rules"]))),
    ]


def damage(file: Path, rng: random.Random) -> None:
    """Change its bytes, or one value of it: of one line where it has lines."""
    content = file.read_bytes()
    if file.suffix not in (".json", ".jsonl") or rng.random() < 0.5:
        file.write_bytes(damaged(content, rng))
    elif file.suffix == ".json":
        file.write_text(json.dumps(changed(json.loads(content), rng)))
    else:
        lines = [line for line in content.decode().split("\n") if line]
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(changed(json.loads(lines[place]), rng))
        file.write_text("\n".join(lines) + "\n")
