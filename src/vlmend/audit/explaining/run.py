"""`explain()`: a map of every picture of a data set, in a folder that can be resumed.

A folder holds `explain.json` (what was asked for), `explained.jsonl` (a line for each finished map), `pictures/` (each
as the model sees it), `maps/` (float32 arrays of the same size) and `regions/` (where the person is, if rows say so).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from vlmend.audit.explaining.checks import faithful, place_values, sanity_values, shuffled
from vlmend.audit.explaining.maps import Heat, MapMethod, check_captum, heat_of
from vlmend.audit.explaining.shown import Explainable, Shown, shown
from vlmend.audit.records import Records
from vlmend.core.examples import Dataset, Example
from vlmend.core.files import held, read_json, write_file, write_json
from vlmend.core.images import Image
from vlmend.core.jsontext import plain
from vlmend.core.targets import CALLED, Access, Target, check_access, key_of, problem_of
from vlmend.errors import BadData, RunProblem, SampleError

__all__ = ["FILE", "NEEDS", "Explained", "explain"]

FILE = "explained.jsonl"
FIELDS = frozenset({"id", "group", "text", "veiled", "reason", "values"})

NEEDS: dict[MapMethod, Access] = {
    "integrated_gradients": "gradients", "grad_cam": "weights", "occlusion": "gradients",
}  # fmt: skip
"""How deep each method looks. Occlusion takes no gradient, but changes pixels as the model reads them."""


@dataclass(frozen=True)
class Explained:
    """What came of it.

    Attributes:
        rows: Of each picture and text: `id`, `group`, `text`, `against`, `values` and the names of its files, or the
            `reason` why there is no map; `veiled` where pages hide it until asked.
        method: How the maps were made.
        model: The target's id.
        data: Name of the data set.
    """

    rows: tuple[dict[str, Any], ...]
    method: MapMethod
    model: str
    data: str


def explain(
    target: Target, data: Dataset, out: Path, *, texts: Sequence[str] = (), method: MapMethod = "integrated_gradients",
    limit: int | None = None, seed: int = 0, checks: bool = True,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Explained:  # fmt: skip
    """Make a map of each picture with each text; a stopped run goes on where it was.

    Args:
        target: Its mends applied.
        data: Rows with pictures.
        out: The folder.
        texts: What to explain of every picture; each row's own text unless given.
        method: How maps are made.
        limit: The first pictures, or all.
        seed: Of shuffled weights and random orders.
        checks: Whether to make the map of shuffled weights and the curves of hidden cells too.
        progress: Called with ("explain", done, total).

    Raises:
        BadData: No row has a picture.
        MissingExtra: captum is not installed.
        NeedsAccess: The target gives no gradients, or no weights.
        ModelProblem: No map can be made of this model.
        RunProblem: The folder holds another run, is in use, or cannot be written.
    """
    check_captum()
    kinds = ("dual", "chat")
    check_access(target, "explain", kinds, "weights" if checks else NEEDS[method])
    subject: Explainable = target  # pyright: ignore[reportAssignmentType]
    rows = [row for row in data.examples if row.image is not None][:limit]
    if not rows:
        raise BadData(
            f"{data.name} has {len(data.examples)} rows, and none with a picture.",
            "Pass rows with an image: FILE.jsonl, a folder, or a public set (vlmend list data).",
        )
    asked = [(row, text) for row in rows for text in (texts or ("",))]
    with held(out):
        _claim(out, [key_of(target), data.digest, method, list(texts), seed, checks], target, data, method)
        records = Records(out / FILE, FIELDS, frozenset({"against", "picture", "map", "region"}))
        blind: Explainable | None = None
        for place, (row, text) in enumerate(asked):
            progress("explain", place, len(asked))
            if _key(row, text) not in records.rows:
                blind = shuffled(subject, seed) if checks and blind is None else blind
                records.write([{"key": _key(row, text)} | _one(subject, blind, row, text, method, seed, out)])
        progress("explain", len(asked), len(asked))
    found = tuple(records.rows[_key(row, text)] for row, text in asked)
    return Explained(found, method, target.id, data.name)


def _claim(out: Path, asked: Sequence[Any], target: Target, data: Dataset, method: MapMethod) -> None:
    """Write what was asked for, or find that it is there already.

    Raises:
        RunProblem: The folder holds the maps of another model, data set or method.
    """
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    found = read_json(out / "explain.json")
    if found is not None and found.get("key") != key:
        raise RunProblem(
            f"{out} holds other maps: model, mends, data, texts, method, seed or checks differ.",
            "Choose another --out, or remove the folder to start anew.",
        )
    if found is None:
        told = {"model": target.id, "kind": CALLED[target.kind], "data": data.name, "method": method,
                "notes": list(data.notes)}  # fmt: skip
        write_json(out / "explain.json", {"key": key} | told)


def _key(row: Example, text: str) -> str:
    return hashlib.sha256(json.dumps([row.id, text]).encode()).hexdigest()[:16]


def _one(
    target: Explainable, blind: Explainable | None, row: Example, text: str, method: MapMethod, seed: int, out: Path
) -> dict[str, Any]:
    """The map of one picture, on disk, and its numbers; or why there is none."""
    told: dict[str, Any] = {
        "id": row.id, "group": row.group, "text": text, "veiled": row.label == "harmful", "reason": "", "values": {},
    }  # fmt: skip
    problem = problem_of(target, replace(row, more_images=()))
    if problem:
        return told | {"reason": problem}
    try:
        seen = shown(target, row, text)
    except (SampleError, BadData) as bad:
        return told | {"reason": bad.message}
    heat = heat_of(target, seen, method)
    values = _values(target, blind, seen, heat, row, method, seed)
    return told | {"text": seen.text, "against": seen.against, "values": plain(values)} | _written(
        seen, heat, _key(row, text), out
    )  # fmt: skip


def _values(
    target: Explainable, blind: Explainable | None, seen: Shown, heat: Heat, row: Example, method: MapMethod, seed: int
) -> dict[str, Any]:
    values: dict[str, Any] = {"score": heat.score, "blank": heat.blank}
    if method == "integrated_gradients":
        values |= {"steps": heat.steps, "completeness_error": heat.error}
    values |= place_values(seen, heat)
    if blind is not None:
        other = heat_of(blind, shown(blind, row, seen.text), method, steps=heat.steps)
        curves = faithful(seen, heat, seed)
        values |= sanity_values(seen, heat, other) | curves.values
        values |= {"deleted": curves.deleted, "at_random": curves.at_random, "inserted": curves.inserted}
    return values


def _written(seen: Shown, heat: Heat, name: str, out: Path) -> dict[str, str]:
    """The files of one map."""
    content = io.BytesIO()
    np.save(content, heat.map.astype(np.float32))
    files = {
        "picture": (f"pictures/{name}.png", _png(seen.as_image())),
        "map": (f"maps/{name}.npy", content.getvalue()),
    }
    if seen.region is not None:
        files["region"] = (f"regions/{name}.png", _png(_drawn(seen.region)))
    for file, held_bytes in files.values():
        write_file(out / file, held_bytes, sync=False)
    return {what: file for what, (file, _) in files.items()}


def _drawn(region: npt.NDArray[np.bool_]) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.where(region, 255, 0).astype(np.uint8))


def _png(picture: PIL.Image.Image) -> bytes:
    return Image.from_pixels(picture).content
