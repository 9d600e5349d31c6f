"""A run folder: held by one process at a time, and by one run for good."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vlmend.audit.plan import Plan
from vlmend.core.examples import Dataset
from vlmend.core.files import make_folder, read_json, write_json
from vlmend.core.measures import Scorecard
from vlmend.core.provenance import versions
from vlmend.core.targets import Target
from vlmend.errors import RunProblem

__all__ = ["blank_card", "claim", "held"]


@contextmanager
def held(out: Path) -> Generator[None]:
    """Hold the run folder for this process; the system lets go of it when the process dies, however it dies."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        make_folder(out)
        lock.acquire()
        yield
    except Timeout as problem:
        raise RunProblem(f"Another process is working in {out}.", "Wait for it, or choose another --out.") from problem
    except OSError as problem:  # Inspect's logs are written in here too
        raise RunProblem(
            f"The run folder {out} cannot be written ({problem.strerror}).",
            "Make room or choose another --out, and run the same command again: what is finished is kept.",
        ) from problem
    finally:
        lock.release()


def claim(out: Path, plan: Plan, subject: Target | Dataset, data: Dataset | None) -> None:
    """Write `run.json`, or check that the folder holds this very run.

    A run is told by everything that can change a reply: weights, processor, tokenizer, chat template, settings of
    generation, mends, the plan, and every field of the data. Pictures are not opened here: their bytes are in the
    journal's keys, so that one that was missing or broken can be put right and asked.

    Raises:
        RunProblem: It holds another run; what differs is named.
    """
    wanted = json.loads(json.dumps(_told(plan, subject, data)))
    file = out / "run.json"
    found = read_json(file)
    if found is None:
        write_json(file, wanted)
    elif found != wanted:
        raise RunProblem(
            f"{out} holds another run (its {', '.join(_differing(found, wanted))} differs).",
            "Choose another --out, or remove the folder to start anew.",
        )


def blank_card(subject: Target | Dataset, plan: Plan, data: Dataset | None) -> Scorecard:
    """What a scorecard says besides its numbers."""
    mends = () if isinstance(subject, Dataset) else subject.mends
    cards = tuple(asdict(mend.card) | {"digest": mend.digest} for mend in mends)
    provenance = _told(plan, subject, data) | {
        "data": None if data is None else {
            "name": data.name, "licence": data.licence, "rows": len(data.examples),
            "digest": data.digest, "notes": list(data.notes),
        },
    }  # fmt: skip
    return Scorecard(subject.name, cards, plan.seed, versions(), (), provenance)


def _told(plan: Plan, subject: Target | Dataset, data: Dataset | None) -> dict[str, Any]:
    told: dict[str, Any] = {"target": f"data:{subject.name}" if isinstance(subject, Dataset) else subject.id}
    if not isinstance(subject, Dataset):
        told |= {
            "model_digest": subject.model_digest, "identity": dict(subject.identity),
            "mends": [mend.digest for mend in subject.mends],
        }  # fmt: skip
    told["plan"] = plan.as_json()
    if data is not None:
        told["data_digest"] = data.digest_of_words
    return told


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What is not the same, part by part."""
    differs = [key for key in wanted if key not in ("identity", "plan") and found.get(key) != wanted[key]]
    plan, before = wanted["plan"], found.get("plan", {})
    differs += [f"plan's {key}" for key in plan if before.get(key) != plan[key]]
    parts, held = wanted.get("identity", {}), found.get("identity", {})
    differs += [part for part in sorted({*parts, *held}) if parts.get(part) != held.get(part)]
    return [name.replace("_", " ") for name in differs]
