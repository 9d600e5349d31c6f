"""Writes a run's records as Inspect logs, so that `inspect view` and every reader of its logs work on them.

One `.eval` file a suite, of a long one several, with every judge's verdict as a score. Samples are written one by one,
and of a file no more than its table of contents is held. Pictures are the thumbnails of the run folder; blank and noise
say nothing and are left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalScore,
    EvalSpec,
    EvalStats,
)

from vlmend.core.files import make_folder, read_json, replacing

__all__ = ["write_logs"]

FORMAT = 2
"""Of Inspect's logs."""

PART = 5_000
"""Samples of one file; its table of contents is held whole by who writes it and by who reads it."""

Row = dict[str, Any]


def write_logs(out: Path) -> list[Path]:
    """Write `logs/` anew from `run.json`, `samples.jsonl` and `images/` of a run folder; gives the files."""
    folder = out / "logs"
    make_folder(folder)
    run: Row = read_json(out / "run.json")
    files: list[Path] = []
    for suite, rows in groupby(_rows(out / "samples.jsonl"), key=lambda row: str(row["suite"])):
        for number, part in enumerate(_parts(rows), 1):
            file = folder / f"{suite.replace('/', '-')}{f'-{number}' if number > 1 else ''}.eval"
            with replacing(file) as packed:
                _write(packed, _spec(suite, number, run), part, out / "images")
            files.append(file)
    for old in set(folder.glob("*.eval")) - set(files):
        old.unlink()
    return files


def _rows(file: Path) -> Iterator[Row]:
    with file.open() as lines:
        for line in lines:
            yield json.loads(line)


def _parts(rows: Iterator[Row]) -> Iterator[Iterator[Row]]:
    """So many rows at a time, each part to be read to its end before the next."""
    return (chain([first], islice(rows, PART - 1)) for first in rows)


def _write(file: BinaryIO, spec: EvalSpec, rows: Iterator[Row], images: Path) -> None:
    counts: dict[str, Counter[str]] = {}
    summaries: list[Row] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr("_journal/start.json", _json({"version": FORMAT, "eval": spec.model_dump(), "plan": {}}))
        for row in rows:
            sample = _sample(row, spec.model, images)
            for judge, score in sample["scores"].items():
                counts.setdefault(judge, Counter())[score["metadata"]["label"]] += 1
            packed.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
            summaries.append(_summary(sample))
        spec.dataset.samples = len(summaries)
        spec.dataset.sample_ids = list(dict.fromkeys(summary["id"] for summary in summaries))
        log = EvalLog(
            version=FORMAT, status="success", eval=spec,
            results=EvalResults(
                total_samples=len(summaries), completed_samples=len(summaries),
                scores=[_result(judge, found) for judge, found in counts.items()],
            ),
            stats=EvalStats(started_at=spec.created, completed_at=spec.created),
        )  # fmt: skip
        packed.writestr("summaries.json", _json(summaries))
        packed.writestr("header.json", log.model_dump_json(exclude_none=True))


def _spec(suite: str, number: int, run: Row) -> EvalSpec:
    plan = run["plan"]
    key = hashlib.sha256(json.dumps([suite, number, run], sort_keys=True).encode()).hexdigest()
    return EvalSpec(
        created=datetime.now(UTC).isoformat(timespec="seconds"), eval_id=key[:22], run_id=key[:22], task_id=key[:22],
        task=f"vlmend/{suite.rpartition('/')[2]}", task_args={"data": plan["data"], "limit": plan["limit"]},
        dataset=EvalDataset(name=suite), model=f"vlmend/{run['target']}",
        config=EvalConfig(epochs=plan["epochs"], limit=plan["limit"]),
        packages={"inspect_ai": version("inspect-ai"), "vlmend": version("vlmend")},
        metadata={"suite": suite, "target": run["target"], "identity": run.get("identity", {})},
    )  # fmt: skip


def _sample(row: Row, model: str, images: Path) -> Row:
    """One sample as the file of an Inspect log holds it; plain JSON, since validating each costs more than writing."""
    asked = row["asked"] or row["id"]
    epoch = int(row["id"].rpartition("#")[2]) if re.search(r"#\d+$", row["id"]) and row["asked"] else 1
    message: Row = {"id": f"{row['id']}/0", "role": "user", "content": [*_pictures(row, images), _text(row["prompt"])]}
    reply = {"id": f"{row['id']}/1", "role": "assistant", "content": row["reply"], "source": "generate", "model": model}
    stop = {"stop": "stop", "length": "max_tokens"}.get(row["stop"], "unknown")
    used, new = row["prompt_tokens"], row["new_tokens"]
    usage = {"input_tokens": used, "output_tokens": new, "total_tokens": used + new}
    return {
        "id": asked, "epoch": epoch, "input": [message], "target": row["target"], "messages": [message, reply],
        "output": {"model": model, "choices": [{"message": reply, "stop_reason": stop}], "usage": usage},
        "scores": _scores(row),
        "metadata": {key: row[key] for key in ("condition", "group", "category", "problem", "fired")},
    }  # fmt: skip


def _summary(sample: Row) -> Row:
    """What lists show of a sample: no pictures."""
    words = [part if part["type"] == "text" else _text("(Image)") for part in sample["input"][0]["content"]]
    kept = {key: sample[key] for key in ("id", "epoch", "target", "scores", "metadata")}
    return kept | {"input": [sample["input"][0] | {"content": words}], "completed": True, "message_count": 2}


def _text(words: str) -> Row:
    return {"type": "text", "text": words}


def _pictures(row: Row, images: Path) -> list[Row]:
    if not row["image"]:
        return []
    try:
        content = base64.b64encode((images / row["image"]).read_bytes()).decode()
    except OSError:
        return []
    return [{"type": "image", "image": f"data:image/webp;base64,{content}", "detail": "auto"}]


def _scores(row: Row) -> Row:
    """Every judge's word; where a suite marks its replies itself, its own. An unscored one has no value (NaN)."""
    said: Row = row["verdicts"] or {"mark": {"label": row["label"], "reason": row["reason"]}}
    return {
        judge: {
            "value": math.nan if one["label"] == "unscored" else one["label"], "answer": row["reply"],
            "explanation": one["reason"], "metadata": {"label": one["label"]}, "history": [],
        } for judge, one in said.items()
    }  # fmt: skip


def _result(judge: str, counts: Counter[str]) -> EvalScore:
    """The share of each verdict among all samples, unscored ones included."""
    shares = {label: EvalMetric(name=label, value=count / counts.total()) for label, count in sorted(counts.items())}
    return EvalScore(
        name=judge, scorer=judge, metrics=shares, scored_samples=counts.total() - counts["unscored"],
        unscored_samples=counts["unscored"],
    )  # fmt: skip


def _json(value: object) -> str:
    return json.dumps(value, default=str)
