"""What contract checks are made of: a law is a function named after its claim, put to the trial of one plug-in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vlmend import registry
from vlmend.errors import BadParameter, VlmendError

__all__ = ["Laws", "bound", "check_page", "check_parameters", "held", "refused", "require", "settle"]

Laws = Mapping[str, Callable[[], None]]
"""The laws of one plug-in by name; calling one raises an AssertionError where it is broken."""

Trial = TypeVar("Trial")
Problem = TypeVar("Problem", bound=VlmendError)

SHORT = 200
"""Characters of the shortest page that says anything."""


def bound(plugin: str, trial: Trial, laws: Iterable[Callable[[Trial], None]]) -> Laws:
    """Each law put to this trial; what it raises names the plug-in and the law."""
    return {law.__name__: partial(_put, plugin, law, trial) for law in laws}


def settle(laws: Laws) -> None:
    """Run every law.

    Raises:
        AssertionError: Some are broken; all of them are named, with what was seen.
    """
    broken: list[AssertionError] = []
    for law in laws.values():
        try:
            law()
        except AssertionError as problem:
            broken.append(problem)
    if broken:
        raise AssertionError("\n".join(map(str, broken))) from broken[0]


def require(holds: bool, seen: str) -> None:
    """Part of a law; `seen` is what was seen where it is broken."""
    if not holds:
        raise AssertionError(seen)


def refused(kind: type[Problem], call: Callable[[], object], what: str) -> Problem:
    """The error with which a call is refused.

    Raises:
        AssertionError: It is not refused, in another way, or without a way out.
    """
    try:
        call()
    except kind as problem:
        require(bool(problem.hint.strip()), f"{what} is refused without a way out: {problem.message}")
        return problem
    except Exception as problem:
        raise AssertionError(f"{what} raises {problem!r} in the place of {kind.__name__}") from problem
    raise AssertionError(f"{what} is not refused")


def held(group: str, plugin: Any) -> tuple[Any, str]:
    """What a plug-in is, and its full registered name: of a name, or of the thing itself, which has none."""
    if isinstance(plugin, str):
        return registry.get(group, plugin), registry.plugin(group, plugin).full
    return plugin, ""


def check_parameters(kind: Any, group: str) -> None:
    """Parameters survive JSON, and one that is not there is refused with those that are."""
    first = registry.configured(kind, group, kind.quick)
    again = registry.configured(kind, group, json.loads(json.dumps(first.parameters)))
    require(again == first, f"written to JSON and read again, {first} becomes {again}")
    problem = refused(
        BadParameter, lambda: registry.configured(kind, group, {"no_such_thing": 1}), "the parameter no_such_thing"
    )
    left = [one.name for one in fields(kind) if one.name not in problem.hint]
    require(not left, f"the refusal of an unknown parameter does not name {', '.join(left)}")


def check_page(page: Path, title: str, sections: Iterable[str] = (), names: Iterable[str] = ()) -> None:
    """A page of the docs: its title, its sections, and each name that it must explain in backticks.

    Args:
        page: The file.
        title: With which its first line begins, after "# ".
        sections: Regular expressions; a heading of the second level must begin with each.
        names: Explained on the page, or on a page beside it that it links to.
    """
    require(page.is_file(), f"there is no {page.name} in {page.parent}")
    text = page.read_text("utf-8")
    first, headings = text.partition("\n")[0], re.findall(r"^## (.+)$", text, re.MULTILINE)
    require(first.startswith(f"# {title}"), f"{page.name} begins with {first!r}")
    lacking = [one for one in sections if not any(re.match(one, heading) for heading in headings)]
    require(not lacking, f"{page.name} has no section {', '.join(lacking)}, only {', '.join(headings)}")
    require(len(text) >= SHORT, f"{page.name} holds {len(text)} characters")
    linked = {page.parent / name for name in re.findall(r"\]\(([\w-]+\.md)", text)}
    everything = text + "".join(one.read_text("utf-8") for one in linked if one.is_file())
    silent = [name for name in names if f"`{name}`" not in everything]
    require(not silent, f"{page.name} does not explain {', '.join(silent)}")


def _put(plugin: str, law: Callable[[Trial], None], trial: Trial) -> None:
    try:
        law(trial)
    except Exception as problem:
        seen = str(problem) if isinstance(problem, AssertionError) else f"it raised {problem!r}"
        raise AssertionError(f"{plugin} breaks the law {law.__name__}: {seen}.") from problem
