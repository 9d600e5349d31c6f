"""vlmend: audit vision-language models, mend them at inference time, and prove the mend.

The public face. Nothing is imported until it is asked for, so `import vlmend` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmend.core.conversation import Conversation, Turn
    from vlmend.core.examples import Dataset, Example
    from vlmend.core.images import Image
    from vlmend.core.measures import Measure, Scorecard
    from vlmend.core.mend import Mend
    from vlmend.data.layouts import read_data
    from vlmend.face import apply_step, attack, audit, choose_mend, compare, explain, fit, open_target
    from vlmend.models.loading.options import LoadOptions
    from vlmend.redteam.run import red_team
    from vlmend.serving.run import serve

    __version__: str

__all__ = [
    "Conversation", "Dataset", "Example", "Image", "LoadOptions", "Measure", "Mend", "Scorecard", "Turn", "__version__",
    "apply_step", "attack", "audit", "choose_mend", "compare", "explain", "fit", "open_target", "read_data",
    "red_team", "serve",
]  # fmt: skip

HOMES = {
    "Conversation": "vlmend.core.conversation", "Turn": "vlmend.core.conversation",
    "Dataset": "vlmend.core.examples", "Example": "vlmend.core.examples",
    "Image": "vlmend.core.images", "Measure": "vlmend.core.measures", "Scorecard": "vlmend.core.measures",
    "Mend": "vlmend.core.mend", "LoadOptions": "vlmend.models.loading.options", "read_data": "vlmend.data.layouts",
    "red_team": "vlmend.redteam.run", "serve": "vlmend.serving.run",
} | dict.fromkeys(
    ("apply_step", "attack", "choose_mend", "compare", "explain", "fit", "open_target"), "vlmend.face"
)  # fmt: skip
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("vlmend")
    elif name == AUDIT:
        found = import_module(f"vlmend.{AUDIT}")
    elif name in HOMES:
        found = getattr(import_module(HOMES[name]), name)
    else:
        raise AttributeError(f"module 'vlmend' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


AUDIT = "audit"
"""A package and a public function have this name: Python binds the package, and a call of it is the function."""


class _CallablePackage(ModuleType):
    def __call__(self, *given: Any, **named: Any) -> Any:
        from vlmend.face import audit

        return audit(*given, **named)


class _Face(ModuleType):
    """This module; where Python binds the package `audit` to it, the package becomes callable."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == AUDIT and isinstance(value, ModuleType):
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
