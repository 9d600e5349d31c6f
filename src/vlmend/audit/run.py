"""`audit()`: suites to an Inspect eval set to a scorecard, in one folder that can be resumed.

A run folder holds `run.json` (what was asked for), `replies.jsonl` (every finished reply),
`verdicts.jsonl` (every judge's word on them), `logs/` (Inspect's own, for `inspect view`),
`samples.jsonl` and `images/` (what pages show), `scorecard.json`, `cost.json`, and for a mended
target `states.json`. One process at a time may work in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from inspect_ai import Task, eval_set
from inspect_ai.model import get_model

from vlmend import registry
from vlmend.audit import entry
from vlmend.audit.cost import metered
from vlmend.audit.folding import fold
from vlmend.audit.inspect_scores import add_scores
from vlmend.audit.journal import Journal
from vlmend.audit.judges.grader import GraderJudge
from vlmend.audit.judging import JUDGES, made_judges
from vlmend.audit.plan import Plan
from vlmend.audit.provider import BATCH_SIZE, offered
from vlmend.audit.suite import Answer
from vlmend.audit.tasks import answers_of, data_of, questions_of
from vlmend.core.contracts import GenerativeTarget
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.measures import Scorecard
from vlmend.core.mend import Mend
from vlmend.core.provenance import versions
from vlmend.core.verdicts import Judge
from vlmend.errors import RunProblem, UsageError

__all__ = ["audit", "rejudge", "suites_of"]

Progress = Callable[[str, int, int], None]


def audit(
    target: GenerativeTarget,
    plan: Plan,
    out: Path,
    *,
    mends: Sequence[Mend] = (),
    judges: Sequence[Judge] | None = None,
    progress: Progress = lambda step, done, total: None,
    batch: int = BATCH_SIZE,
) -> Scorecard:
    """Run the suites of a plan on a target and write the run folder.

    Run it again after a stop of any kind: no finished reply is asked for again.

    Args:
        target: What to audit, its mends already applied.
        plan: What to ask.
        out: The run folder.
        mends: The mends that the target carries, for the scorecard.
        judges: Who reads the replies; `JUDGES` unless given. The first that suits a suite gives its headline.
        progress: Called with (step, done, total); steps are `ask` and each judge.
        batch: Largest batch, in requests.

    Raises:
        RunProblem: The folder holds another run, is in use, or a failure stopped the run.
        UsageError: The model would grade itself.
        KeyboardInterrupt: The user stopped it; what is done is kept.
    """
    dataset = None if plan.data is None else data_of(plan.data)
    names = suites_of(plan.suites, dataset)
    judges = made_judges(JUDGES) if judges is None else judges
    _check_own(target.name, judges)
    with _held(out):
        _claim(out, plan, target, dataset)
        answers = _asked(target, names, plan, out, progress, batch)
        cards = tuple(asdict(mend.card) | {"digest": mend.digest} for mend in mends)
        provenance: dict[str, Any] = {
            "target": target.id, "model_digest": target.model_digest, "plan": asdict(plan),
            "data": None if dataset is None else {
                "name": dataset.name, "licence": dataset.licence, "rows": len(dataset.examples),
                "digest": dataset.digest_of_words, "notes": list(dataset.notes),
            },
        }  # fmt: skip
        blank = Scorecard(target.name, cards, plan.seed, versions(), (), provenance)
        card = fold(out, blank, answers, _pictures(names, plan), judges, progress)
        add_scores(out)
    return card


def rejudge(out: Path, judges: Sequence[Judge], progress: Progress = lambda step, done, total: None) -> Scorecard:
    """Have other judges read the replies of a finished run; the model is not asked again.

    Raises:
        UsageError: The folder holds no finished run, or its model would grade itself.
        RunProblem: It is in use.
    """
    if not (out / "samples.jsonl").exists():
        raise UsageError(f"{out} holds no finished run.", "Pass a folder that `vlmend audit ... --out` wrote.")
    with _held(out):
        held = json.loads((out / "run.json").read_text())["plan"]
        plan = Plan(**held | {"suites": tuple(held["suites"])})
        rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
        names = list(dict.fromkeys(row["suite"] for row in rows))
        kept = {name: [_answer(row) for row in rows if row["suite"] == name] for name in names}
        before = Scorecard.load(out / "scorecard.json")
        _check_own(before.model, judges)
        card = fold(out, before, kept, _pictures(names, plan), judges, progress)
        add_scores(out)
    return card


def _check_own(model: str, judges: Sequence[Judge]) -> None:
    """No model grades itself; names are compared, so a folder and a hub name of the same weights pass."""
    own = (model, f"vlmend/{model}", model.replace("api:", "openai/", 1))
    if any(isinstance(judge, GraderJudge) and judge.model in own for judge in judges):
        raise UsageError(f"{model} would grade itself.", "Name another model after grader:.")


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


def _asked(
    target: GenerativeTarget, names: Sequence[str], plan: Plan, out: Path, progress: Progress, batch: int
) -> dict[str, list[Answer]]:
    """Put every question to the target, or go on where an earlier process stopped."""
    journal = Journal(out / "replies.jsonl")
    tasks = [_task(name, plan) for name in names]
    total = sum(len(task.dataset) for task in tasks) * plan.epochs
    done = 0

    def on_reply() -> None:
        nonlocal done
        done += 1
        progress("ask", min(done, total), total)

    with metered(out / "cost.json", journal), offered(target, journal, on_reply, batch) as model:
        _run(tasks, model, out / "logs", batch)
    progress("ask", total, total)
    return {name: answers_of(name, plan, target, journal) for name in names}


def _task(name: str, plan: Plan) -> Task:
    """Built-in suites have a task of their own name; others go through the generic one."""
    arguments: dict[str, Any] = {
        "data": plan.data, "limit": plan.limit, "max_new_tokens": plan.max_new_tokens,
        "temperature": plan.temperature, "epochs": plan.epochs, "seed": plan.seed,
    }  # fmt: skip
    own = {task.__name__: task for task in (entry.alignment_gap, entry.over_refusal, entry.picture_naming)}
    short = name.split("/")[-1]
    return own[short](**arguments) if short in own else entry.suite(name=name, **arguments)


def _run(tasks: list[Task], model: str, folder: Path, batch: int) -> None:
    """Run or resume the eval set; Inspect keeps finished tasks, the journal finished replies."""
    success, headers = eval_set(
        tasks,
        log_dir=str(folder),
        model=get_model(model, memoize=False),
        display="none",
        log_level="error",
        log_realtime=False,
        log_dir_allow_dirty=True,
        score_display=False,
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


def _pictures(names: Sequence[str], plan: Plan) -> dict[str, Mapping[str, Image]]:
    """The images that belong to requests, by suite and sample; blank and noise say nothing and are left out."""
    found: dict[str, Mapping[str, Image]] = {}
    for name in names:
        images = {q.id: q.image for q in questions_of(name, plan.data, plan.limit).values()}
        own = {key: image for key, image in images.items() if isinstance(image, Image)}
        several = [f"#{k}" for k in range(1, plan.epochs + 1)] if plan.epochs > 1 else [""]
        found[name] = {f"{key}{suffix}": image for key, image in own.items() for suffix in several}
    return found


def _answer(row: dict[str, Any]) -> Answer:
    """A row of `samples.jsonl` as an answer."""
    return Answer(**{key: value for key, value in row.items() if key not in ("suite", "verdicts", "image")})


@contextmanager
def _held(out: Path) -> Generator[None]:
    """Hold the run folder for this process; the system lets go of it when the process dies, however it dies."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        yield
    except Timeout as problem:
        raise RunProblem(f"Another process is working in {out}.", "Wait for it, or choose another --out.") from problem
    except OSError as problem:  # Inspect's own logs are written in here too
        raise RunProblem(
            f"The run folder {out} cannot be written ({problem.strerror}).",
            "Make room or choose another --out, and run the same command again: what is finished is kept.",
        ) from problem
    finally:
        lock.release()


def _claim(out: Path, plan: Plan, target: GenerativeTarget, data: Dataset | None) -> None:
    """Write `run.json`, or check that the folder holds this very run."""
    claim: dict[str, Any] = {"target": target.id, "model_digest": target.model_digest, "plan": asdict(plan)}
    if data is not None:
        claim["data_digest"] = data.digest_of_words
    wanted = json.loads(json.dumps(claim))
    file = out / "run.json"
    try:
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
