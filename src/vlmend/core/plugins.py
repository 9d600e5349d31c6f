"""How plug-ins are found: ours by the place of their files, others by entry points; none is imported."""

from __future__ import annotations

import importlib.util
import pkgutil
from dataclasses import dataclass
from importlib.metadata import entry_points

from vlmend.errors import NameClash

__all__ = ["Group", "Plugin", "plugins_of"]


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
    """

    full: str
    place: str

    @property
    def name(self) -> str:
        """Without its axis."""
        return self.full.rpartition("/")[2]

    @property
    def axis(self) -> str:
        """Empty where the group knows none."""
        return self.full.rpartition("/")[0]


def plugins_of(group: Group) -> dict[str, Plugin]:
    """Every plug-in of a group by its name, which is unique over axes.

    Raises:
        NameClash: Two have one name; both places are named.
    """
    found: dict[str, Plugin] = {}
    for plugin in (*_files(group), *_entries(group)):
        other = found.get(plugin.name)
        if other is not None and other.place != plugin.place:
            raise NameClash(
                f"Two {group.name} are called {plugin.name}: {other.place} and {plugin.place}.",
                "Rename one of them: names are unique over all axes and packages.",
            )
        found[plugin.name] = plugin
    return dict(sorted(found.items(), key=lambda item: item[1].full))


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
