"""Finds methods, suites, judges and models by name. The file name is the name.

Listing imports nothing; getting imports the one file. Other packages add theirs with an entry point
in the group `vlmend.methods`, `vlmend.suites`, `vlmend.judges` or `vlmend.models`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from vlmend.core.contracts import AbstractMethod
from vlmend.core.verdicts import Judge
from vlmend.errors import BadParameter, UnknownName, UsageError

if TYPE_CHECKING:
    from vlmend.audit.dual_suite import DualSuite
    from vlmend.audit.suite import Suite

__all__ = [
    "any_suite", "dual_suite", "judge_names", "make_judge", "make_method", "method_names", "model_folder",
    "model_names", "suite", "suite_names",
]  # fmt: skip

PACKAGES = {"methods": "vlmend.methods", "suites": "vlmend.audit.suites", "judges": "vlmend.audit.judges"}
DEPTH = {"methods": 1, "suites": 1, "judges": 0}
"""Folders between a group's package and its files: an axis, or none. Other files are no plug-ins."""

ATTRIBUTES = {"methods": "METHOD", "suites": "SUITE", "judges": "JUDGE"}
MODELS = {
    "phantom": "vlmend.phantom.chat.load:phantom",
    "phantom-clean": "vlmend.phantom.chat.load:phantom_clean",
    "phantom-mini": "vlmend.phantom.mini.build:phantom_mini",
    "phantom-mini-clean": "vlmend.phantom.mini.build:phantom_mini_clean",
    "phantom-clip": "vlmend.phantom.clip.load:phantom_clip",
    "phantom-clip-70": "vlmend.phantom.clip.load:phantom_clip_70",
    "phantom-clip-clean": "vlmend.phantom.clip.load:phantom_clip_clean",
}


def method_names() -> list[str]:
    """Names of every mend method."""
    return sorted(_places("methods"))


def suite_names() -> list[str]:
    """Names of every suite, as `axis/name`."""
    return sorted(_places("suites"))


def judge_names() -> list[str]:
    """Names of every judge."""
    return sorted(_places("judges"))


def model_names() -> list[str]:
    """Names of the embedded models; any hub name or folder works as well."""
    return sorted(MODELS | {e.name: e.value for e in entry_points(group="vlmend.models")})


def make_method(name: str, parameters: dict[str, Any]) -> AbstractMethod[Any]:
    """A method with its parameters checked and read from text where need be.

    Raises:
        UnknownName: No method of that name.
        BadParameter: A parameter it does not have, or of the wrong kind.
    """
    method: type[AbstractMethod[Any]] = _get("methods", name)
    known = [field.name for field in fields(method)]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise BadParameter(f"{name} has no parameter {', '.join(unknown)}.", f"It has: {', '.join(known)}.")
    try:
        return TypeAdapter(method).validate_python(parameters)
    except ValidationError as problem:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors())
        raise BadParameter(
            f"{name} cannot take these parameters ({what}).", f"See docs/methods/{name}.md."
        ) from problem


def suite(name: str) -> Suite:
    """A suite of models that answer, by its name with or without its axis.

    Raises:
        UsageError: It is one of dual encoders.
    """
    found = any_suite(name)
    if found.works_on == "dual":
        raise UsageError(f"{found.name} measures embeddings: it has no replies.", "Audit a dual encoder with it.")
    return found


def dual_suite(name: str) -> DualSuite:
    """A suite of dual encoders, by its name with or without its axis.

    Raises:
        UsageError: It is one of models that answer.
    """
    found = any_suite(name)
    if found.works_on == "generative":
        raise UsageError(f"{found.name} asks for replies.", "Audit a model that answers with it.")
    return found


def any_suite(name: str) -> Suite | DualSuite:
    """A suite of either kind."""
    full = [known for known in suite_names() if name in (known, known.split("/")[-1])]
    return _get("suites", full[0] if full else name)


def make_judge(text: str) -> Judge:
    """The judge of `NAME` or `NAME:ARGUMENT`; what the argument is, the judge says."""
    name, _, argument = text.partition(":")
    return _get("judges", name).of(argument)


def model_folder(name: str) -> str | Path:
    """The folder of an embedded model (built on first use); any other name is given back."""
    places = MODELS | {e.name: e.value for e in entry_points(group="vlmend.models")}
    if name not in places:
        return name
    module, _, function = places[name].partition(":")
    make: Callable[[], Path] = getattr(importlib.import_module(module), function)
    return make()


def _get(group: str, name: str) -> Any:
    places = _places(group)
    if name not in places:
        close = get_close_matches(name, places, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise UnknownName(f"There is no {group.removesuffix('s')} {name!r}.", f"{hint}See: vlmend list {group}.")
    module, _, attribute = places[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _places(group: str) -> dict[str, str]:
    """Name -> `module:attribute` of everything in a group."""
    package = importlib.import_module(PACKAGES[group])
    prefix = f"{package.__name__}."
    places = {
        _name(group, info.name.removeprefix(prefix)): f"{info.name}:{ATTRIBUTES[group]}"
        for info in pkgutil.walk_packages(package.__path__, prefix)
        if not info.ispkg and info.name.removeprefix(prefix).count(".") == DEPTH[group]
    }
    return places | {entry.name: entry.value for entry in entry_points(group=f"vlmend.{group}")}


def _name(group: str, path: str) -> str:
    """`safety.cmrm` -> `cmrm` for methods and judges, `safety/alignment_gap` for suites."""
    return path.replace(".", "/") if group == "suites" else path.split(".")[-1]
