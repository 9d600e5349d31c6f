"""Mends that a run fits: kept in its folder, and fitted again only when something has changed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmend import registry
from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.files import read_json, write_json
from vlmend.core.mend import Mend
from vlmend.core.targets import Target
from vlmend.errors import UsageError

__all__ = ["Defence", "fitted"]


@dataclass(frozen=True)
class Defence:
    """A named setting of a method; `none` is the model as it is."""

    name: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return self.name.replace(" ", "-")

    def made(self) -> AbstractMethod[Any]:
        """The method with these parameters."""
        return registry.make_method(self.method, self.parameters)


def fitted(target: Target, method: AbstractMethod[Any], data: Dataset, folder: Path, seed: int) -> tuple[Mend, float]:
    """The mend in the folder if it is this very one, else fit and save it; with the seconds that the fit took."""
    clock = folder / "fit_seconds.json"
    try:
        mend = Mend.load(folder)
        card = mend.card
        same = (card.method, dict(card.identity), card.data_digest, card.parameters, card.seed)
        wanted = json.loads(json.dumps(method.parameters))
        if same == (method.name, dict(target.identity), data.digest, wanted, seed):
            return mend, _seconds(clock)
    except UsageError:
        pass  # nothing there yet, or cut off while it was written
    began = time.monotonic()
    mend = method.fit(target, data, seed=seed)
    seconds = time.monotonic() - began
    mend.save(folder)
    write_json(clock, {"seconds": round(seconds, 2)})
    return mend, seconds


def _seconds(clock: Path) -> float:
    """How long a fit took; 0 where that is not known any more."""
    held = read_json(clock)
    return held.get("seconds", 0.0) if isinstance(held, dict) else 0.0
