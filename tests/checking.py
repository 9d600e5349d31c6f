"""How annotations are checked in tests: beartype checks all, jaxtyping binds dimensions where arrays are named.

jaxtyping's import hook decorates every function. What it adds, one memo of dimensions for a call, costs fifty
microseconds each time, and only functions with annotations of arrays have any use for it.
"""

from __future__ import annotations

import re
from functools import partial
from inspect import isfunction
from typing import Any, Self

import jaxtyping
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

__all__ = ["check", "checked"]

checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
"""beartype, which knows `Self` only in classes that it decorates as a whole: there it checks nothing."""

_jaxtyped: Any = jaxtyping.jaxtyped


def check(*packages: str) -> None:
    """Check annotations in everything that is imported from these packages from now on."""
    jaxtyping.jaxtyped = _shaped
    install_import_hook(packages, "checking.checked")


def _shaped(*decorated: Any, **told: Any) -> Any:
    if "typechecker" not in told:
        return _jaxtyped(*decorated, **told)  # as a context
    if not decorated:
        return partial(_shaped, **told)
    if isfunction(decorated[0]) and not _names_arrays(decorated[0]):
        return told["typechecker"](*decorated)
    return _jaxtyped(*decorated, **told)


def _names_arrays(function: Any) -> bool:
    """Whether an annotation has a type of jaxtyping, an alias of one, or a name that is not known yet."""
    names = {name for told in function.__annotations__.values() for name in re.findall(r"[A-Za-z_]\w*", str(told))}
    known = {**vars(__import__("builtins")), **function.__globals__}
    return any(name not in known or "jaxtyping" in _told(known[name]) for name in names)


def _told(value: Any) -> str:
    """Where a type is from, and what an alias is made of."""
    return f"{getattr(value, '__module__', '')} {value!r}"
