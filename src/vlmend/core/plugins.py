"""How plug-ins are found: ours by the place of their files, others by entry points; finding imports none."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from vlmend.errors import BrokenPlugin, NameClash, VlmendError

__all__ = ["Group", "Plugin", "check_alone", "held_by", "plugins_of"]


@dataclass(frozen=True)
class Group:
    """A kind of plug-in.

    Attributes:
        name: As `vlmend list` calls it; entry points of other packages stand in the group `vlmend.NAME`.
        singular: In messages.
        package: Where ours are; empty where there are none in files.
        attribute: What a file holds.
        by_axis: Whether files lie in folders named after an axis, which is part of their full name.
    """

    name: str
    singular: str
    package: str = ""
    attribute: str = ""
    by_axis: bool = False


@dataclass(frozen=True)
class Plugin:
    """One that was found.

    Attributes:
        full: `axis/name`, or the name alone where the group knows no axes.
        place: `module:attribute`.
        rivals: Others of the same name elsewhere: whoever asks for one of them meets `check_alone`.
    """

    full: str
    place: str
    rivals: tuple[Plugin, ...] = ()

    @property
    def name(self) -> str:
        """Without its axis."""
        return self.full.rpartition("/")[2]

    @property
    def axis(self) -> str:
        """Empty where the group knows none."""
        return self.full.rpartition("/")[0]


def plugins_of(group: Group) -> dict[str, Plugin]:
    """Every plug-in of a group by its name, which is unique over axes; a clash is kept as `rivals`."""
    return dict(_found(group, tuple(sys.path)))


@lru_cache(maxsize=32)
def _found(group: Group, path: tuple[str, ...]) -> tuple[tuple[str, Plugin], ...]:
    """Looked for once for each path: a file of every installed package is read."""
    found: dict[str, Plugin] = {}
    for plugin in (*_files(group), *_entries(group)):
        other = found.get(plugin.name)
        if other is None:
            found[plugin.name] = plugin
        elif plugin.place not in (other.place, *(one.place for one in other.rivals)):
            found[plugin.name] = replace(other, rivals=(*other.rivals, plugin))
    return tuple(sorted(found.items(), key=lambda item: item[1].full))


def check_alone(group: Group, plugin: Plugin) -> None:
    """Refuse a plug-in that shares its name with others.

    Raises:
        NameClash: It does; the places are named.
    """
    if plugin.rivals:
        places = [one.place for one in (plugin, *plugin.rivals)]
        raise NameClash(
            f"{'Two' if len(places) == 2 else len(places)} {group.name} are called {plugin.name}: "
            f"{' and '.join(places)}.",
            "Rename all but one of them: names are unique over all axes and packages.",
        )


def held_by(group: Group, plugin: Plugin) -> Any:
    """What stands at a plug-in's place; imports the one file.

    Raises:
        NameClash: It shares its name with others.
        BrokenPlugin: The file cannot be imported or holds no such attribute.
    """
    check_alone(group, plugin)
    module, _, attribute = plugin.place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except VlmendError:
        raise
    except Exception as problem:
        raise BrokenPlugin(
            f"The {group.singular} {plugin.full} cannot be had from {plugin.place} "
            f"({type(problem).__name__}: {problem}).",
            f"Repair or uninstall the package that holds {module.partition('.')[0]}.",
        ) from problem


def _files(group: Group) -> list[Plugin]:
    spec = importlib.util.find_spec(group.package) if group.package else None
    if spec is None:
        return []
    found: list[Plugin] = []
    for info in pkgutil.iter_modules(spec.submodule_search_locations, f"{group.package}."):
        if info.ispkg and group.by_axis:
            axis = info.name.rpartition(".")[2]
            inner = importlib.util.find_spec(info.name)
            places = inner.submodule_search_locations if inner else None
            found += [
                Plugin(f"{axis}/{one.name.rpartition('.')[2]}", f"{one.name}:{group.attribute}")
                for one in pkgutil.iter_modules(places, f"{info.name}.")
                if not one.ispkg and not one.name.rpartition(".")[2].startswith("_")
            ]
        elif not info.ispkg and not group.by_axis and not info.name.rpartition(".")[2].startswith("_"):
            found.append(Plugin(info.name.rpartition(".")[2], f"{info.name}:{group.attribute}"))
    return found


def _entries(group: Group) -> list[Plugin]:
    return [Plugin(entry.name, entry.value) for entry in entry_points(group=f"vlmend.{group.name}")]
