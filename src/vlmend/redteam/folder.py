"""A red team's folder holds one search for good, and only its owner can open it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from vlmend.core.examples import Dataset
from vlmend.core.files import read_json, write_file, write_json
from vlmend.core.jsontext import to_json
from vlmend.core.targets import ChatTarget, key_of
from vlmend.core.verdicts import Judge
from vlmend.data.jsonrow import row_of
from vlmend.errors import RunProblem, UsageError
from vlmend.redteam.search import SearchKind, Weights
from vlmend.redteam.space import Space

__all__ = ["check_folder", "claim", "claimed"]

RUN = "run.json"


def check_folder(out: Path) -> None:
    """
    Raises:
        UsageError: It holds something that is no search of ours.
    """
    if not out.exists():
        return
    others = [] if not out.is_dir() else [file.name for file in out.iterdir() if file.name not in (".lock", RUN)]
    if not out.is_dir() or (others and not (out / RUN).is_file()):
        raise UsageError(f"{out} holds something else.", "Choose another --out, or remove that folder first.")


def claim(
    out: Path, view: ChatTarget, space: Space, judges: Sequence[Judge], search: SearchKind, seed: int,
    weights: Weights, max_new_tokens: int, writer: Mapping[str, Any] | None,
) -> None:  # fmt: skip
    """Claim a folder for the search of a model that answers, and keep the goals in it.

    `writer` is what tells a writer model from others; None where templates give the words.

    Raises:
        RunProblem: It holds another; what differs is named.
    """
    goals = Dataset("goals", space.goals)
    digest = hashlib.sha256(json.dumps([[one.name, one.form] for one in space.templates]).encode()).hexdigest()
    wanted: dict[str, Any] = {
        "model": key_of(view), "goals": goals.digest, "templates": digest, "carriers": list(space.carriers),
        "judges": [[one.id, one.digest] for one in judges], "search": search, "seed": seed,
        "weights": asdict(weights), "max new tokens": max_new_tokens,
        "writer": None if writer is None else dict(writer),
    }  # fmt: skip
    claimed(out, wanted)
    held = [row_of(goal, lambda image: image.digest) for goal in space.goals]
    rows = [row.model_dump(mode="json", exclude_defaults=True) for row in held]
    write_file(out / "goals.jsonl", "".join(to_json(row) + "\n" for row in rows))


def claimed(out: Path, wanted: Mapping[str, Any]) -> None:
    """Close a folder to others and write `run.json`, or check that it holds this very search.

    Args:
        out: The folder.
        wanted: JSON values, by names that people read.

    Raises:
        RunProblem: It holds another; what differs is named.
    """
    out.chmod(0o700)
    found = read_json(out / RUN)
    if not isinstance(found, dict):
        write_json(out / RUN, dict(wanted))
        return
    before = cast("dict[str, Any]", found)
    differs = [name for name in wanted if before.get(name) != wanted[name]]
    if differs:
        raise RunProblem(
            f"{out} holds another search: its {', '.join(differs)} differ.",
            "Choose another --out, or remove the folder to start anew.",
        )
