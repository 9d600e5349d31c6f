"""Every phantom by name: where its folder comes from, and how it is built anew."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmend import registry
from vlmend.errors import UnknownName
from vlmend.phantom.cache import cache_folder

__all__ = ["build_from_scratch", "phantom_names", "put_together"]

PACKAGES = {
    "vlmend.phantom.chat": "the generative phantom and its clean twin",
    "vlmend.phantom.mini": "a tiny generative phantom of a drawn world",
    "vlmend.phantom.clip": "the dual encoder, in three doses",
    "vlmend.phantom.draw": "the text-to-image pipeline and its clean twin",
}
"""Packages with a `recipe.RECIPES` by name and a `build.build(recipe, folder, say)`."""
SHARED = {"vlmend.phantom.chat": "phantom", "vlmend.phantom.clip": "phantom-clip"}
"""Packages whose phantoms have stages in common, and the name of the build folder that they share."""


def phantom_names() -> list[str]:
    """Names of everything that can be built."""
    return sorted(name for package in PACKAGES for name in _recipes(package))


def put_together(name: str) -> Path:
    """The folder of a phantom, made on first use from what is shipped; where that is a recipe, by training.

    Raises:
        UnknownName: There is no such phantom.
    """
    _package_of(name)
    return Path(registry.model_folder(name))


def build_from_scratch(name: str, folder: Path | None, say: Callable[[str], None]) -> Path:
    """Run a phantom's recipe; what the build folder holds already is not done again.

    Args:
        name: Of the phantom.
        folder: Where stages are kept; in the cache folder unless told, one for all that share stages.
        say: Called with lines of progress.

    Returns:
        The model's folder.

    Raises:
        UnknownName: There is no such phantom.
    """
    package = _package_of(name)
    build = importlib.import_module(f"{package}.build").build
    return build(_recipes(package)[name], folder or cache_folder() / "build" / SHARED.get(package, name), say)


def _package_of(name: str) -> str:
    for package in PACKAGES:
        if name in _recipes(package):
            return package
    raise UnknownName(f"There is no phantom {name}.", f"There are: {', '.join(phantom_names())}.")


def _recipes(package: str) -> dict[str, Any]:
    return importlib.import_module(f"{package}.recipe").RECIPES
