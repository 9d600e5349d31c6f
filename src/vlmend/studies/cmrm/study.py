"""Every table and figure of the CMRM paper (arXiv 2410.09047), for the model at hand.

The study is a list of parts. Each part writes `parts/NAME.json` when it is whole and is skipped when
that is there for the same model, data, seed and sizes; replies are journalled on the way, so a
stopped study goes on where it was. Whatever is chosen or explored is asked on the validation split
(`sweep`, `variants`, `layers`, `transfer`, `controls`, `price`); what is claimed is held-out (`safety`,
`states`, `abilities`, `defences`). The page about it is made from the JSON files alone
(`vlmend.report.study`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmend.core.examples import Dataset
from vlmend.core.files import held, read_json, write_json
from vlmend.core.provenance import versions
from vlmend.core.verdicts import Judge
from vlmend.errors import RunProblem, UnknownName
from vlmend.models.vlm import VLM
from vlmend.studies.asking import Asker, names_of
from vlmend.studies.cmrm import parts, states, variants
from vlmend.studies.cmrm.lab import Lab, StudyPlan, thinned
from vlmend.studies.remembering import remembering

__all__ = ["PARTS", "check_parts", "study_cmrm"]

PARTS: dict[str, Callable[[Lab], dict[str, Any]]] = {
    "sweep": parts.sweep,
    "safety": parts.safety,
    "variants": variants.variants,
    "layers": parts.layers,
    "transfer": parts.transfer,
    "states": states.states,
    "anchors": states.anchors,
    "overhead": parts.overhead,
    "controls": parts.controls,
    "abilities": parts.abilities,
    "price": parts.price,
    "defences": parts.defences,
}
"""In the order in which they run: later ones need the strengths that `sweep` chose, the last what `price` chose."""

Progress = Callable[[str, int, int], None]


def study_cmrm(
    target: VLM,
    anchors: Dataset,
    data: Sequence[Dataset],
    out: Path,
    plan: StudyPlan,
    *,
    judges: Sequence[Judge],
    seed: int,
    progress: Progress,
    parts: Sequence[str] = (),
) -> Path:
    """Run the parts that are not there yet; gives the folder of their JSON files.

    Args:
        target: The model without mends.
        anchors: What mends are fitted on.
        data: Further harmful sets for the safety table.
        out: Folder of the study.
        plan: How much of everything; `lab.quick_plan()` or `lab.full_plan()`.
        judges: Who reads the replies: was it harmful, was it declined.
        seed: Of fits, noise images and resampling.
        progress: Called with (part, done, total); total is 0 while it is not known.
        parts: Names of the parts to run; all unless given.

    Raises:
        UnknownName: There is no such part.
        RunProblem: The folder holds a study of something else, is in use, or cannot be written.
    """
    check_parts(parts)
    target, anchors = remembering(target), thinned(anchors, plan.anchors)
    folder = out / "parts"
    needed = {*parts, "sweep"} | ({"price"} if "defences" in parts else set())
    wanted = [name for name in PARTS if not parts or name in needed]
    with held(out):
        _claim(out, target, anchors, data, plan, judges, seed)
        for name in wanted:
            if read_json(folder / f"{name}.json") is None:
                _run(name, target, anchors, tuple(data), out, plan, judges, seed, progress)
    return folder


def check_parts(parts: Sequence[str]) -> None:
    """
    Raises:
        UnknownName: A name is none of a part.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UnknownName(f"The study has no part {', '.join(unknown)}.", f"It has: {', '.join(PARTS)}.")


def _run(
    name: str, target: VLM, anchors: Dataset, data: tuple[Dataset, ...], out: Path, plan: StudyPlan,
    judges: Sequence[Judge], seed: int, progress: Progress,
) -> None:  # fmt: skip
    """Run one part and write its file."""
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress(name, done, 0)

    asker = Asker(target, out, plan.sizes.new_tokens, judges, tick)
    began = time.monotonic()
    content = PARTS[name](Lab(target, anchors, data, asker, plan, out, seed))
    write_json(out / "parts" / f"{name}.json", content | {"seconds": round(time.monotonic() - began, 1)})
    progress(name, 1, 1)


def _claim(
    out: Path, target: VLM, anchors: Dataset, data: Sequence[Dataset], plan: StudyPlan, judges: Sequence[Judge],
    seed: int,
) -> None:  # fmt: skip
    """Write `study.json`, or check that the folder holds this very study."""
    claim: dict[str, Any] = {
        "model": target.name, "model_digest": target.model_digest, "identity": dict(target.identity),
        "anchors": anchors.digest,
        "data": {one.name: one.digest_of_words for one in data}, "plan": asdict(plan), "judge": names_of(judges),
        "seed": seed,
    }  # fmt: skip
    wanted = json.loads(json.dumps(claim))
    file = out / "study.json"
    held = read_json(file)
    if held is None:
        held = wanted | {"versions": versions()}
        write_json(file, held)
    differs = [key for key in wanted if held.get(key) != wanted[key]]
    if differs:
        raise RunProblem(
            f"{out} holds another study (its {', '.join(differs)} differs).",
            "Choose another --out, or remove the folder to start anew.",
        )
