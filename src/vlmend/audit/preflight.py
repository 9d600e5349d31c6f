"""What can be told of an audit before its model is there: mistakes in what was asked, all at once, and its size.

Light on purpose: no weights, and no library that models need. What only the model can tell is checked when it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlmend import registry
from vlmend.audit.journal import Journal
from vlmend.audit.judging import JUDGES
from vlmend.audit.plan import Plan, check_names, default_suites, suites_of
from vlmend.audit.run_folder import check_same
from vlmend.core.contracts import AbstractSuite
from vlmend.core.examples import Dataset
from vlmend.core.files import check_writable, read_json
from vlmend.core.gates import parse_gate
from vlmend.core.measures import Scorecard
from vlmend.core.mend import Mend
from vlmend.core.targets import Kind
from vlmend.data.layouts import PLUS, read_data
from vlmend.errors import BadParameter, check_all
from vlmend.models.judging.sentences import encoder
from vlmend.models.loading.options import LoadOptions, check_packages
from vlmend.models.loading.places import check_place, is_pipeline

if TYPE_CHECKING:  # a plan of the whole needs no shards
    from vlmend.audit.sharding import Shard

__all__ = ["PlanSize", "SuiteSize", "check_audit", "check_names_of", "plan_size"]

SUBJECT = "data:"
"""What is audited is a data set: `data:FILE.jsonl`, or `data:` before any line that `read_data` reads."""


def check_audit(
    model: str, plan: Plan, out: Path, *, mends: Sequence[Path] = (), judges: Sequence[str] | None = None,
    gates: Sequence[str] = (), options: LoadOptions = LoadOptions(), reference: str | None = None,
) -> None:  # fmt: skip
    """Refuse an audit whose names, files, parameters, judges or run folder are wrong, before anything is loaded.

    Args:
        model: A hub name, a folder, an embedded model, `api:NAME`, or `data:FILE`.
        plan: What to ask; its data is a line of text, or None.
        out: The run folder.
        mends: Folders.
        judges: By name; the default ones unless given.
        gates: As they are written.
        options: Of loading.
        reference: The model that it is held against.

    Raises:
        VlmendError: The mistake, or a `SeveralProblems` of all.
    """
    check_all([
        lambda: _check_subject(model),
        *([] if reference is None else [lambda: _check_model(reference)]),
        lambda: check_names(plan.suites),
        *(partial(_check_data, text) for text in _parts(plan)),
        *(partial(Mend.load, folder) for folder in mends),
        *(partial(registry.make_judge, name) for name in (JUDGES if judges is None else judges)),
        *(partial(parse_gate, text) for text in gates),
        lambda: check_packages(options),
        lambda: check_writable(out),
        lambda: check_same(out, plan),
    ])  # fmt: skip


def check_names_of(
    model: str, data: Sequence[str] = (), *others: Callable[[], object], out: Path | None = None,
    judges: Sequence[str] = (), mends: Sequence[Path] = (), options: LoadOptions = LoadOptions(),
) -> None:  # fmt: skip
    """Refuse what is wrong of a verb's arguments before anything is loaded, all at once.

    Args:
        model: A hub name, a folder, an embedded model, or `api:NAME`.
        data: Lines of text that name data.
        others: What else the verb must make; each raises what is wrong.
        out: Where the verb writes.
        judges: By name.
        mends: Folders.
        options: Of loading.

    Raises:
        VlmendError: The mistake, or a `SeveralProblems` of all.
    """
    check_all([
        lambda: _check_model(model),
        *(partial(_check_data, text) for text in data),
        *(partial(Mend.load, folder) for folder in mends),
        *(partial(registry.make_judge, name) for name in judges),
        *others,
        lambda: check_packages(options),
        *([] if out is None else [lambda: check_writable(out)]),
    ])  # fmt: skip


@dataclass(frozen=True)
class SuiteSize:
    """How much one suite asks.

    Attributes:
        suite: Its name.
        rows: Rows of the user's data that it asks about; None where it asks its own.
        requests: To the model; 0 for a suite that measures by itself.
        tokens: New tokens at most.
    """

    suite: str
    rows: int | None
    requests: int
    tokens: int


@dataclass(frozen=True)
class PlanSize:
    """How much a plan asks, or a shard of it.

    Attributes:
        suites: Each suite's part.
        kept: Replies that the run folder, or that of the shard, holds already.
        seconds: About how long the rest takes, by the newest finished run of this model beside the run folder; None
            where there is none.
    """

    suites: tuple[SuiteSize, ...]
    kept: int
    seconds: float | None


def plan_size(
    model: str, plan: Plan, out: Path, kind: Kind, *, reference: bool = False, shard: Shard | None = None
) -> PlanSize:
    """What a checked plan asks of a subject of this kind, or a shard of it; of a shard, the folder is its own.

    Raises:
        VlmendError: A suite does not fit the kind, or the data holds nothing for it.
    """
    place = out
    if shard is not None:
        from vlmend.audit.sharding import check_divides, shards_folder

        check_divides(kind)
        place = shards_folder(out) / shard.name
    text = model.removeprefix(SUBJECT) if kind == "data" else plan.data
    data = read_data(text, encode=lambda texts: encoder()(texts)) if isinstance(text, str) else text
    names = plan.suites or default_suites(kind)
    suites = tuple(
        _size(registry.suite(name), plan, data, shard) for name in suites_of(names, data, kind, reference=reference)
    )
    kept = Journal(place / "replies.jsonl", foreign=True).reused
    left, speed = sum(one.requests for one in suites) - kept, _earlier_speed(model, out)
    return PlanSize(suites, kept, None if speed is None else max(0, left) / speed)


def _earlier_speed(model: str, out: Path) -> float | None:
    """Requests a second of the newest finished run of this model beside a run folder."""
    runs = sorted(out.parent.glob("*/scorecard.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in runs:
        cost = read_json(file.parent / "cost.json")
        if cost and cost.get("requests_per_second") and Scorecard.load(file).model == model:
            return float(cost["requests_per_second"])
    return None


def _size(suite: AbstractSuite, plan: Plan, data: Dataset | None, shard: Shard | None) -> SuiteSize:
    from vlmend.audit.suite import Suite

    used = None if data is None else suite.uses(data)
    rows = None if used is None else len(used)
    if not isinstance(suite, Suite):
        return SuiteSize(suite.name, rows, 0, 0)
    questions = suite.questions(data, plan.limit)
    requests = sum(shard is None or shard.holds(one) for one in questions) * plan.epochs
    return SuiteSize(suite.name, rows, requests, requests * (plan.max_new_tokens or suite.max_new_tokens))


def _parts(plan: Plan) -> list[str]:
    return plan.data.split(PLUS) if isinstance(plan.data, str) else []


def _check_subject(model: str) -> None:
    if model.startswith(SUBJECT):
        _check_data(model.removeprefix(SUBJECT))
    else:
        _check_model(model)


def _check_model(model: str) -> None:
    registry.check_model(model)
    if model not in registry.names("models") and not is_pipeline(model):
        check_place(model)


def _check_data(text: str) -> None:
    with suppress(BadParameter):  # pictures by the likeness of captions: they are paired once the encoder is there
        read_data(text)
