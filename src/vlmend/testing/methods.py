"""The contract of methods: what a mend is, does and leaves alone, and what its card and page say."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vlmend import registry
from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import ActivationEdit, ContrastShift
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import LEVELS, Kind, kinds_of
from vlmend.errors import MendMismatch, NeedsAccess, UsageError, VlmendError
from vlmend.models.identity import of_base
from vlmend.testing.fakes import full_digest, hook_count, narrowed
from vlmend.testing.laws import Laws, bound, check_page, check_parameters, held, refused, require, settle
from vlmend.testing.stages import BROKEN, ROUNDING, Seen, Stage, differing, on_call, stage_of

__all__ = ["MethodTrial", "check_method", "laws_of_method"]

SEED = 5
MOVED = 1e-3
"""Least change of a logit or an embedding that counts as one."""

SECTIONS = ("What it (does|is for)", "When it", "Cost")
"""How headings of a method's page begin."""


@dataclass(frozen=True, eq=False)
class MethodTrial:
    """A method, fitted once on a tiny model with its quick parameters.

    Attributes:
        kind: Its class.
        full: Its registered name; empty where it was handed over as a class.
        works_on: The kind of target that it is tried on, of those that it declares.
        docs: The folder that holds `methods/NAME.md`, or None.
    """

    kind: type[AbstractMethod[Any]]
    full: str
    works_on: Kind
    docs: Path | None

    @property
    def stage(self) -> Stage:
        return stage_of(self.works_on)

    @cached_property
    def method(self) -> AbstractMethod[Any]:
        return self.made({})

    @cached_property
    def data(self) -> Dataset:
        return self.method.sample_data() or self.stage.rows()

    @cached_property
    def mend(self) -> Mend:
        return self.method.fit(self.stage.base, self.data, seed=SEED)

    @cached_property
    def view(self) -> Any:
        """The shared base under the mend."""
        return self.stage.base.with_mend(self.mend)

    @cached_property
    def mended(self) -> Seen:
        """What is seen of a fresh model that is asked under the mend alone."""
        return self.stage.seen(self.stage.fresh().with_mend(self.mend))

    def made(self, parameters: Mapping[str, Any]) -> AbstractMethod[Any]:
        """The method with its quick parameters and these."""
        return registry.configured(self.kind, "methods", {**self.kind.quick, **parameters})


def check_method(plugin: str | type[AbstractMethod[Any]], docs: Path | None = None) -> None:
    """Hold a method to its contract.

    Args:
        plugin: Its registered name, or its class.
        docs: The folder that holds `methods/NAME.md`; without one no page is asked for.

    Raises:
        AssertionError: It breaks laws; all of them are named, with what was seen.
    """
    settle(laws_of_method(plugin, docs))


def laws_of_method(plugin: str | type[AbstractMethod[Any]], docs: Path | None = None) -> Laws:
    """The laws that hold for this method, by name, as `check_method` runs them; with the kind where it has several."""
    kind, full = held("methods", plugin)
    laws = [
        says_what_it_is, parameters_survive_json, same_seed_same_mend, saved_and_loaded_is_the_same,
        scale_zero_is_the_base, any_order_of_calls_is_the_same, batched_is_alone, the_base_is_unchanged,
        the_base_survives_a_failed_install, the_base_survives_an_error_in_the_middle, refused_on_another_base,
        refused_on_another_identity, the_card_says_everything, text_only_requests_stay, it_does_something,
        it_is_refused_where_it_does_not_fit, declared_access_is_enough, a_bad_row_is_left_out_by_name,
    ]  # fmt: skip
    if docs is not None:
        laws.append(the_page_says_it)
    name, kinds = full or kind.name, kinds_of(kind.works_on)
    if len(kinds) == 1:
        return bound(name, _trial(plugin, kinds[0], docs), laws)
    every = {one: bound(f"{name} on {one}", _trial(plugin, one, docs), laws) for one in kinds}
    return {f"{law}-{one}": put for one, each in every.items() for law, put in each.items()}


@cache
def _trial(plugin: str | type[AbstractMethod[Any]], works_on: Kind, docs: Path | None) -> MethodTrial:
    return MethodTrial(*held("methods", plugin), works_on, docs)


# --- the laws


def says_what_it_is(trial: MethodTrial) -> None:
    """Name, source, cost and data are told, and kind and access exist."""
    kind = trial.kind
    require(not trial.full or trial.full.rpartition("/")[2] == kind.name, f"its name is {kind.name!r}")
    said = {"name": kind.name, "source": kind.source, "passes": kind.passes, "data": kind.data}
    empty = [name for name, text in said.items() if not text.strip()]
    require(not empty, f"it does not say its {', '.join(empty)}")
    levels = LEVELS.get(trial.works_on, ())
    require(kind.needs in levels, f"it works on {trial.works_on!r} and needs {kind.needs!r}, of {', '.join(levels)}")
    if kind.sweep is not None:
        name, values = kind.sweep
        require(name in {one.name for one in fields(kind)}, f"its sweep is over {name!r}, which is no parameter")
        require(list(values) == sorted(set(values)) and values[0] > 0, f"its sweep {values} does not rise from above 0")


