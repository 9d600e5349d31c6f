"""The page of `vlmend explain`: each picture as the model sees it, its map, and what the map is worth."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import PIL.Image

from vlmend.core.files import read_json
from vlmend.core.images import Image
from vlmend.core.jsontext import unsummed
from vlmend.core.metrics.resampling import mean_interval
from vlmend.errors import UsageError
from vlmend.report.pages import write_page

__all__ = ["explained_content", "write_explained"]

FILE, PAGE = "explained.jsonl", "explain.html"

SHOWN = 60
"""Maps on the page; numbers are of all."""

SIDE = 220
"""Least width of a picture on the page, in pixels: small ones are drawn larger, square for square."""

FULL = 99.0
"""Percentile of a map's sizes that has the full colour."""

COMPLETE = 0.01

Levels = npt.NDArray[np.float64]

SUMMARY = {
    "share": ("of what speaks for the text, on the person", "share"),
    "area": ("the person's share of the picture: chance", "share"),
    "centre": ("a map of the picture's middle, without a model, on the person", "share"),
    "share_shuffled": ("the map of shuffled weights, on the person", "share"),
    "complete": ("maps that sum to the change of the score, within 1 %", "share"),
    "correlation": ("rank correlation with the map of shuffled weights: a good one is near 0", "number"),
    "correlation_of_sizes": ("the same of sizes alone, signs left out", "number"),
    "deletion_gain": ("hiding what the map marks lowers the score more than a random order: above 0", "number"),
    "insertion_gain": ("showing what it marks brings the score back sooner: above 0", "number"),
}
"""Rows of the table of checks: what each is, and its unit."""


def write_explained(folder: Path) -> Path:
    """Write the page of a folder that `explain` filled, and return where it is.

    Raises:
        UsageError: The folder holds no maps.
        RunProblem: The page cannot be written.
    """
    write_page("explained.html.jinja", explained_content(folder) | {"pictures": _pictures(folder)}, folder / PAGE)
    return folder / PAGE


def explained_content(folder: Path) -> dict[str, Any]:
    """What the page says, without its pictures: JSON values.

    Raises:
        UsageError: The folder holds no maps.
    """
    told, rows = read_json(folder / "explain.json"), _rows(folder)
    if told is None or not rows:
        raise UsageError(f"{folder} holds no maps.", "Run `vlmend explain MODEL --out DIR` first.")
    made = [row for row in rows if not row["reason"]]
    summary = {
        name: {"what": what, "unit": unit, "n": len(values), **_mean(values)}
        for name, (what, unit) in SUMMARY.items()
        if (values := _known(made, name))
    }
    return {
        "model": told["model"], "data": told["data"], "method": told["method"], "notes": told["notes"],
        "maps": len(made), "shown": min(SHOWN, len(made)), "summary": summary,
        "missing": [{"id": row["id"], "reason": row["reason"]} for row in rows if row["reason"]],
    }  # fmt: skip


def _rows(folder: Path) -> list[dict[str, Any]]:
    file = folder / FILE
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    found = [unsummed(json.loads(line)) for line in lines if line.strip()]
    return [row for row in found if row is not None]


def _known(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """A value of every row that has it."""
    if name == "complete":
        errors = [row["values"]["completeness_error"] for row in rows if "completeness_error" in row["values"]]
        return [float(error is not None and error <= COMPLETE) for error in errors]  # null: infinite
    return [value for row in rows if (value := row["values"].get(name)) is not None]


def _mean(values: Sequence[float]) -> dict[str, float]:
    return mean_interval(values, range(len(values)), seed=0)._asdict()


def _pictures(folder: Path) -> list[dict[str, Any]]:
    """The first maps, each with its picture and the two over each other."""
    rows = [row for row in _rows(folder) if not row["reason"]][:SHOWN]
    return [row | _drawn(folder, row) for row in rows]


def _drawn(folder: Path, row: dict[str, Any]) -> dict[str, str]:
    picture = np.asarray(Image.from_path(folder / row["picture"]).decode(), np.float64) / 255
    found = np.load(folder / row["map"]).astype(np.float64)
    full = float(np.percentile(abs(found), FULL)) or float(abs(found).max()) or 1.0
    scaled = np.clip(found / full, -1, 1)
    outline = _outline(folder / row["region"]) if "region" in row else np.zeros(found.shape, bool)
    heat = mpl.colormaps["RdBu_r"](0.5 + scaled / 2)[..., :3]
    return {
        "seen": _uri(picture), "heat": _uri(_outlined(heat, outline)),
        "over": _uri(_outlined(_laid_over(picture, scaled), outline)),
    }  # fmt: skip


def _laid_over(picture: Levels, scaled: Levels) -> Levels:
    """The picture in grey, red where it speaks for the text, blue where against."""
    grey = 0.35 + 0.6 * picture.mean(2, keepdims=True).repeat(3, 2)
    ink = np.where(scaled[..., None] > 0, np.array([0.80, 0.05, 0.10]), np.array([0.05, 0.25, 0.75]))
    strength = abs(scaled)[..., None] ** 0.7
    return grey * (1 - strength) + ink * strength


def _outline(file: Path) -> npt.NDArray[np.bool_]:
    """Pixels of a region that touch one outside of it."""
    inside = np.asarray(Image.from_path(file).decode().convert("L")) > 0
    padded = np.pad(inside, 1)
    sides = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~sides


def _outlined(drawn: Levels, outline: npt.NDArray[np.bool_]) -> Levels:
    return np.where(outline[..., None], np.array([0.0, 0.0, 0.0]), drawn)


def _uri(levels: Levels) -> str:
    picture = PIL.Image.fromarray((255 * np.clip(levels, 0, 1)).round().astype(np.uint8))
    times = -(-SIDE // picture.width)
    larger = picture.resize((times * picture.width, times * picture.height), PIL.Image.Resampling.NEAREST)
    return "data:image/png;base64," + base64.b64encode(Image.from_pixels(larger).content).decode()
