"""The one door to a target by its name: for the command line, Python, Inspect and servers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vlmend.core.targets import Kind, Target
from vlmend.errors import UsageError
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.places import is_pipeline

if TYPE_CHECKING:
    from vlmend.models.loading.sizes import Memory

__all__ = ["kind_of", "memory_of", "open_target"]


def open_target(
    name: str, options: LoadOptions = LoadOptions(), api_base: str | None = None, *,
    folder: str | Path | None = None, check: Callable[[Kind], object] = lambda kind: None,
) -> Target:  # fmt: skip
    """A model that vlmend loads, of any kind, or `api:NAME` as a black box.

    Args:
        name: What to call it: a hub name, a folder, an embedded model, or `api:NAME`.
        options: How to load it.
        api_base: Address of an API model; OPENAI_BASE_URL unless given.
        folder: Where it is, for names that stand for a folder; `name` itself unless given.
        check: Called with the kind that the config tells, before a weight is read; what it raises ends the opening.

    Raises:
        UsageError: Options of the one kind with a model of the other.
        ModelProblem: It cannot be found or loaded.
    """
    from vlmend.models.api.target import PREFIX, ApiTarget
    from vlmend.models.loading.draw import load_draw
    from vlmend.models.loading.dual import is_dual, is_open_clip, load_dual
    from vlmend.models.loading.hub import without_a_silent_hub
    from vlmend.models.loading.vlm import config_of, load

    if name.startswith(PREFIX):
        check("chat")
        if options != LoadOptions(send_outside=options.send_outside):
            raise UsageError(f"{name} is an API: it is not loaded.", "Leave out the options of loading.")
        return ApiTarget.of(name, api_base, send_outside=options.send_outside)
    if api_base:
        raise UsageError(f"--api-base is for API models, and {name} is none.", f"Write {PREFIX}NAME.")
    place = name if folder is None else folder
    if is_pipeline(place):
        check("draw")
        return load_draw(place, name=name, options=options)
    with without_a_silent_hub(place):
        config = None if is_open_clip(place) else config_of(place, options)
        dual = config is None or is_dual(place, options, config)
        check("dual" if dual else "chat")
        if dual:
            return load_dual(place, name=name, options=options, config=config)
        return load(place, name=name, options=options, config=config)


def kind_of(name: str, options: LoadOptions = LoadOptions(), *, folder: str | Path | None = None) -> Kind:
    """Whether a model answers, is a dual encoder or draws, from its config alone; arguments as of `open_target`.

    Raises:
        ModelProblem: Its config cannot be found or read.
    """
    kinds: list[Kind] = []

    def told(kind: Kind) -> None:
        kinds.append(kind)
        raise _Known

    with suppress(_Known):
        open_target(name, options, folder=folder, check=told)
    return kinds[0]


def memory_of(name: str, options: LoadOptions = LoadOptions(), *, folder: str | Path | None = None) -> Memory | None:
    """What the weights of a model need, before one is read; arguments as of `open_target`.

    Returns:
        None of an API, of pipelines, and of models of open_clip, whose config tells too little.

    Raises:
        ModelProblem: Its config cannot be found or read, or it does not fit.
    """
    from vlmend.models.api.target import PREFIX
    from vlmend.models.loading.dual import dual_class, is_dual, is_open_clip
    from vlmend.models.loading.hub import without_a_silent_hub
    from vlmend.models.loading.sizes import fitting
    from vlmend.models.loading.vlm import auto_class, config_of

    place = name if folder is None else folder
    if name.startswith(PREFIX) or is_pipeline(place) or is_open_clip(place):
        return None
    with without_a_silent_hub(place):
        config = config_of(place, options)
        find_class = dual_class if is_dual(place, options, config) else auto_class
        return fitting(place, find_class(place, config), config, options)


class _Known(Exception):
    """The kind is known: no weight has to be read."""
