"""`vlmend view`: one self-contained page over run folders, to look at every sample and to compare runs.

This file turns run folders into the plain data of the page; `view.html.jinja` lays it out and `view.js`
filters and unblurs it in the browser. The short page for other people to read is `html`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from vlmend.core.images import Image
from vlmend.core.jsontext import plain
from vlmend.core.measures import Measure
from vlmend.core.metrics.paired import Paired
from vlmend.core.verdicts import UNREAD
from vlmend.errors import SampleError, UsageError
from vlmend.report import charts
from vlmend.report.beside import KINDS, data_uri
from vlmend.report.compare import Run, comparison, read_run
from vlmend.report.pages import write_page

__all__ = ["find_runs", "view_content", "view_summary", "write_view"]

BASES = 6
"""The first runs, each of which the others can be compared with on the page."""

Key = tuple[str, str, str, int]
"""Suite, id, prompt and occurrence of a sample: what has the same key in two runs is the same question."""


def write_view(runs: Sequence[Path], out: Path, *, text: bool = True) -> Path:
    """Write the page of some run folders and return where it is.

    Args:
        runs: Run folders; the first is what the others are compared with unless the reader chooses another.
        out: The HTML file.
        text: Put requests, replies, reasons and images on the page, blurred; otherwise leave them out.

    Raises:
        UsageError: Folders that are no finished runs, all named.
        RunProblem: The page cannot be written.
    """
    folders, read = _read(runs)
    script = resources.files("vlmend.report").joinpath("view.js").read_text("utf-8")
    content = {
        "data": _content(folders, read, text),
        "figures": _figures(read),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    write_page("view.html.jinja", content, out)
    return out


def view_content(runs: Sequence[Path], *, text: bool = True) -> dict[str, Any]:
    """What the page of some run folders holds, as JSON values.

    Raises:
        UsageError: Folders that are no finished runs, all named.
    """
    return _content(*_read(runs), text)


def view_summary(runs: Sequence[Path]) -> dict[str, Any]:
    """The same for a terminal: its samples are counted, not told.

    Raises:
        UsageError: Folders that are no finished runs, all named.
    """
    content = view_content(runs, text=False)
    return {key: value for key, value in content.items() if key not in ("images", "text")} | {
        "samples": len(content["samples"])
    }


def find_runs(folder: Path) -> list[Path]:
    """Every run folder under a folder, itself included, by path.

    Raises:
        UsageError: There is none.
    """
    found = sorted(file.parent for file in folder.rglob("scorecard.json"))
    if not found:
        raise UsageError(f"No finished run under {folder}.", "Run `vlmend audit ... --out` first, or name run folders.")
    return found


def _read(runs: Sequence[Path]) -> tuple[list[Path], list[Run]]:
    """The runs, each under a name of its own."""
    folders = list(dict.fromkeys(runs))
    read: list[Run] = []
    problems: list[str] = []
    for folder in folders:
        try:
            read.append(read_run(folder))
        except UsageError as problem:
            problems.append(problem.message)
        except (OSError, ValueError, KeyError) as problem:
            problems.append(f"{folder} cannot be read ({problem!r}).")
    if problems or not read:
        raise UsageError(
            " ".join(problems) or "No run folder was given.",
            "Pass folders in which `vlmend audit ... --out` has ended.",
        )
    short = [run.name or folder.resolve().name for folder, run in zip(folders, read, strict=True)]
    names = [str(folder) if short.count(name) > 1 else name for folder, name in zip(folders, short, strict=True)]
    return folders, [replace(run, name=name) for run, name in zip(read, names, strict=True)]


def _content(folders: Sequence[Path], runs: Sequence[Run], text: bool) -> dict[str, Any]:
    """All that the page says; JSON values, NaN as null."""
    measures = _measures(runs)
    images = _Images()
    content = {
        "text": text,
        "runs": [_about(folder, run) for folder, run in zip(folders, runs, strict=True)],
        "measures": [_row(key, rows, runs) for key, rows in measures.items()],
        "comparisons": _comparisons(runs, list(measures)),
        "agreements": [{"run": run.name} | pair for run in runs for pair in run.card.judges],
        "samples": _samples(folders, runs, text, images),
        "images": images.table,
    }
    return plain(content)


def _about(folder: Path, run: Run) -> dict[str, Any]:
    """A row of the table of runs."""
    logs = folder / "logs"
    suites = list(dict.fromkeys(row.suite for row in run.card))
    judges = [judge for suite in suites for judge in _judges(run, suite)]
    measured = [sample for samples in run.measured.values() for sample in samples]
    keys = ("requests", "requests_per_second", "model_seconds", "prompt_tokens", "new_tokens")
    return {
        "name": run.name,
        "folder": str(folder),
        "model": run.card.model,
        "mends": [_mend(mend) for mend in run.card.mends],
        "suites": suites,
        "n": len(run.samples) + len(measured),
        "unscored": sum(sample["label"] in UNREAD for sample in run.samples)
        + sum(not sample.get("values") and not sample.get("label") for sample in measured),
        "seed": run.card.seed,
        "judges": list(dict.fromkeys(judges)),
        "date": next((file.name[:10] for file in sorted(logs.glob("*.eval"))), None),
        "versions": run.card.versions,
        "cost": {key: run.cost.get(key) for key in keys},
        "logs": str(logs) if logs.is_dir() else None,
    }


def _mend(mend: Mapping[str, Any]) -> str:
    settings = " ".join(f"{key}={value}" for key, value in mend.get("parameters", {}).items())
    return f"{mend['method']} {settings}".strip()


def _judges(run: Run, suite: str) -> list[str]:
    """The judges of a suite, the headline judge first; older runs name one."""
    named = run.card.provenance.get("judges", {}).get(suite, [])
    listed = [named] if isinstance(named, str) else list(named)
    rows = [row.judge for row in (*run.card.rows, *run.card.others) if row.suite == suite and row.judge]
    return list(dict.fromkeys([*listed, *rows]))


MeasureKey = tuple[str, str, str]
"""Suite, name and group of a measure."""

Measured = list[Measure | None]
"""One measure in each run."""


def _measures(runs: Sequence[Run]) -> dict[MeasureKey, Measured]:
    """Every measure of any run, with its rows by the headline judges."""
    keys = dict.fromkeys(_key(row) for run in runs for row in run.card)
    return {key: [run.value(*key) for run in runs] for key in keys}


def _row(key: MeasureKey, rows: Measured, runs: Sequence[Run]) -> dict[str, Any]:
    """A row of the scorecards side by side."""
    first = next(row for row in rows if row is not None)
    cells: list[dict[str, Any] | None] = []
    for row, run in zip(rows, runs, strict=True):
        others = [other for other in run.card.others if _key(other) == key]
        cells.append(None if row is None else _cell(row) | {"others": [_cell(other) for other in others]})
    return {
        "axis": first.axis, "suite": first.suite, "name": first.name, "group": first.group, "better": first.better,
        "cells": cells,
    }  # fmt: skip


def _cell(row: Measure) -> dict[str, Any]:
    keys = ("value", "low", "high", "n", "unscored", "judge", "agreement", "unit", "floor")
    return {key: vars(row)[key] for key in keys}


def _comparisons(runs: Sequence[Run], keys: Sequence[MeasureKey]) -> list[dict[str, Any]]:
    """For each base: every measure of every other run against it, with the tests that the report has too."""
    found: list[dict[str, Any]] = []
    for base in range(min(BASES, len(runs))):
        tests = [[] if run is runs[base] else comparison(runs[base], run) for run in runs]
        by_key = [{_key(test.before): _cell_of(test) for test in of_run} for of_run in tests]
        rows = [[cells.get(key) for cells in by_key] for key in keys]
        found.append({"base": base, "tests": list(map(len, tests)), "rows": rows})
    return found


def _cell_of(test: Paired) -> dict[str, Any]:
    """A paired test as the page tells it."""
    cell = test.difference._asdict() | {"n": test.n, "p": test.p_value, "holm": test.holm, "unit": test.before.unit}
    counts = {"fixed": test.fixed, "broken": test.broken} if test.before.compared == "share" else {}
    return cell | {"compared": test.before.compared} | counts


def _key(row: Measure) -> MeasureKey:
    return row.suite, row.name, row.group


class _Images:
    """Pictures of the page as data URIs, each once."""

    def __init__(self) -> None:
        self.table: list[str] = []
        self._places: dict[str, int | None] = {}
        self._files: dict[Path, int | None] = {}

    def place(self, file: Path) -> int | None:
        """Where in the table the picture is; None for one that cannot be read."""
        if file not in self._files:
            self._files[file] = self._added(Image.from_path(file), file.suffix.lower())
        return self._files[file]

    def _added(self, image: Image, suffix: str) -> int | None:
        try:
            if image.digest not in self._places:
                uri = data_uri(image, KINDS.get(suffix))
                self._places[image.digest] = len(self.table)
                self.table.append(uri)
        except SampleError:
            return None
        return self._places[image.digest]


def _samples(folders: Sequence[Path], runs: Sequence[Run], text: bool, images: _Images) -> list[dict[str, Any]]:
    """Every sample of any run once, with what each run made of it."""
    rows: dict[Key, dict[str, Any]] = {}
    hits = _hits(runs)
    for place, (folder, run) in enumerate(zip(folders, runs, strict=True)):
        judges = {suite: [*_judges(run, suite), ""][0] for suite in {sample["suite"] for sample in run.samples}}
        for key, sample in _keyed(run.samples):
            suite, name, prompt, _ = key
            row = rows.setdefault(key, {
                "suite": suite, "id": name, "condition": sample.get("condition", ""), "group": sample.get("group", ""),
                "category": sample.get("category", ""), "prompt": prompt if text else None, "image": None,
                "frames": sample.get("frames", 0),
                "replies": [None] * len(runs),
            })  # fmt: skip
            if text and row["image"] is None and sample.get("image"):
                row["image"] = images.place(folder / "images" / Path(sample["image"]).name)
            row["replies"][place] = _reply(sample, judges[suite], hits.get(suite, frozenset()), text)
    return list(rows.values())


def _keyed(samples: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Key, Mapping[str, Any]]]:
    seen: dict[tuple[str, str, str], int] = {}
    for sample in samples:
        name = (sample["suite"], sample["id"], sample.get("prompt", ""))
        seen[name] = seen.get(name, 0) + 1
        yield (*name, seen[name]), sample


def _hits(runs: Sequence[Run]) -> dict[str, frozenset[str]]:
    """The verdicts that count in the first measure of each suite."""
    found: dict[str, frozenset[str]] = {}
    for row in (row for run in runs for row in run.card if row.hit):
        found.setdefault(row.suite, frozenset(row.hit))
    return found


def _reply(sample: Mapping[str, Any], judge: str, hit: frozenset[str], text: bool) -> dict[str, Any]:
    """What one run made of a sample; older runs hold one verdict and no judge."""
    said: Mapping[str, Mapping[str, Any]] = sample.get("verdicts") or {judge: sample}
    verdicts = [
        {"judge": name, "label": v["label"], "reason": v.get("reason", "") if text else None,
         "score": v.get("scores", {}).get(v["label"])}
        for name, v in said.items()
    ]  # fmt: skip
    scored = [verdict["label"] for verdict in verdicts if verdict["label"] not in UNREAD]
    return {
        "label": sample["label"],
        "reply": sample.get("reply", "") if text else None,
        "stop": sample.get("stop", ""),
        "verdicts": verdicts,
        "disagree": len({label in hit if hit else label for label in scored}) > 1,
    }


def _figures(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """A plot for each suite."""
    suites = dict.fromkeys(row.suite for run in runs for row in run.card)
    series = {suite: [(run.name, [row for row in run.card if row.suite == suite]) for run in runs] for suite in suites}
    return [(suite, charts.intervals(rows)) for suite, rows in series.items()]
