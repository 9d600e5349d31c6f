"""A run folder holds one run for good."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from vlmend.audit.plan import Plan
from vlmend.core.examples import Dataset
from vlmend.core.files import read_json, write_json
from vlmend.core.measures import Scorecard
from vlmend.core.provenance import versions
from vlmend.core.targets import Target, key_of
from vlmend.errors import RunProblem

__all__ = ["blank_card", "check_same", "claim"]

ANOTHER = "Choose another --out, or remove the folder to start anew."


def claim(
    out: Path, plan: Plan, subject: Target | Dataset, data: Dataset | None, reference: Target | None = None
) -> None:
    """Write `run.json`, or check that the folder holds this very run.

    A run is told by everything that can change a reply: weights, processor, tokenizer, chat template, settings of
    generation, mends, the plan, and every field of the data. Pictures are not opened here: their bytes are in the
    journal's keys, so that one that was missing or broken can be put right and asked.

    Raises:
        RunProblem: It holds another run; what differs is named.
    """
    wanted = json.loads(json.dumps(_told(plan, subject, data, reference)))
    file = out / "run.json"
    found = read_json(file)
    if not isinstance(found, dict):
        write_json(file, wanted)
    elif found != wanted:
        differs = _differing(cast("dict[str, Any]", found), wanted)
        raise RunProblem(f"{out} holds another run: {', '.join(differs)}.", ANOTHER)


def check_same(out: Path, plan: Plan) -> None:
    """Refuse a folder of another run, as far as that can be told before model and data are there.

    Args:
        out: The run folder.
        plan: What to ask; suites that the kind of model decides are left out.

    Raises:
        RunProblem: It holds another run; what differs is named.
    """
    found = read_json(out / "run.json")
    if not isinstance(found, dict):
        return
    asked = json.loads(json.dumps(plan.as_json()))
    wanted = {key: value for key, value in asked.items() if key != "suites" or plan.suites}
    differs = _differing({"plan": cast("dict[str, Any]", found).get("plan")}, {"plan": wanted})
    if differs:
        raise RunProblem(f"{out} holds another run: {', '.join(differs)}.", ANOTHER)


def blank_card(
    subject: Target | Dataset, plan: Plan, data: Dataset | None, reference: Target | None = None
) -> Scorecard:
    """What a scorecard says besides its numbers."""
    mends = () if isinstance(subject, Dataset) else subject.mends
    cards = tuple(asdict(mend.card) | {"digest": mend.digest} for mend in mends)
    provenance = _told(plan, subject, data, reference) | {
        "data": None if data is None else {
            "name": data.name, "licence": data.licence, "rows": len(data.examples),
            "digest": data.digest, "notes": list(data.notes),
        },
    }  # fmt: skip
    return Scorecard(subject.name, cards, plan.seed, versions(), (), provenance)


def _told(plan: Plan, subject: Target | Dataset, data: Dataset | None, reference: Target | None) -> dict[str, Any]:
    told: dict[str, Any] = {"target": f"data:{subject.name}" if isinstance(subject, Dataset) else subject.id}
    if not isinstance(subject, Dataset):
        told |= {
            "model_digest": subject.model_digest, "identity": dict(subject.identity),
            "mends": [mend.digest for mend in subject.mends],
        }  # fmt: skip
    if reference is not None:
        told["reference"] = {"target": reference.id, "key": key_of(reference)}
    told["plan"] = plan.as_json()
    if data is not None:
        told["data_digest"] = data.digest_of_words
    return told


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What is not the same, part by part."""
    before, held = (_mapping(found.get(name)) for name in ("plan", "identity"))
    plan, parts = wanted["plan"], wanted.get("identity", {})
    changed = [key for key in plan if before.get(key) != plan[key]]
    differs = [f"{key} {_shown(before.get(key))} -> {_shown(plan[key])}" for key in changed]
    others = [key for key in wanted if key not in ("identity", "plan") and found.get(key) != wanted[key]]
    others += [part for part in sorted({*parts, *held}) if parts.get(part) != held.get(part)]
    told = [f"its {', '.join(others)} differs"] if others else []
    return [name.replace("_", " ") for name in (*differs, *told)]


def _mapping(held: object) -> dict[str, Any]:
    return cast("dict[str, Any]", held) if isinstance(held, dict) else {}


def _shown(value: Any) -> str:
    """A setting of a plan, as it is typed."""
    return ",".join(value) if isinstance(value, list) else "none" if value is None else str(value)
