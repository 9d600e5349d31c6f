"""The one door to a target by its name: for the command line, Python, Inspect and servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlmend.core.targets import Kind, Target
from vlmend.errors import ModelProblem, UsageError
from vlmend.models.loading.options import LoadOptions

__all__ = ["open_target"]


def open_target(
    name: str, options: LoadOptions = LoadOptions(), api_base: str | None = None, *,
    folder: str | Path | None = None, check: Callable[[Kind], object] = lambda kind: None,
) -> Target:  # fmt: skip
    """A model that vlmend loads, of either kind, or `api:NAME` as a black box.

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
    from vlmend.models.loading.dual import is_dual, load_dual
    from vlmend.models.loading.vlm import config_of, load

    if name.startswith(PREFIX):
        check("chat")
        if options != LoadOptions(send_outside=options.send_outside):
            raise UsageError(f"{name} is an API: it is not loaded.", "Leave out the options of loading.")
        return ApiTarget.of(name, api_base, send_outside=options.send_outside)
    if api_base:
        raise UsageError(f"--api-base is for API models, and {name} is none.", f"Write {PREFIX}NAME.")
    place = name if folder is None else folder
    try:
        config = config_of(place, options)
        dual = is_dual(place, options, config)
    except ModelProblem:
        config, dual = None, is_dual(place, options)
        if not dual:  # open_clip has a config of its own; else there is none
            raise
    check("dual" if dual else "chat")
    if dual:
        return load_dual(place, name=name, options=options, config=config)
    return load(place, name=name, options=options, config=config)
