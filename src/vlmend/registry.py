"""Finds plug-ins of every group by name: the file name is the name, its folder is the axis.

Listing imports nothing but packages; getting imports the one file. Other packages add theirs with an entry point in the
group `vlmend.GROUP`, named `axis/name` where the group knows axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vlmend.core.contracts import AbstractAttack, AbstractExporter, AbstractMethod, AbstractStep, AbstractSuite
from vlmend.core.measures import Axis
from vlmend.core.plugins import Group, Plugin, check_alone, held_by, plugins_of
from vlmend.core.verdicts import Judge
from vlmend.errors import BadParameter, BrokenPlugin, UnknownName

__all__ = [
    "GROUPS", "check_model", "configured", "exporter", "get", "group_of", "make_attack", "make_judge", "make_method",
    "make_step", "model_folder", "names", "plugin", "plugins", "suite",
]  # fmt: skip

GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        Group("methods", "method", "vlmend.methods", "METHOD", by_axis=True),
        Group("attacks", "attack", "vlmend.attacks", "ATTACK", by_axis=True),
        Group("steps", "step", "vlmend.steps", "STEP", by_axis=True),
        Group("suites", "suite", "vlmend.audit.suites", "SUITE", by_axis=True),
        Group("judges", "judge", "vlmend.audit.judges", "JUDGE"),
        Group("exporters", "exporter", "vlmend.export", "EXPORTER"),
        Group("data", "data set", "vlmend.data.adapters", "ADAPTERS"),
        Group("models", "model"),
        Group("scorers", "scorer"),
    )
}
"""Every kind of plug-in. Data adapters are read by `vlmend.data`, since one file may hold a family of sets."""


def group_of(name: str) -> Group:
    """A group of plug-ins by its name.

    Raises:
        UnknownName: There is none.
    """
    if name not in GROUPS:
        raise UnknownName(f"There is no group {name!r} of plug-ins.", f"There are: {', '.join(GROUPS)}.")
    return GROUPS[name]


def plugins(group: str, axis: str = "") -> list[Plugin]:
    """Every plug-in of a group, or of one axis of it, sorted by full name.

    Raises:
        UnknownName: There is no such group or axis.
        NameClash: Two of those listed have one name.
    """
    kind = group_of(group)
    every = plugins_of(kind).values()
    axes = [*get_args(Axis), *(one.axis for one in every if one.axis)] if kind.by_axis else []
    if axis and axis not in axes:
        known = ", ".join(dict.fromkeys(axes)) or "none in this group"
        raise UnknownName(f"There is no axis {axis!r} of {group}.", f"Axes: {known}.")
    for one in every:
        if any(axis in ("", it.axis) for it in (one, *one.rivals)):
            check_alone(kind, one)
    return [one for one in every if axis in ("", one.axis)]


def names(group: str, axis: str = "") -> list[str]:
    """Full names, as `vlmend list` prints them; errors as `plugins`."""
    return [one.full for one in plugins(group, axis)]


def plugin(group: str, name: str) -> Plugin:
    """A plug-in by its name, with or without its axis.

    Raises:
        UnknownName: There is none; the nearest name is told.
        NameClash: There are several.
    """
    kind = group_of(group)
    every = plugins_of(kind)
    found = every.get(name.rpartition("/")[2])
    if found is None or name not in (found.name, found.full, *(one.full for one in found.rivals)):
        close = get_close_matches(name, [*every, *(one.full for one in every.values())], n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise UnknownName(f"There is no {kind.singular} {name!r}.", f"{hint}See: vlmend list {group}.")
    check_alone(kind, found)
    return found


def get(group: str, name: str) -> Any:
    """What a plug-in's file holds: a class of methods, attacks, steps and judges, an object of suites and exporters.

    Raises:
        UnknownName: There is no such plug-in.
        NameClash: There are several.
        BrokenPlugin: It cannot be imported.
    """
    return held_by(group_of(group), plugin(group, name))


def make_method(name: str, parameters: Mapping[str, Any]) -> AbstractMethod[Any]:
    """A method with its parameters checked and read from text where need be.

    Raises:
        UnknownName: No method of that name.
        BadParameter: A parameter it does not have, or of the wrong kind.
    """
    return _made("methods", name, parameters)


def make_attack(name: str, parameters: Mapping[str, Any]) -> AbstractAttack[Any]:
    """An attack, as `make_method`."""
    return _made("attacks", name, parameters)


def make_step(name: str, parameters: Mapping[str, Any]) -> AbstractStep:
    """A step, as `make_method`."""
    return _made("steps", name, parameters)


def suite(name: str) -> AbstractSuite[Any]:
    """A suite by its name, with or without its axis."""
    return get("suites", name)


def exporter(name: str) -> AbstractExporter:
    """An exporter."""
    return get("exporters", name)


def make_judge(text: str) -> Judge:
    """The judge of `NAME` or `NAME:ARGUMENT`; what the argument is, the judge says."""
    name, _, argument = text.partition(":")
    return get("judges", name).of(argument)


def check_model(name: str) -> None:
    """Refuse a name that can be no model, without asking the hub: a folder that is not there, an embedded one mistyped.

    Raises:
        UnknownName: With the nearest name.
    """
    embedded, place = list(plugins_of(GROUPS["models"])), Path(name).expanduser()
    if name in embedded or place.exists() or name.startswith(("api:", "hf-hub:")):
        return
    near = get_close_matches(name, embedded, n=1, cutoff=0.75)
    if near:
        raise UnknownName(f"There is no model {name!r}.", f"Did you mean {near[0]}? See: vlmend list models.")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or ("/" in name and place.parent.is_dir()):
        beside = [one.name for one in place.parent.iterdir()] if place.parent.is_dir() else []
        hint = "".join(f"Did you mean {place.parent / one}? " for one in get_close_matches(place.name, beside, n=1))
        raise UnknownName(f"There is no folder {name}.", f"{hint}A hub name is written owner/name.")


def model_folder(name: str) -> str | Path:
    """The folder of an embedded model (made on first use); any other name is given back."""
    found = plugins_of(GROUPS["models"]).get(name)
    if found is None:
        return name
    make: Callable[[], Path] = held_by(GROUPS["models"], found)
    return make()


def configured(kind: Any, group: str, parameters: Mapping[str, Any]) -> Any:
    """A plug-in of this class with its parameters checked and read from text where need be.

    Raises:
        BadParameter: A parameter it does not have, or of the wrong kind.
        BrokenPlugin: The class has no parameters that can be told.
    """
    try:
        known = [field.name for field in fields(kind)]
    except TypeError as problem:
        raise BrokenPlugin(
            f"{getattr(kind, '__name__', kind)} is no dataclass, so its parameters are not known.",
            "Put @dataclass(frozen=True) on it: its fields are its parameters.",
        ) from problem
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise BadParameter(
            f"{kind.name} has no parameter {', '.join(unknown)}.", f"It has: {', '.join(known) or 'none'}."
        )
    bad = [name for name, own in parameters.items() if own != own or str(own).strip().lower() == "nan"]
    if bad:
        raise BadParameter(f"{kind.name}: {bad[0]}=nan is no number.", f"See docs/{group}/{kind.name}.md.")
    try:
        return TypeAdapter(kind).validate_python({name: _number(kind, name, own) for name, own in parameters.items()})
    except ValidationError as problem:
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors())
        raise BadParameter(
            f"{kind.name} cannot take these parameters ({what}).", f"See docs/{group}/{kind.name}.md."
        ) from problem


def _number(kind: Any, name: str, value: Any) -> Any:
    """A fraction such as 8/255 as a number, where the parameter is one; anything else as it is."""
    if not isinstance(value, str) or "/" not in value:
        return value
    hint = get_type_hints(kind)[name]
    if float not in (hint, *get_args(hint)):
        return value
    try:
        return float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        return value  # what is wrong with it is told where it is checked


def _made(group: str, name: str, parameters: Mapping[str, Any]) -> Any:
    return configured(get(group, name), group, parameters)
