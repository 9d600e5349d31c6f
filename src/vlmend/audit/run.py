"""`audit()`: suites to a scorecard, in one folder that can be resumed, for subjects of every kind.

A run folder holds `run.json` (what was asked for), `replies.jsonl` (every finished reply), `verdicts.jsonl` (every
judge's word on them), `measured.jsonl` (the samples of suites that measure by themselves), `samples.jsonl`,
`shown.json` and `images/` (what pages show), `scorecard.json`, `cost.json`, `states.json` for a mended chat model, and
`logs/` (Inspect's, for `inspect view`). Where it was asked in parts (`sharding`), these are in `shards/`. One process
at a time may work in a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from vlmend import registry
from vlmend.audit.asking import asked_of, read
from vlmend.audit.cost import metered
from vlmend.audit.desk import BATCH, Desk
from vlmend.audit.folding import fold
from vlmend.audit.inspect.logs import write_logs
from vlmend.audit.judging import JUDGES, made_judges
from vlmend.audit.notes import absent_notes, kept_note, lent_note, lost_notes, row_notes, shard_note
from vlmend.audit.plan import Plan, reachable, suites_of
from vlmend.audit.records import Records
from vlmend.audit.run_folder import blank_card, claim
from vlmend.audit.sharding import left_notes, settled
from vlmend.audit.shown import keep_shown
from vlmend.audit.states import write_states
from vlmend.audit.suite import Answer, Question, Suite, question_suite
from vlmend.core.contracts import AbstractSuite, ReferenceSuite, Sample, SampleSuite
from vlmend.core.examples import Dataset
from vlmend.core.files import held, read_json
from vlmend.core.images import Image
from vlmend.core.measures import Curve, Measure, Scorecard, samples_digests
from vlmend.core.samples import is_measured, read_samples
from vlmend.core.targets import CALLED, ChatStates, ChatTarget, Target, check_access, key_of
from vlmend.core.typed import made
from vlmend.core.verdicts import Judge
from vlmend.errors import RunProblem, UsageError, VlmendError

__all__ = ["audit", "rejudge"]

Progress = Callable[[str, int, int], None]
Questions = Mapping[str, Sequence[Question]]


def audit(
    subject: Target | Dataset, plan: Plan, out: Path, *, judges: Sequence[Judge] | None = None,
    progress: Progress = lambda step, done, total: None, note: Callable[[str], None] = lambda line: None,
    batch: int = BATCH, reuse: Sequence[Path] = (), reference: Target | None = None,
) -> Scorecard:  # fmt: skip
    """Run the suites of a plan on a target or a data set and write the run folder.

    Run it again after a stop of any kind: no finished reply is asked for again, and what has none is asked.

    Args:
        subject: What to audit, its mends already applied.
        plan: What to ask.
        out: The run folder.
        judges: Who reads the replies; `JUDGES` unless given. The first that suits a suite gives its headline. Nobody
            reads those of other subjects: they have none.
        progress: Called with (step, done, total); steps are `ask`, `measure` and each judge.
        note: Called with what a reader of the numbers should know, a line each.
        batch: Largest batch, in requests.
        reuse: Other run folders, whose replies to exactly the same requests are taken over: those of the unmended model
            to requests that no mend touches, say.
        reference: The model that suites of the kind `ReferenceSuite` hold the subject against.

    Raises:
        RunProblem: The folder holds another run, is in use, or cannot be written.
        UsageError: The model would grade itself, a suite is for other subjects, or settings speak of replies and
            there are none.
        NeedsAccess: A suite must look deeper than the target lets it.
        KeyboardInterrupt: The user stopped it; what is done is kept.
    """
    data = read(plan.data)
    suites, readers = _fitting(subject, plan, data, judges, reference)
    _tell(note, absent_notes(plan.suites, suites, subject, data, reference=reference is not None))
    _tell(note, row_notes(suites, data))
    with held(out), settled(out, plan, subject, data) as shards:
        claim(out, plan, subject, data, reference)
        measuring = [one for one in suites if isinstance(one, SampleSuite)]
        rows, curves = _measured(subject, measuring, plan, data, out, progress, reference)
        card = replace(blank_card(subject, plan, data, reference), rows=tuple(rows), curves=tuple(curves))
        if isinstance(subject, ChatTarget):
            asking = {one.name: one for one in suites if isinstance(one, Suite)}
            questions = {name: one.questions(data, plan.limit) for name, one in asking.items()}
            _tell(note, lent_note(questions, data))
            answers = _asked(subject, asking, questions, plan, Desk(out, batch, reuse, shards), out, progress, note)
            card = fold(out, card, answers, pictures_of(questions, plan.epochs), readers, progress)
            _keep_states(subject, out)
        card = replace(card, complete=True, made_from=samples_digests(out))
        card.save(out / "scorecard.json")
        if isinstance(subject, ChatTarget):
            write_logs(out)
    return card


def rejudge(
    out: Path, judges: Sequence[Judge], progress: Progress = lambda step, done, total: None,
    data: Dataset | None = None,
) -> Scorecard:  # fmt: skip
    """Have other judges read the replies of a finished run; the model is not asked again.

    Args:
        out: The run folder.
        judges: Who reads.
        progress: Called with (judge, done, total).
        data: The data set of the run, where it was given as such and not as a line of text.

    Raises:
        UsageError: The folder holds no finished run that can be read, or its model would grade itself.
        RunProblem: It is in use.
    """
    run, rows = read_json(out / "run.json"), read_samples(out)
    if not run or not rows:
        raise UsageError(
            f"{out} holds no finished run with replies.", "Pass a folder that `vlmend audit ... --out` wrote."
        )
    with held(out):
        plan = _planned(out, run, data)
        before = Scorecard.finished(out)
        _check_own(before.model, judges)
        given = _same_data(out, run, plan, data)
        suites = dict.fromkeys(row["suite"] for row in rows)
        questions = {name: question_suite(name).questions(given, plan.limit) for name in suites}
        requests = {(name, q.id): q.request for name, every in questions.items() for q in every}
        kept: dict[str, list[Answer]] = {name: [] for name in suites}
        for row in rows:
            kept[row["suite"]].append(_answer(row, requests))
        others = replace(before, rows=tuple(row for row in before.rows if row.suite not in kept))
        card = fold(out, others, kept, pictures_of(questions, plan.epochs), judges, progress)
        card = replace(card, made_from=samples_digests(out))
        card.save(out / "scorecard.json")
        write_logs(out)
    return card


def pictures_of(questions: Questions, epochs: int) -> dict[str, Mapping[str, Image]]:
    """The images that belong to requests, by suite and sample; blank and noise say nothing and are left out."""
    several = [f"#{k}" for k in range(1, epochs + 1)] if epochs > 1 else [""]
    return {
        name: {f"{q.id}{end}": q.image for q in asked if isinstance(q.image, Image) for end in several}
        for name, asked in questions.items()
    }


def _fitting(
    subject: Target | Dataset, plan: Plan, data: Dataset | None, judges: Sequence[Judge] | None,
    reference: Target | None,
) -> tuple[list[AbstractSuite[Any]], Sequence[Judge]]:  # fmt: skip
    """The suites of a plan and who reads replies, once all of it fits the subject."""
    if isinstance(subject, Dataset):
        _check_no_replies(plan, judges or ())
        return [registry.suite(name) for name in suites_of(plan.suites, subject, "data")], ()
    suites = [
        registry.suite(name) for name in suites_of(plan.suites, data, subject.kind, reference=reference is not None)
    ]
    suites = reachable(suites, plan.suites, subject)
    for suite in suites:
        check_access(subject, suite.name, suite.works_on, suite.needs)
        if isinstance(suite, ReferenceSuite):
            kind, needs = suite.reference_kind or suite.works_on, suite.reference_needs or suite.needs
            check_access(_held_against(suite, reference), suite.name, kind, needs)
    if not isinstance(subject, ChatTarget):
        _check_no_replies(plan, judges or ())
        return suites, ()
    readers = made_judges(JUDGES) if judges is None else judges
    _check_own(subject.name, readers)
    return suites, readers


def _held_against(suite: ReferenceSuite[Any], reference: Target | None) -> Target:
    """The reference.

    Raises:
        UsageError: There is none.
    """
    if reference is None:
        other = (
            f"{CALLED[suite.reference_kind]} that reads what it makes"
            if suite.reference_kind
            else ("the same recipe, trained on other data of the same pool")
        )
        raise UsageError(
            f"{suite.name} holds the model against a reference, and none is given.", f"Pass --reference MODEL: {other}."
        )
    return reference


def _asked(
    target: ChatTarget, suites: Mapping[str, Suite], questions: Questions, plan: Plan, desk: Desk, out: Path,
    progress: Progress, note: Callable[[str], None],
) -> dict[str, list[Answer]]:  # fmt: skip
    """An answer to every question, sorted by id: from the journal, or asked now."""
    asked, done = asked_of(suites, questions, plan), 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress("ask", done, len(asked))

    side = target.image_side
    _tell(note, kept_note(desk.journal.reused, len(asked)))
    _tell(note, shard_note(desk.sharded))
    _tell(note, left_notes(
        out, asked, lambda some: desk.unanswered(target, (one.request(side) for one in some))
    ))  # fmt: skip
    progress("ask", 0, len(asked))
    answers: dict[str, list[Answer]] = {name: [] for name in suites}
    with metered(out / "cost.json", desk.journal):
        replies = desk.each(target, (one.request(side) for one in asked), tick)
        for one, reply in zip(asked, replies, strict=True):
            own = f"{one.question.id}#{one.epoch + 1}" if plan.epochs > 1 else ""
            answers[one.suite.name].append(one.suite.answer(one.question, reply, own))
    progress("ask", len(asked), len(asked))
    _tell(note, lost_notes(answers))
    return {name: sorted(every, key=lambda answer: answer.id) for name, every in answers.items()}


def _measured(
    subject: Target | Dataset, suites: Sequence[SampleSuite[Any]], plan: Plan, data: Dataset | None, out: Path,
    progress: Progress, reference: Target | None,
) -> tuple[list[Measure], list[Curve]]:  # fmt: skip
    """What suites give that measure by themselves; samples that are there are not measured again."""
    if not suites:
        return [], []
    records = Records(out / "measured.jsonl", frozenset({"suite", "samples"}), good=is_measured)
    given = subject if isinstance(subject, Dataset) else data
    found: list[Measure] = []
    curves: list[Curve] = []
    for place, suite in enumerate(suites):
        progress("measure", place, len(suites))
        told = [
            suite.name, "" if isinstance(subject, Dataset) else key_of(subject), given and given.digest, plan.limit,
            plan.seed,
        ]  # fmt: skip
        if isinstance(suite, ReferenceSuite):
            told.append(key_of(_held_against(suite, reference)))
            suite = suite.beside(reference)
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        if key not in records.rows:
            samples = suite.samples(subject, given, plan.limit, seed=plan.seed)
            if shown := [sample for sample in samples if sample.pictures]:
                keep_shown(out, suite.name, shown, suite.measures(samples, plan.seed))
            records.write([{"key": key, "suite": suite.name, "samples": [_numbers(sample) for sample in samples]}])
        kept = [Sample(**row) for row in records.rows[key]["samples"]]
        found += suite.measures(kept, plan.seed)
        curves += suite.curves(kept, plan.seed)
    progress("measure", len(suites), len(suites))
    return found, curves


def _numbers(sample: Sample) -> dict[str, Any]:
    """A sample without its pictures, as JSON values."""
    told = asdict(replace(sample, pictures=()))
    del told["pictures"]
    return told


def _keep_states(target: ChatTarget, out: Path) -> None:
    """Where the states of a mended model lie, if they can be read; once."""
    if target.mends and isinstance(target, ChatStates) and read_json(out / "states.json") is None:
        write_states(target, out / "states.json")


def _planned(out: Path, run: dict[str, Any], data: Dataset | None) -> Plan:
    """What a finished run asked.

    Raises:
        UsageError: Its `run.json` holds something else.
    """
    try:
        asked = run["plan"]
        return made(Plan, asked | {"suites": tuple(asked["suites"]), "data": asked["data"] if data is None else data})
    except (KeyError, TypeError, ValueError) as problem:
        raise UsageError(
            f"{out / 'run.json'} does not say what was asked ({problem}).",
            "Remove that file and run the audit of this folder again: no reply that is kept is asked for again.",
        ) from problem


def _tell(note: Callable[[str], None], lines: Sequence[str]) -> None:
    for line in lines:
        note(line)


def _same_data(out: Path, run: dict[str, Any], plan: Plan, data: Dataset | None) -> Dataset | None:
    """The data of a finished run, read again; judges must see the pictures that the model saw.

    Raises:
        RunProblem: It is not what the run was made on.
    """
    try:
        given = data if data is not None else read(plan.data)
    except VlmendError as problem:
        raise RunProblem(
            f"The data of {out} cannot be read again ({problem.message})",
            "Put the file back, or pass the data set of the run as data=.",
        ) from problem
    if given is not None and run.get("data_digest", given.digest_of_words) != given.digest_of_words:
        raise RunProblem(
            f"{given.name} is not the data that {out} was made on.", "Pass the data of that run, or audit anew."
        )
    return given


def _check_own(model: str, judges: Sequence[Judge]) -> None:
    """No model grades itself; names are compared, so a folder and a hub name of the same weights pass."""
    own = (model, f"vlmend/{model}", model.replace("api:", "openai/", 1))
    if any(judge.id.partition(":")[2] in own for judge in judges):
        raise UsageError(f"{model} would grade itself.", "Name another model after grader:.")


def _check_no_replies(plan: Plan, judges: Sequence[Judge]) -> None:
    """Settings that speak of replies have no meaning here."""
    given = {
        "judges": bool(judges), "temperature": plan.temperature > 0, "epochs": plan.epochs > 1,
        "max_new_tokens": plan.max_new_tokens is not None,
    }  # fmt: skip
    named = ", ".join(name for name, there in given.items() if there)
    if named:
        raise UsageError(f"Only models that answer give replies, so {named} cannot be set.", "Leave it out.")


def _answer(row: dict[str, Any], requests: Mapping[tuple[str, str], str]) -> Answer:
    """A row of `samples.jsonl` as an answer; not every version wrote every field, and `requests` has those of all."""
    request = requests.get((row["suite"], row.get("asked") or row["id"]), "")
    missing: dict[str, Any] = {"category": "", "reason": "", "stop": "", "request": request}
    return Answer(**missing | {one.name: row[one.name] for one in fields(Answer) if one.name in row})
