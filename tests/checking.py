"""How annotations are checked in tests."""

from __future__ import annotations

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

__all__ = ["checked"]

checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
"""beartype, which knows `Self` only in classes that it decorates as a whole: there it checks nothing."""
