"""The public functions behind `import vlmend` and behind the verbs of the command line, one for each.

Names may stand for objects everywhere: a target's name is opened, a line of text is read as data, a folder as a mend,
and methods, attacks, steps and judges are made by their registered names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from vlmend import registry
from vlmend.attacks.running import Attacked, attackable, run_attack
from vlmend.audit.explaining.maps import as_map_method
from vlmend.audit.explaining.run import Explained
from vlmend.audit.judging import JUDGES
from vlmend.audit.plan import Plan, check_names, default_suites, names_in, of_kind
from vlmend.audit.preflight import SUBJECT
from vlmend.audit.run import audit as run_audit
from vlmend.core.attacks import AbstractAttack, Budget
from vlmend.core.contracts import AbstractMethod, AbstractStep, DataEdit
from vlmend.core.examples import Dataset
from vlmend.core.measures import Scorecard
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget, DualTarget, Kind, Target, check_access, check_kind
from vlmend.core.verdicts import Judge
from vlmend.data.layouts import PLUS, read_data
from vlmend.data.sources import builtin_dataset
from vlmend.errors import UsageError
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target as load_target
from vlmend.models.vlm import VLM
from vlmend.steps.running import apply_step as run_step
from vlmend.studies.audits import comparable, compare_audits
from vlmend.studies.auto import choose_mend as run_choice
from vlmend.studies.carried import carriers_in
from vlmend.studies.comparing import compare_chat
from vlmend.studies.defences import fitting_defences, parse_defences
from vlmend.studies.explaining import explain_pictures
from vlmend.studies.measuring import Sizes, panels

__all__ = ["apply_step", "attack", "audit", "choose_mend", "compare", "explain", "fit", "open_target"]

Progress = Callable[[str, int, int], None]
Data = Dataset | str | Path
AnyMend = Mend | str | Path


def silent(step: str, done: int, total: int) -> None:
    """No progress to show."""


def unsaid(line: str) -> None:
    """A note that nobody reads."""


def open_target(
    name: str, *, options: LoadOptions = LoadOptions(), api_base: str | None = None,
    check: Callable[[Kind], object] = lambda kind: None,
) -> Target:  # fmt: skip
    """A model by its name: of the hub, a folder, an embedded model, or `api:NAME` as a black box.

    Args:
        name: What to open. Its config says whether it answers or is a dual encoder.
        options: How to load it.
        api_base: Address of an API model; OPENAI_BASE_URL unless given.
        check: Called with the kind that the config tells, before a weight is read; what it raises ends the opening.

    Raises:
        UsageError: Options of the one kind with a model of another.
        ModelProblem: It cannot be found or loaded; the message says why.
    """
    return load_target(name, options, api_base, folder=registry.model_folder(name), check=check)


def audit(
    target: Target | Dataset | str, suites: str | Sequence[str] | Plan = (), out: str | Path = "runs/audit", *,
    mends: Sequence[AnyMend] = (), data: Data | Sequence[str] | None = None,
    judges: Sequence[Judge | str] | None = None, limit: int | None = None, max_new_tokens: int | None = None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0, options: LoadOptions = LoadOptions(),
    api_base: str | None = None, progress: Progress = silent, note: Callable[[str], None] = unsaid,
    reference: Target | str | None = None,
) -> Scorecard:  # fmt: skip
    """Measure a model, with or without mends, or a data set; run again, it resumes.

    Args:
        target: What to audit; `data:FILE` is a data set.
        suites: Suites or axes, also in one string with commas; those of the target's kind unless given. Or a whole
            plan, which then holds what the settings below say.
        out: The run folder.
        mends: Put on the target in this order.
        data: What to ask about; the built-in data unless given. Several lines of text are one set.
        judges: Judges of the replies; the first that answers a suite's own question gives its headline.
        limit: Requests of each kind, or all.
        max_new_tokens: Longest reply, or each suite's own.
        temperature: 0 is greedy.
        epochs: How often each request is asked.
        seed: Of draws and resampling.
        options: How to load a target that is named.
        api_base: Address of an API model that is named.
        progress: Called with (step, done, total).
        note: Called with what a reader of the numbers should know, a line each.
        reference: A model of the same recipe trained on other data, which some suites hold the target against.

    Raises:
        UsageError: A suite does not fit the target, or the folder holds another run.
        NeedsAccess: A suite looks deeper than the target lets it.
    """
    readers = None if judges is None else _readers(judges)
    settings = (limit, max_new_tokens, seed, temperature, epochs)
    plan = suites if isinstance(suites, Plan) else Plan(names_in(suites), _asked(data), *settings)
    check_names(plan.suites)
    held = [_mend(one) for one in mends]
    subject: Target | Dataset = _mended(_subject(target, plan, options, api_base, progress), held)
    kind: Kind = "data" if isinstance(subject, Dataset) else subject.kind
    plan = plan if plan.suites else replace(plan, suites=default_suites(kind))
    other = None if reference is None else _opened(reference, options, api_base, progress)
    return run_audit(subject, plan, Path(out), judges=readers, progress=progress, note=note, reference=other)


def fit(
    method: AbstractMethod[Any] | str, target: Target | str, data: Data | None = None, *, seed: int = 0,
    options: LoadOptions = LoadOptions(), api_base: str | None = None, progress: Progress = silent, **parameters: Any,
) -> Mend:  # fmt: skip
    """Fit a mend for a target, which stays as it is: `target.with_mend(mend)` is the mended view.

    Args:
        method: See `vlmend list methods`.
        target: What to mend.
        data: What to fit on; the method's own data or the built-in calibration set unless given.
        seed: Of the fit.
        options: How to load a target that is named.
        api_base: Address of an API model that is named.
        progress: Called with (step, done, total).
        parameters: Of a method that is named.

    Raises:
        UnknownName, BadParameter: There is no such method, or it has no such parameter.
        UsageError: The method works on other targets.
        NeedsAccess: The target cannot be reached as deep as the method must.
    """
    made = _made(registry.make_method, method, parameters)
    given = None if data is None else _read(data)
    check = _fitting(made.name, made.works_on, target)
    opened = _opened(target, options, api_base, progress, check)
    return made.fit(opened, given or made.builtin() or _anchors(), seed=seed)


def choose_mend(
    target: Target | str, out: str | Path, data: Data | None = None, *,
    judges: Sequence[Judge | str] | None = None, quick: bool = False, seed: int = 0,
    options: LoadOptions = LoadOptions(), api_base: str | None = None, progress: Progress = silent,
) -> Mend:  # fmt: skip
    """Try methods and strengths on a validation split and keep the best in `out`, with every candidate's measures.

    Args:
        target: What to mend.
        out: Folder of the mend, of the candidates and of `choice.json`.
        data: What to fit on; the built-in calibration set unless given.
        judges: Judges of the replies; `JUDGES` unless given. One must tell refusals.
        quick: Fewer candidates and requests.
        seed: Of the fits.
        options: How to load a target that is named.
        api_base: Address of an API model that is named.
        progress: Called with (step, done, total).

    Raises:
        UsageError, NeedsAccess: The target does not answer, or its states cannot be read.
    """
    readers, anchors = _readers(judges), _anchors() if data is None else _read(data)
    model = _inside(_opened(target, options, api_base, progress, _fitting("auto", "chat", target)), "auto")
    return run_choice(model, anchors, Path(out), judges=readers, quick=quick, seed=seed, progress=progress)


def attack(
    attack: AbstractAttack[Any, Any] | str, target: Target | str, data: Data | None = None, *, epsilon: float,
    steps: int = 10, out: str | Path | None = None, mends: Sequence[AnyMend] = (), after: Data | None = None,
    limit: int | None = None, seed: int = 0, options: LoadOptions = LoadOptions(), progress: Progress = silent,
    **parameters: Any,
) -> Attacked:  # fmt: skip
    """Turn a data set into one that a target fails on: `.data`, beside how often the target was right before and after.

    Pictures stay within epsilon. A run with `out` that was stopped resumes.

    Args:
        attack: See `vlmend list attacks`.
        target: What is attacked.
        data: What is changed; built-in pictures unless given.
        epsilon: Largest change of a pixel, as a share of black to white (4/255).
        steps: Gradient steps, or tries.
        out: Folder to write the attacked set to.
        mends: Put on the target first: the attack then knows them.
        after: What an earlier attack made of the data: only rows that the target still gets right are attacked.
        limit: The first rows of the data, or so many evenly spread built-in pictures; all unless given.
        seed: Of its draws.
        options: How to load a target that is named.
        progress: Called with (step, done, total).
        parameters: Of an attack that is named.

    Raises:
        UnknownName, BadParameter: There is no such attack, or no such parameter.
        UsageError, NeedsAccess: It does not fit the target.
        BadData: No row can be attacked.
    """
    made = _made(registry.make_attack, attack, parameters)
    budget, held = Budget(epsilon, steps), [_mend(one) for one in mends]
    given, earlier = (None if rows is None else _read(rows) for rows in (data, after))
    opened = _opened(target, options, None, progress, _fitting(made.name, made.works_on, target))
    view: Target = _mended(opened, held)
    rows = attackable(made, view.kind, given, limit)
    return run_attack(made, view, rows, budget, seed=seed, out=_folder(out), progress=progress, earlier=earlier)


def explain(
    target: Target | str, data: Data | None = None, out: str | Path = "runs/explain", *, texts: Sequence[str] = (),
    method: str = "integrated_gradients", mends: Sequence[AnyMend] = (), limit: int | None = None, seed: int = 0,
    checks: bool = True, options: LoadOptions = LoadOptions(), progress: Progress = silent,
) -> Explained:  # fmt: skip
    """Show what in each picture speaks for a text, or for a reply: maps, their checks, and the page `explain.html`.

    A run that was stopped resumes.

    Args:
        target: A dual encoder, whose logit of picture and text is explained, or a model that answers, whose mean
            log-likelihood of a reply is.
        data: Rows with pictures; a `box` or a mask says where the person is. Built-in people unless given.
        out: Folder of maps, numbers and page.
        texts: What to explain of every picture; else each row's caption or first answer, or the model's own reply.
        method: integrated_gradients, grad_cam or occlusion.
        mends: Put on the target first.
        limit: The first pictures of the data, or so many built-in people.
        seed: Of shuffled weights and random orders.
        checks: Whether maps are held to those of shuffled weights, and to what hiding does to the score.
        options: How to load a target that is named.
        progress: Called with (step, done, total).

    Raises:
        UsageError: There is no such method, or no row has a picture.
        NeedsAccess: The target gives no gradients.
        ModelProblem: No map can be made of it.
    """
    how, given, held = as_map_method(method), None if data is None else _read(data), [_mend(one) for one in mends]
    opened = _opened(target, options, None, progress, _fitting("explain", ("dual", "chat"), target))
    return explain_pictures(_mended(opened, held), given, Path(out), texts=texts, method=how, limit=limit, seed=seed,
                            checks=checks, progress=progress)  # fmt: skip


def apply_step(
    step: AbstractStep | str, data: Data, *, out: str | Path | None = None, seed: int = 0, **parameters: Any
) -> DataEdit:
    """Turn a data set into another, with the reason for each row that is not as it was.

    Args:
        step: See `vlmend list steps`.
        data: What is changed.
        out: Folder to write the new set and the report to.
        seed: Of its draws.
        parameters: Of a step that is named.

    Raises:
        UnknownName, BadParameter: There is no such step, or no such parameter.
        BadData: The data holds nothing that the step can work on.
    """
    made = _made(registry.make_step, step, parameters)
    return run_step(made, _read(data), seed=seed, out=_folder(out))


def compare(
    target: Target | str, methods: str = "all", out: str | Path = "runs/compare", *,
    mends: Sequence[str | Path] | Mapping[str, Mend] = (), data: Data | None = None, test: Data | None = None,
    suites: str | Sequence[str] = (), judges: Sequence[Judge | str] | None = None, limit: int | None = None,
    max_new_tokens: int = 24, seed: int = 0, options: LoadOptions = LoadOptions(), api_base: str | None = None,
    curves: str = "", progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """Compare mends on the same samples, and give what `defences.json` (`curves.json`) holds.

    Of a model that answers: safety, price, sight, time and what each mend needs (behind an API: of mends that need
    replies alone, and no time). Of a dual encoder: an audit of each, paired with that of the bare model.

    Args:
        target: What they mend.
        methods: Names with commas between, or all that fit; settings as `cmrm:alpha=0.6:anchors=all`.
        out: Folder for mends, replies or runs, `defences.json` and the page `defences.html`.
        mends: Fitted ones: folders, or mends by the name of their row.
        data: What to fit on; the built-in calibration set, or each method's own data, unless given.
        test: What to ask; the built-in held-out data unless given.
        suites: Of a dual encoder: suites or axes, as in `audit`.
        judges: Of a model that answers: `JUDGES` unless given. One must tell refusals.
        limit: Requests or rows of each kind, as in `audit`, or all.
        max_new_tokens: Longest reply.
        seed: Of the fits.
        options: How to load a target that is named.
        api_base: Address of an API model that is named.
        curves: Carriers (`photo,blank,noise`): each method is asked at several strengths; the page is `curves.html`.
        progress: Called with (step, done, total).

    Raises:
        UsageError, NeedsAccess: A method, the suites, the judges or the carriers do not fit the target.
    """
    carriers = carriers_in(curves) if curves else ()
    named, readers, check = parse_defences(methods), _readers(judges), comparable(target, suites, judges)
    given = mends if isinstance(mends, Mapping) else {Path(folder).name: Mend.load(Path(folder)) for folder in mends}
    fit_on = None if data is None else _read(data)
    check((opened := _opened(target, options, api_base, progress, check)).kind)
    wanted = fitting_defences(opened, named)
    if isinstance(opened, DualTarget):
        if carriers:
            raise UsageError(f"{opened.name} gives no replies, so it has no such curves.", "Leave out --curves.")
        plan = Plan(names_in(suites) or default_suites("dual"), _asked(test), limit, seed=seed)
        return compare_audits(opened, wanted, given, fit_on, plan, Path(out), seed=seed, progress=progress)
    sizes = Sizes(limit, limit, limit, limit, max_new_tokens)
    asked = panels(sizes, "held_out", None if test is None else _read(test))
    return compare_chat(
        cast("ChatTarget", opened), wanted, dict(given), fit_on or _anchors(), asked, sizes, Path(out),
        carriers=carriers, judges=readers, seed=seed, progress=progress,
    )  # fmt: skip


def _subject(
    target: Target | Dataset | str, plan: Plan, options: LoadOptions, api_base: str | None, progress: Progress
) -> Target | Dataset:
    if isinstance(target, Dataset):
        return target
    if isinstance(target, str) and target.startswith(SUBJECT):
        return read_data(target.removeprefix(SUBJECT))
    return _opened(target, options, api_base, progress, lambda kind: [of_kind(name, kind) for name in plan.suites])


def _fitting(name: str, works_on: Kind | tuple[Kind, ...], target: Target | str) -> Callable[[Kind], None]:
    """Refuses a plug-in that is for other models as soon as the kind is known."""
    return lambda kind: check_kind(kind, target if isinstance(target, str) else target.name, name, works_on)


def _opened(
    target: Target | str, options: LoadOptions, api_base: str | None, progress: Progress,
    check: Callable[[Kind], object] = lambda kind: None,
) -> Target:  # fmt: skip
    if not isinstance(target, str):
        return target
    progress("load", 0, 1)
    opened = open_target(target, options=options, api_base=api_base, check=check)
    progress("load", 1, 1)
    return opened


def _inside(target: Target, name: str) -> VLM:
    """A target whose states can be read, which studies need."""
    check_access(target, name, "chat", "states")
    return cast("VLM", target)


def _made(make: Callable[[str, Mapping[str, Any]], Any], given: Any, parameters: Mapping[str, Any]) -> Any:
    if isinstance(given, str):
        return make(given, parameters)
    if parameters:
        raise UsageError(f"{given.name} is made already, so it takes no {', '.join(parameters)}.", "Pass its name.")
    return given


def _read(data: Data) -> Dataset:
    return data if isinstance(data, Dataset) else read_data(str(data))


def _asked(data: Data | Sequence[str] | None) -> Dataset | str | None:
    """As a plan holds it: lines of text stay text, so that the run says where its data came from."""
    if data is None or isinstance(data, Dataset):
        return data
    return str(data) if isinstance(data, str | Path) else PLUS.join(data)


def _mend(mend: AnyMend) -> Mend:
    return mend if isinstance(mend, Mend) else Mend.load(Path(mend))


def _mended(subject: Any, mends: Sequence[Mend]) -> Any:
    """The subject under mends, in their order."""
    if mends and isinstance(subject, Dataset):
        raise UsageError("A data set takes no mends.", "Steps change data: vlmend data STEP DATA --out DIR.")
    for one in mends:
        subject = subject.with_mend(one)
    return subject


def _folder(out: str | Path | None) -> Path | None:
    return None if out is None else Path(out)


def _readers(judges: Sequence[Judge | str] | None) -> list[Judge]:
    given = JUDGES if judges is None else judges
    return [registry.make_judge(one) if isinstance(one, str) else one for one in given]


def _anchors() -> Dataset:
    """What chat mends are fitted on where neither the user nor the method brings data."""
    return builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
