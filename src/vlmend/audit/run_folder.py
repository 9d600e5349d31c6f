"""A run folder: held by one process at a time, and by one run for good."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vlmend.audit.plan import Plan
from vlmend.core.contracts import Target
from vlmend.core.examples import Dataset
from vlmend.core.measures import Scorecard
from vlmend.core.mend import Mend
from vlmend.core.provenance import versions
from vlmend.errors import RunProblem

__all__ = ["blank_card", "claim", "held"]


@contextmanager
def held(out: Path) -> Generator[None]:
    """Hold the run folder for this process; the system lets go of it when the process dies, however it dies."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        yield
    except Timeout as problem:
        raise RunProblem(f"Another process is working in {out}.", "Wait for it, or choose another --out.") from problem
    except OSError as problem:  # Inspect's own logs are written in here too
        raise RunProblem(
            f"The run folder {out} cannot be written ({problem.strerror}).",
            "Make room or choose another --out, and run the same command again: what is finished is kept.",
        ) from problem
    finally:
        lock.release()


def claim(out: Path, plan: Plan, target: Target, data: Dataset | None) -> None:
    """Write `run.json`, or check that the folder holds this very run."""
    found: dict[str, Any] = {"target": target.id, "model_digest": target.model_digest, "plan": asdict(plan)}
    if data is not None:
        found["data_digest"] = data.digest_of_words
    wanted = json.loads(json.dumps(found))
    file = out / "run.json"
    try:
        if not file.exists():
            file.write_text(json.dumps(wanted, indent=2) + "\n")
        held = json.loads(file.read_text())
    except (OSError, ValueError) as problem:
        raise RunProblem(
            f"The run folder {out} cannot be used ({problem}).", "Choose another --out, or make room."
        ) from problem
    if held != wanted:
        differs = [key for key in wanted if held.get(key) != wanted[key]]
        raise RunProblem(
            f"{out} holds another run (its {', '.join(differs)} differs).",
            "Choose another --out, or remove the folder to start anew.",
        )


def blank_card(target: Target, plan: Plan, data: Dataset | None, mends: Sequence[Mend]) -> Scorecard:
    """What a scorecard says besides its numbers."""
    cards = tuple(asdict(mend.card) | {"digest": mend.digest} for mend in mends)
    provenance: dict[str, Any] = {
        "target": target.id, "model_digest": target.model_digest, "plan": asdict(plan),
        "data": None if data is None else {
            "name": data.name, "licence": data.licence, "rows": len(data.examples),
            "digest": data.digest_of_words, "notes": list(data.notes),
        },
    }  # fmt: skip
    return Scorecard(target.name, cards, plan.seed, versions(), (), provenance)
