"""What Inspect sees of vlmend: the model provider, and a task for every registered suite (`inspect eval vlmend/...`).

Tasks are made from the registry's names; a suite's file is imported when its task is built.
"""

from __future__ import annotations

from collections.abc import Callable

from inspect_ai import Task, task
from inspect_ai.model import ModelAPI, modelapi

from vlmend import registry

__all__ = ["suite", "vlmend"]


@modelapi(name="vlmend")
def vlmend() -> type[ModelAPI]:
    """`--model vlmend/NAME`, with `-M mends=FOLDER` for a mended view."""
    from vlmend.audit.inspect.provider import VlmendAPI

    return VlmendAPI


@task
def suite(
    name: str, data: str | None = None, limit: int | None = None, max_new_tokens: int | None = None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0, send_outside: bool = False,
) -> Task:  # fmt: skip
    """Any registered suite by its name."""
    from vlmend.audit.inspect.tasks import build_task

    return build_task(name, data, limit, max_new_tokens, temperature, epochs, seed, send_outside)


def _task_of(full: str) -> Callable[..., Task]:
    def build(
        data: str | None = None, limit: int | None = None, max_new_tokens: int | None = None,
        temperature: float = 0.0, epochs: int = 1, seed: int = 0, send_outside: bool = False,
    ) -> Task:  # fmt: skip
        return suite(full, data, limit, max_new_tokens, temperature, epochs, seed, send_outside)

    build.__name__ = build.__qualname__ = full.rpartition("/")[2]
    build.__doc__ = f"The suite {full}."
    return task(build)


for _plugin in registry.plugins("suites"):
    globals()[_plugin.name] = _task_of(_plugin.full)
