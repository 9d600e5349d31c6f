"""`audit()`: suites to an Inspect eval set to a scorecard, in one folder that can be resumed.

A run folder holds `run.json` (what was asked for), `replies.jsonl` (every finished reply),
`logs/` (Inspect's own, for `inspect view`), `samples.jsonl` (verdicts), `scorecard.json`,
`cost.json`, and for a mended target `states.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_set
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import get_model

from vlmend import registry
from vlmend.audit import entry
from vlmend.audit.journal import Journal
from vlmend.audit.provider import BATCH_SIZE, offered
from vlmend.audit.suite import Answer, Suite
from vlmend.audit.tasks import answers_of
from vlmend.core.contracts import GenerativeTarget
from vlmend.core.examples import Dataset
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.mend import Mend
from vlmend.core.provenance import versions
from vlmend.data.sources import read_jsonl
from vlmend.errors import RunProblem

__all__ = ["Plan", "audit"]


@dataclass(frozen=True)
class Plan:
    """What to ask: the same plan on the same target gives the same scorecard.

    Attributes:
        suites: Names of suites, or of axes (`safety` is every suite of that axis).
        data: JSONL file of labelled requests, or the built-in data.
        limit: Requests of each kind, or all.
        max_new_tokens: Longest reply, or each suite's own.
        seed: Kept on the scorecard; decoding is greedy.
    """

    suites: tuple[str, ...] = ("safety", "utility")
    data: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    seed: int = 0


def audit(
    target: GenerativeTarget,
    plan: Plan,
    out: Path,
    *,
    mends: Sequence[Mend] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
    batch: int = BATCH_SIZE,
) -> Scorecard:
    """Run the suites of a plan on a target and write the run folder.

    Run it again after a stop of any kind: no finished reply is asked for again.

    Args:
        target: What to audit, its mends already applied.
        plan: What to ask.
        out: The run folder.
        mends: The mends that the target carries, for the scorecard.
        progress: Called with (replies so far, replies in all).
        batch: Largest batch, in requests.

    Raises:
        RunProblem: The folder holds another run, or a failure stopped the run.
        KeyboardInterrupt: The user stopped it; what is done is kept.
    """
    names = suites_of(plan.suites, None if plan.data is None else read_jsonl(Path(plan.data)))
    _claim(out, plan, target)
    journal = Journal(out / "replies.jsonl")
    tasks = [_task(name, plan) for name in names]
    total = sum(len(task.dataset) for task in tasks)
    done = 0

    def on_reply() -> None:
        nonlocal done
        done += 1
        progress(min(done, total), total)

    began = time.monotonic()
    with offered(target, journal, on_reply, batch) as model:
        logs = _run(tasks, model, out / "logs", batch)
    seconds = time.monotonic() - began
    card = _fold(names, logs, target, plan, out, mends)
    _write_cost(out / "cost.json", journal, seconds)
    progress(total, total)
    return card


def suites_of(wanted: Sequence[str], data: Dataset | None = None) -> list[str]:
    """Full suite names of names and axes, each once, in order; an axis means its suites that fit the data.

    Raises:
        UnknownName: A name that is neither.
    """
    known = registry.suite_names()
    found: list[str] = []
    for name in wanted:
        axis = [suite for suite in known if suite.split("/")[0] == name]
        fitting = [suite for suite in axis if data is None or registry.suite(suite).applies(data)]
        found += fitting if axis else [registry.suite(name).name]
    return list(dict.fromkeys(found))


def _task(name: str, plan: Plan) -> Task:
    """Built-in suites have a task of their own name; others go through the generic one."""
    arguments: dict[str, Any] = {"data": plan.data, "limit": plan.limit, "max_new_tokens": plan.max_new_tokens}
    own = {task.__name__: task for task in (entry.alignment_gap, entry.over_refusal, entry.picture_naming)}
    short = name.split("/")[-1]
    return own[short](**arguments) if short in own else entry.suite(name=name, **arguments)


def _run(tasks: list[Task], model: str, folder: Path, batch: int) -> list[EvalLog]:
    """Run or resume the eval set; Inspect keeps finished tasks, the journal finished replies."""
    success, headers = eval_set(
        tasks,
        log_dir=str(folder),
        model=get_model(model, memoize=False),
        display="none",
        log_level="error",
        log_realtime=False,
        log_dir_allow_dirty=True,
        retry_attempts=0,
        retry_immediate=False,
        fail_on_error=True,
        ctl_server=False,
        max_tasks=len(tasks),
        max_samples=4 * batch,
        max_connections=4 * batch,
    )
    if any(log.status == "cancelled" for log in headers) or not headers:
        raise KeyboardInterrupt
    if not success:
        first = next((log.error for log in headers if log.error is not None), None)
        raise RunProblem(
            f"The audit stopped before its end ({first.message if first is not None else 'no reason given'}).",
            "Mend the cause if there is one, then run the same command again: finished replies are kept.",
        )
    return [read_eval_log(header.location) for header in headers]


def _fold(
    names: list[str], logs: list[EvalLog], target: GenerativeTarget, plan: Plan, out: Path, mends: Sequence[Mend]
) -> Scorecard:  # fmt: skip
    """Logs to `samples.jsonl` and `scorecard.json`."""
    rows: list[Measure] = []
    samples: list[dict[str, Any]] = []
    judges: dict[str, str] = {}
    for name in names:
        suite = registry.suite(name)
        answers = _answers(suite, logs)
        rows += suite.measures(answers)
        judges[name] = suite.judge_id
        samples += [{"suite": name} | asdict(answer) for answer in answers]
    (out / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    cards = tuple(asdict(mend.card) | {"digest": mend.digest} for mend in mends)
    provenance = {"target": target.id, "model_digest": target.model_digest, "judges": judges, "plan": asdict(plan)}
    card = Scorecard(target.name, cards, plan.seed, versions(), tuple(rows), provenance)
    card.save(out / "scorecard.json")
    return card


def _answers(suite: Suite, logs: list[EvalLog]) -> list[Answer]:
    log = next(log for log in logs if (log.eval.metadata or {}).get("suite") == suite.name)
    return sorted(answers_of(log, suite), key=lambda answer: answer.id)


def _claim(out: Path, plan: Plan, target: GenerativeTarget) -> None:
    """Write `run.json`, or check that the folder holds this very run."""
    claim = {"target": target.id, "model_digest": target.model_digest, "plan": asdict(plan)}
    if plan.data is not None:
        claim["data_digest"] = read_jsonl(Path(plan.data)).digest_of_words
    wanted = json.loads(json.dumps(claim))
    file = out / "run.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
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


def _write_cost(file: Path, journal: Journal, seconds: float) -> None:
    """Totals over the replies of this run; kept apart from the scorecard, which must not vary."""
    replies = journal.replies()
    model_seconds = sum(reply.seconds for reply in replies)
    cost = {
        "requests": len(replies),
        "new_tokens": sum(reply.new_tokens for reply in replies),
        "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
        "model_seconds": round(model_seconds, 3),
        "requests_per_second": round(len(replies) / model_seconds, 3) if model_seconds else None,
        "last_invocation_seconds": round(seconds, 3),
        "reused_replies": journal.reused,
    }
    file.write_text(json.dumps(cost, indent=2) + "\n")
