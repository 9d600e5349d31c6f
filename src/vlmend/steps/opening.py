"""Models that steps use, by name."""

from __future__ import annotations

from vlmend import registry
from vlmend.core.targets import Kind, Target, check_kind

__all__ = ["opened"]


def opened(model: str, kind: Kind, step: str) -> Target:
    """A model of a kind by its name.

    Raises:
        UsageError: It is one of another kind.
        ModelProblem: It cannot be found or loaded.
    """
    from vlmend.models.loading.target import open_target  # it takes torch and transformers with it

    registry.check_model(model)
    return open_target(
        model, folder=registry.model_folder(model), check=lambda found: check_kind(found, model, step, kind)
    )
