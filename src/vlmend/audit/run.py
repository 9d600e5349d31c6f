"""`audit()`: suites to an Inspect eval set to a scorecard, in one folder that can be resumed.

A run folder holds `run.json` (what was asked for), `replies.jsonl` (every finished reply),
`verdicts.jsonl` (every judge's word on them), `logs/` (Inspect's own, for `inspect view`),
`samples.jsonl` and `images/` (what pages show), `scorecard.json`, `cost.json`, and for a mended
target `states.json`. One process at a time may work in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_set
from inspect_ai.model import get_model

from vlmend.audit.cost import metered
from vlmend.audit.dual_run import audit_dual
from vlmend.audit.folding import fold
from vlmend.audit.inspect import entry
from vlmend.audit.inspect.provider import BATCH_SIZE, offered
from vlmend.audit.inspect.scores import add_scores
from vlmend.audit.inspect.tasks import answers_of, data_of, questions_of
from vlmend.audit.journal import Journal
from vlmend.audit.judges.grader import GraderJudge
from vlmend.audit.judging import JUDGES, made_judges
from vlmend.audit.plan import Plan, suites_of
from vlmend.audit.run_folder import blank_card, claim, held
from vlmend.audit.suite import Answer
from vlmend.core.contracts import DualTarget, GenerativeTarget
from vlmend.core.images import Image
from vlmend.core.measures import Scorecard
from vlmend.core.mend import Mend
from vlmend.core.verdicts import Judge
from vlmend.errors import RunProblem, UsageError

__all__ = ["audit", "rejudge"]

Progress = Callable[[str, int, int], None]


def audit(
    target: GenerativeTarget | DualTarget,
    plan: Plan,
    out: Path,
    *,
    mends: Sequence[Mend] = (),
    judges: Sequence[Judge] | None = None,
    progress: Progress = lambda step, done, total: None,
    batch: int = BATCH_SIZE,
) -> Scorecard:
    """Run the suites of a plan on a target and write the run folder.

    Run it again after a stop of any kind: no finished reply is asked for again. What is done with a dual encoder is
    told in `dual_run`.

    Args:
        target: What to audit, its mends already applied.
        plan: What to ask.
        out: The run folder.
        mends: The mends that the target carries, for the scorecard.
        judges: Who reads the replies; `JUDGES` unless given. The first that suits a suite gives its headline. Nobody
            reads those of a dual encoder: it has none.
        progress: Called with (step, done, total); steps are `ask` and each judge.
        batch: Largest batch, in requests.

    Raises:
        RunProblem: The folder holds another run, is in use, or a failure stopped the run.
        UsageError: The model would grade itself, or a suite is for models of the other kind.
        KeyboardInterrupt: The user stopped it; what is done is kept.
    """
    if isinstance(target, DualTarget):
        return audit_dual(target, plan, out, mends=mends, judges=judges or (), progress=progress)
    dataset = None if plan.data is None else data_of(plan.data)
    names = suites_of(plan.suites, dataset)
    judges = made_judges(JUDGES) if judges is None else judges
    _check_own(target.name, judges)
    with held(out):
        claim(out, plan, target, dataset)
        answers = _asked(target, names, plan, out, progress, batch)
        card = fold(out, blank_card(target, plan, dataset, mends), answers, _pictures(names, plan), judges, progress)
        add_scores(out)
    return card


def rejudge(out: Path, judges: Sequence[Judge], progress: Progress = lambda step, done, total: None) -> Scorecard:
    """Have other judges read the replies of a finished run; the model is not asked again.

    Raises:
        UsageError: The folder holds no finished run, or its model would grade itself.
        RunProblem: It is in use.
    """
    if not (out / "samples.jsonl").exists():
        raise UsageError(
            f"{out} holds no finished run with replies.", "Pass a folder that `vlmend audit ... --out` wrote."
        )
    with held(out):
        asked = json.loads((out / "run.json").read_text())["plan"]
        plan = Plan(**asked | {"suites": tuple(asked["suites"])})
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