def parameters_survive_json(trial: MethodTrial) -> None:
    """Quick parameters are parameters, JSON keeps them, and an unknown one is refused with those that are known."""
    check_parameters(trial.kind, "methods")


def same_seed_same_mend(trial: MethodTrial) -> None:
    """Fitted again, it is the same to the bit."""
    again = trial.method.fit(trial.stage.base, trial.data, seed=SEED)
    require(again.digest == trial.mend.digest, f"digests {trial.mend.digest[:12]} and {again.digest[:12]}")


def saved_and_loaded_is_the_same(trial: MethodTrial) -> None:
    """A folder brings back digest, card and all that is seen of the model."""
    with tempfile.TemporaryDirectory() as folder:
        trial.mend.save(Path(folder) / "mend")
        loaded = Mend.load(Path(folder) / "mend")
    require(loaded.digest == trial.mend.digest, "another digest is loaded than was saved")
    require(loaded.card == trial.mend.card, f"the card {loaded.card} is loaded for {trial.mend.card}")
    changed = differing(trial.stage.seen(trial.stage.base.with_mend(loaded)), trial.mended, ROUNDING)
    require(not changed, f"the loaded mend gives other {', '.join(changed)}")


def scale_zero_is_the_base(trial: MethodTrial) -> None:
    """Bit for bit."""
    view = trial.stage.base.with_mend(trial.mend.scaled(0.0))
    _same(trial.stage.seen(view), trial.stage.plain, "at scale 0")


def any_order_of_calls_is_the_same(trial: MethodTrial) -> None:
    """Asked with and without the mend, one model answers as fresh ones do: nothing leaks through its caches."""
    stage = trial.stage
    for order in ((False, True, False), (True, False, True)):
        base = stage.fresh()
        view = base.with_mend(trial.mend)
        done: list[str] = []
        for mended in order:
            done.append("mended" if mended else "base")
            expected = trial.mended if mended else stage.plain
            _same(stage.seen(view if mended else base), expected, f"on one model, in the order {', '.join(done)}")


def batched_is_alone(trial: MethodTrial) -> None:
    """Up to rounding, for each scope that it knows."""
    own = trial.method.parameters.get("scope", "")
    views = {own: (trial.view, trial.mended)}
    for scope in _scopes(trial.kind) - {own}:
        view = trial.stage.base.with_mend(trial.made({"scope": scope}).fit(trial.stage.base, trial.data, seed=SEED))
        views[scope] = (view, trial.stage.seen(view))
    for scope, (view, batched) in views.items():
        changed = differing(batched, trial.stage.alone(view), ROUNDING)
        require(
            not changed, f"{scope and f'scope={scope}: '}in a batch there are other {', '.join(changed)} than alone"
        )


def the_base_is_unchanged(trial: MethodTrial) -> None:
    """Weights and hooks are those of before, after a fit and a call under the mend."""
    target = trial.stage.fresh()
    trial.stage.seen(target)
    before = _state(trial.stage, target)
    trial.method.fit(target, trial.data, seed=SEED)
    trial.stage.seen(target.with_mend(trial.mend))
    _unchanged(trial.stage, target, before)


def the_base_survives_a_failed_install(trial: MethodTrial) -> None:
    """An edit behind its own cannot be installed; nothing stays of those before."""
    stage, broken = trial.stage, Mend((*trial.mend.edits, trial.stage.misfit), trial.mend.card)
    before = _state(stage, stage.base)
    refused(VlmendError, lambda: stage.seen(stage.base.with_mend(broken)), "an edit that does not fit")
    _unchanged(stage, stage.base, before)


def the_base_survives_an_error_in_the_middle(trial: MethodTrial) -> None:
    """A part of the model raises at its second call under the mend."""
    stage, calls = trial.stage, list[int]()
    before = _state(stage, stage.base)

    def fail() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise _PlugPulledError

    try:
        with on_call(stage.block(stage.base), fail):
            stage.seen(trial.view)
    except _PlugPulledError:
        pass
    else:
        raise AssertionError(f"the error did not come through ({len(calls)} calls)")
    _unchanged(stage, stage.base, before)
    _same(stage.seen(stage.base), stage.plain, "after an error in the middle, the base")


def refused_on_another_base(trial: MethodTrial) -> None:
    """On other weights, with the name of the model that it was fitted on."""
    other = trial.stage.fresh(1)
    problem = refused(MendMismatch, lambda: other.with_mend(trial.mend), "a mend of another model")
    require(trial.stage.base.name in problem.message, f"the refusal names no model: {problem.message}")


def refused_on_another_identity(trial: MethodTrial) -> None:
    """On the same weights with another processor, tokenizer or template, with the name of the part."""
    card, known = trial.mend.card, trial.stage.base.identity
    parts = list(of_base(known))
    require(set(parts) <= set(card.identity), f"the card knows of the parts {sorted(card.identity)} only")
    for part in parts:
        other = replace(trial.mend, card=replace(card, identity={**card.identity, part: "another"}))
        problem = refused(MendMismatch, lambda mend=other: trial.stage.base.with_mend(mend), f"another {part}")
        require(part.replace("_", " ") in problem.message, f"the refusal does not name {part}: {problem.message}")


