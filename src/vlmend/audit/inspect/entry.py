"""What Inspect sees of vlmend: the model provider and the tasks (`inspect eval vlmend/...`).

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.model import ModelAPI, modelapi

__all__ = ["alignment_gap", "over_refusal", "picture_naming", "suite", "vlmend"]


@modelapi(name="vlmend")
def vlmend() -> type[ModelAPI]:
    """`--model vlmend/NAME`, with `-M mends=FOLDER` for a mended view."""
    from vlmend.audit.inspect.provider import VlmendAPI

    return VlmendAPI


@task
def alignment_gap(
    data: str | None = None, limit: int | None = None, max_new_tokens: int | None = None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """Unsafe rate of harmful requests in five conditions."""
    return suite("safety/alignment_gap", data, limit, max_new_tokens, temperature, epochs, seed)


@task
def over_refusal(
    data: str | None = None, limit: int | None = None, max_new_tokens: int | None = None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """Refusal rate of harmless requests, without and with an image."""
    return suite("safety/over_refusal", data, limit, max_new_tokens, temperature, epochs, seed)


@task
def picture_naming(
    data: str | None = None, limit: int | None = None, max_new_tokens: int | None = None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """Naming what a plain picture shows."""
    return suite("utility/picture_naming", data, limit, max_new_tokens, temperature, epochs, seed)


@task
def suite(
    name: str, data: str | None = None, limit: int | None = None, max_new_tokens: int | None = None,
    temperature: float = 0.0, epochs: int = 1, seed: int = 0,
) -> Task:  # fmt: skip
    """Any registered suite, also one of another package."""
    from vlmend.audit.inspect.tasks import build_task

    return build_task(name, data, limit, max_new_tokens, temperature, epochs, seed)
