"""The part of the CMRM study that asks how the shift should be measured and taken out."""

from __future__ import annotations

from typing import Any

from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.cmrm_sample import CMRMSample
from vlmend.studies.cmrm.lab import Lab
from vlmend.studies.fitting import Defence
from vlmend.studies.measuring import measure, table_row

__all__ = ["VARIANTS", "variants"]

VARIANTS: tuple[Defence, ...] = (
    Defence("default", "cmrm"),
    Defence("mode increment", "cmrm", {"mode": "increment"}),
    Defence("mode full", "cmrm", {"mode": "full"}),
    Defence("mode full, alpha / 3", "cmrm", {"mode": "full", "alpha": 1 / 3}),
    Defence("mode last_only", "cmrm", {"mode": "last_only"}),
    Defence("mode sequential", "cmrm", {"mode": "sequential"}),
    Defence("scope every_step", "cmrm", {"scope": "every_step"}),
    Defence("first direction", "cmrm", {"aggregate": "direction"}),
    Defence("black image", "cmrm", {"corrupt": "black"}),
    Defence("mean colour", "cmrm", {"corrupt": "mean_colour"}),
    Defence("noise image", "cmrm", {"corrupt": "noise"}),
    Defence("dose capped at 0.02", "cmrm", {"cap": 0.02}),
    Defence("harmful anchors", "cmrm", {"anchors": "harmful"}),
    Defence("sample, mode full", "cmrm_sample", {"mode": "full"}),
    Defence("sample, mode sequential", "cmrm_sample", {"mode": "sequential"}),
)
"""Each differs from the default in one thing; alphas count relative to the strength that the sweep chose."""


def variants(lab: Lab) -> dict[str, Any]:
    """Every variant at the chosen strength of its level, on the validation split."""
    base = measure(lab.asker, lab.validation)
    rows: list[dict[str, Any]] = [{"name": "none", "dose": 0.0} | table_row(base, base)]
    for variant in VARIANTS:
        method = variant.made()
        assert isinstance(method, CMRM | CMRMSample)
        best = lab.best["dataset" if isinstance(method, CMRM) else "sample"]
        settings = variant.parameters | {"alpha": variant.parameters.get("alpha", 1.0) * best}
        mend = lab.fit(f"variant-{variant.name}", Defence(variant.name, variant.method, settings).made())
        row = {"name": variant.name, "dose": max(mend.card.dose.values())}
        rows.append(row | table_row(base, measure(lab.asker, lab.validation, [mend])))
    return {"rows": rows, "best": lab.best}