def the_card_says_everything(trial: MethodTrial) -> None:
    """Method, parameters, model, data, seed, versions; a dose where states are edited."""
    card, base = trial.mend.card, trial.stage.base
    said = (card.method, card.parameters, card.model, card.model_digest, card.data, card.data_digest, card.seed)
    meant = (
        trial.kind.name, trial.method.parameters, base.name, base.model_digest, trial.data.name, trial.data.digest,
        SEED,
    )  # fmt: skip
    require(said == meant, f"the card says {said}, not {meant}")
    require("torch" in card.versions and card.source == trial.kind.source, "the card lacks versions or source")
    shifts = any(isinstance(edit, ActivationEdit | ContrastShift) for edit in trial.mend.edits)
    if trial.works_on == "chat":
        require(bool(card.dose) == shifts, f"the doses are {card.dose}, and it edits {'' if shifts else 'no '}states")
    require(all(dose >= 0 for dose in card.dose.values()), f"the doses are {card.dose}")


def text_only_requests_stay(trial: MethodTrial) -> None:
    """Of a model that answers, unless the method declares `changes_text`."""
    if trial.works_on != "chat":
        return
    declared, touches = trial.kind.changes_text, trial.mend.touches(with_image=False)
    require(touches == declared, f"changes_text is {declared}, and its edits say {touches}")
    if not declared:
        names = [name for name in differing(trial.mended, trial.stage.plain, ROUNDING) if "text" in name]
        require(not names, f"{', '.join(names)} are others under the mend")


def it_does_something(trial: MethodTrial) -> None:
    """All that is seen of the model moves, or, where edits act around replies only, it reads more."""
    plain, mended = trial.stage.plain, trial.mended
    if differing(plain, mended, MOVED):
        return
    around = all(edit.touches <= {"reply"} for edit in trial.mend.edits)
    require(around, "nothing that is seen of the model is another under its quick parameters")
    before, after = trial.stage.work(trial.stage.base), trial.stage.work(trial.view)
    require(after > before, f"replies are the same, and a block runs {after} times where it ran {before}")


def it_is_refused_where_it_does_not_fit(trial: MethodTrial) -> None:
    """By `fit`, on another kind of target and on one that gives less than it needs."""
    method, data = trial.method, trial.data
    stranger = trial.stage.stranger
    if stranger.kind not in kinds_of(trial.kind.works_on):
        refused(UsageError, lambda: method.fit(stranger, data, seed=SEED), "another kind of target")
    surface = LEVELS[trial.works_on][0]
    if trial.kind.needs != surface:
        shown = narrowed(trial.stage.base, surface)
        refused(NeedsAccess, lambda: method.fit(shown, data, seed=SEED), f"a target that gives its {surface} only")


def declared_access_is_enough(trial: MethodTrial) -> None:
    """A target that gives just what it says it needs gets the same mend."""
    shown = narrowed(trial.stage.base, trial.kind.needs)
    made = trial.method.fit(shown, trial.data, seed=SEED)
    require(made.digest == trial.mend.digest, f"with {trial.kind.needs} alone it makes another mend")


def a_bad_row_is_left_out_by_name(trial: MethodTrial) -> None:
    """One row with a picture that cannot be read does not end a fit; if it is read at all, the card names it."""
    rows = trial.data.examples
    like = next((row for row in rows if row.image is not None), rows[0])
    data = replace(trial.data, examples=(*rows, replace(like, id="broken-row", image=BROKEN)))
    mend = trial.method.fit(trial.stage.base, data, seed=SEED)
    if mend.card.notes:
        require(any("broken-row" in note for note in mend.card.notes), f"the card notes {mend.card.notes}")
        require(
            mend.digest == trial.mend.digest, "without the bad row it is another mend than without it from the start"
        )


def the_page_says_it(trial: MethodTrial) -> None:
    """docs/methods/NAME.md has its title and sections, and explains each parameter."""
    assert trial.docs is not None
    page = trial.docs / "methods" / f"{trial.kind.name}.md"
    check_page(page, f"{trial.kind.name}: ", SECTIONS, trial.method.parameters)


# --- their parts


class _PlugPulledError(Exception):
    """Raised by no library."""


def _same(first: Seen, second: Seen, where: str) -> None:
    changed = differing(first, second)
    require(not changed, f"{where} gives other {', '.join(changed)}")


def _state(stage: Stage, target: Any) -> tuple[str, int]:
    return full_digest(stage.module(target)), hook_count(stage.module(target))


def _unchanged(stage: Stage, target: Any, before: tuple[str, int]) -> None:
    digest, hooks = _state(stage, target)
    require(digest == before[0], "weights of the base are others than before")
    require(hooks == before[1], f"{hooks} hooks are on the base, {before[1]} were before")


def _scopes(kind: type[AbstractMethod[Any]]) -> set[str]:
    """The scopes that a method knows; none where it has no such parameter."""
    hint = get_type_hints(kind).get("scope")
    return set(get_args(hint)) if get_origin(hint) is Literal else set()
