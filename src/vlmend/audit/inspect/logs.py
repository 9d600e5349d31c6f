"""Writes a run's records as Inspect logs, so that `inspect view` and every reader of its logs work on them.

One `.eval` file a suite, with every judge's verdict as a score. Samples are written one by one, so that a log of any
size takes the memory of one. Pictures are the thumbnails of the run folder; blank and noise say nothing and are left
out.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
)
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageUser,
    ContentImage,
    ContentText,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.scorer import Score

from vlmend.core.images import Image
from vlmend.errors import SampleError

__all__ = ["write_logs"]

FORMAT = 2
"""Of Inspect's logs."""

Row = dict[str, Any]


def write_logs(out: Path) -> list[Path]:
    """Write `logs/` anew from `run.json`, `samples.jsonl` and `images/` of a run folder; gives the files."""
    folder = out / "logs"
    folder.mkdir(exist_ok=True)
    run = json.loads((out / "run.json").read_text())
    files: list[Path] = []
    for suite, rows in groupby(_rows(out / "samples.jsonl"), key=lambda row: str(row["suite"])):
        file = folder / f"{suite.replace('/', '-')}.eval"
        new = file.with_suffix(".new")
        _write(new, suite, rows, run, out / "images")
        new.replace(file)
        files.append(file)
    for old in set(folder.glob("*.eval")) - set(files):
        old.unlink()
    return files


def _rows(file: Path) -> Iterator[Row]:
    with file.open() as lines:
        for line in lines:
            yield json.loads(line)


def _write(file: Path, suite: str, rows: Iterator[Row], run: Row, images: Path) -> None:
    model = f"vlmend/{run['target']}"
    spec = _spec(suite, model, run)
    counts: dict[str, Counter[str]] = {}
    summaries: list[Any] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr("_journal/start.json", _json({"version": FORMAT, "eval": spec.model_dump(), "plan": {}}))
        for row in rows:
            sample = _sample(row, model, images)
            for judge, score in (sample.scores or {}).items():
                label = (score.metadata or {})["label"]
                counts.setdefault(judge, Counter())[label] += 1
            packed.writestr(f"samples/{sample.id}_epoch_{sample.epoch}.json", sample.model_dump_json(exclude_none=True))
            summaries.append(sample.summary().model_dump(mode="json"))
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


def _spec(suite: str, model: str, run: Row) -> EvalSpec:
    plan = run["plan"]
    key = hashlib.sha256(json.dumps([suite, run], sort_keys=True).encode()).hexdigest()
    return EvalSpec(
        created=datetime.now(UTC).isoformat(timespec="seconds"), eval_id=key[:22], run_id=key[:22], task_id=key[:22],
        task=f"vlmend/{suite.rpartition('/')[2]}", task_args={"data": plan["data"], "limit": plan["limit"]},
        dataset=EvalDataset(name=suite), model=model, config=EvalConfig(epochs=plan["epochs"], limit=plan["limit"]),
        packages={"inspect_ai": version("inspect-ai"), "vlmend": version("vlmend")},
        metadata={"suite": suite, "target": run["target"], "identity": run.get("identity", {})},
    )  # fmt: skip


def _sample(row: Row, model: str, images: Path) -> EvalSample:
    asked = row["asked"] or row["id"]
    epoch = int(row["id"].rpartition("#")[2]) if row["asked"] else 1
    message = ChatMessageUser(content=[*_pictures(row, images), ContentText(text=row["prompt"])])
    reply = ChatMessageAssistant(content=row["reply"], model=model, source="generate")
    stop = {"stop": "stop", "length": "max_tokens"}.get(row["stop"], "unknown")
    used, new = row["prompt_tokens"], row["new_tokens"]
    usage = ModelUsage(input_tokens=used, output_tokens=new, total_tokens=used + new)
    choice = ChatCompletionChoice(message=reply, stop_reason=stop)  # type: ignore[arg-type]
    told = {key: row[key] for key in ("condition", "group", "category", "problem", "fired")}
    return EvalSample(
        id=asked, epoch=epoch, input=[message], target=list(row["target"]), messages=[message, reply],
        output=ModelOutput(model=model, choices=[choice], usage=usage), scores=_scores(row), metadata=told,
    )  # fmt: skip


def _pictures(row: Row, images: Path) -> Sequence[ContentImage]:
    if not row["image"]:
        return []
    try:
        return [ContentImage(image=Image.from_path(images / row["image"]).to_data_uri())]
    except SampleError:
        return []


def _scores(row: Row) -> dict[str, Score]:
    """Every judge's word; where a suite marks its replies itself, its own."""
    said: Mapping[str, Row] = row["verdicts"] or {"mark": {"label": row["label"], "reason": row["reason"]}}
    return {judge: _score(one, row["reply"]) for judge, one in said.items()}


def _score(verdict: Row, reply: str) -> Score:
    told = {"label": verdict["label"]}
    if verdict["label"] == "unscored":
        return Score.unscored(answer=reply, explanation=verdict["reason"], metadata=told)
    return Score(value=verdict["label"], answer=reply, explanation=verdict["reason"], metadata=told)


def _result(judge: str, counts: Counter[str]) -> EvalScore:
    """The share of each verdict among all samples, unscored ones included."""
    shares = {label: EvalMetric(name=label, value=count / counts.total()) for label, count in sorted(counts.items())}
    return EvalScore(
        name=judge, scorer=judge, metrics=shares, scored_samples=counts.total() - counts["unscored"],
        unscored_samples=counts["unscored"],
    )  # fmt: skip


def _json(value: object) -> str:
    return json.dumps(value, default=str)
