"""privacy/retained_attributes: is more of a private attribute in embeddings of pictures that were trained on?

Fresh probes are fitted on embeddings of members and of non-members, as many of each, and read an attribute of held-out
ones. What can be read of both is what the pixels show; what can be read of members beyond that was retained.

The attribute need not be told by any caption. After Song and Raghunathan 2020, arXiv 2004.00053.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, get_args

import numpy as np

from vlmend.audit.means import mean_row
from vlmend.audit.probing import FOLDS, Probe, advantages
from vlmend.audit.separating import MEMBER, cluster_of, excess_row
from vlmend.core.contracts import Sample, SampleSuite
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.measures import Axis, Measure
from vlmend.core.splits import Split
from vlmend.core.targets import Access, DualTarget, Kind, problem_of
from vlmend.errors import BadData

__all__ = ["HIDDEN", "SUITE", "RetainedAttributes"]

HIDDEN = "hidden_"
"""Attributes of rows whose names begin so are probed for."""
PROBES: tuple[Probe, ...] = get_args(Probe)

SAYS = "lets {{value}} more of the {name} be read off pictures that it was trained on than off others"


class RetainedAttributes(SampleSuite[DualTarget]):
    """Advantage of probes on members and on non-members, and the gap between the two, for each attribute."""

    name: ClassVar[str] = "privacy/retained_attributes"
    axis: ClassVar[Axis] = "privacy"
    works_on: ClassVar[Kind] = "dual"
    needs: ClassVar[Access] = "embeddings"
    own_rows: ClassVar[bool] = False
    about: ClassVar[str] = "attributes that probes read off embeddings of pictures, more where a model was trained on"

    def applies(self, data: Dataset) -> bool:
        return {row.attributes["member"] for row in self.uses(data)} >= set(MEMBER)

    def uses(self, data: Dataset) -> Sequence[Example]:
        return [r for r in data.examples if r.image is not None and r.attributes.get("member") in MEMBER and _names(r)]

    def sample_data(self) -> Dataset | None:
        rows = (
            Example(str(k), image=noise_image(16, k),
                    attributes={"member": ("yes", "no")[k % 2], f"{HIDDEN}code": str(k // 2 % 2)})
            for k in range(24)
        )  # fmt: skip
        return Dataset("pictures", tuple(rows))

    def samples(
        self, subject: DualTarget, data: Dataset | None, limit: int | None, *, seed: int, split: Split = "held_out"
    ) -> list[Sample]:
        rows = self.uses(data) if data is not None else []
        names = list(dict.fromkeys(name for row in rows for name in _names(row)))
        bad = {row.id: why for row in rows if (why := problem_of(subject, row))}
        found: list[Sample] = []
        for name in names:
            kinds = _matched([row for row in rows if row.id not in bad and row.attributes.get(name)], name, seed)
            if kinds is None:
                continue
            for member, chosen in kinds.items():
                values = _probed(subject, chosen, name, seed)
                # The probes read all rows whatever the limit, which keeps the first of each kind.
                found += [_sample(r, name, values[k]) for k, r in enumerate(chosen[:limit])]
                unread = [r for r in rows if r.id in bad and r.attributes["member"] == member and name in _names(r)]
                found += [_sample(row, name, {}, bad[row.id]) for row in unread[:limit]]
        if not found:
            raise BadData(
                f"{data.name if data else 'No data'} has no attribute that could be probed for.",
                f'Pass --data with rows that have image and "attributes": {{"member": "yes" or "no", "{HIDDEN}place": '
                f'"..."}}: two values or more, each on {FOLDS} clusters of either kind; members are a random split.',
            )
        return found

    def measures(self, samples: Sequence[Sample], seed: int) -> list[Measure]:
        by_name = [replace(s, group=f"{s.group}:{s.condition}") for s in samples]
        rows: list[Measure] = []
        for probe in PROBES:
            for name in dict.fromkeys(sample.condition for sample in samples):
                kinds = [
                    mean_row(self.axis, self.name, probe, f"{kind}:{name}", by_name,
                             "lower" if kind == MEMBER["yes"] else "neither", "number", seed)
                    for kind in MEMBER.values()
                ]  # fmt: skip
                rows += [replace(row, floor=0.0 if row.n else row.floor, ceiling=1.0) for row in kinds]
                plain = [replace(row, group=kind) for row, kind in zip(kinds, MEMBER.values(), strict=True)]
                pool = [sample for sample in samples if sample.condition == name]
                says = SAYS.format(name=name) if probe == PROBES[0] else ""
                rows.append(replace(excess_row(self, f"{probe}_gap", plain, pool, "number", says), group=name))
        return rows


def _sample(row: Example, name: str, values: Mapping[str, float], reason: str = "") -> Sample:
    told = name.removeprefix(HIDDEN)
    return Sample(f"{row.id}/{told}", MEMBER[row.attributes["member"]], cluster_of(row), row.caption or row.prompt,
                  values, reason=reason, condition=told)  # fmt: skip


def _probed(subject: DualTarget, rows: Sequence[Example], name: str, seed: int) -> list[dict[str, float]]:
    """What each row adds to each probe's advantage."""
    seen = subject.embed_images([row.image for row in rows if row.image is not None]).double().cpu().numpy()
    values, clusters = [row.attributes[name] for row in rows], [cluster_of(row) for row in rows]
    columns = {probe: advantages(np.asarray(seen), values, clusters, probe, seed=seed) for probe in PROBES}
    return [{probe: float(column[k]) for probe, column in columns.items()} for k in range(len(rows))]


def _matched(rows: Sequence[Example], name: str, seed: int) -> dict[str, list[Example]] | None:
    """As many members as non-members of each value, so that neither probe has more to learn from.

    None where fewer than two values are on enough clusters of both kinds.
    """
    kinds = {m: [row for row in rows if row.attributes["member"] == m] for m in MEMBER}
    held = {m: Counter(v for v, _ in {(r.attributes[name], cluster_of(r)) for r in of}) for m, of in kinds.items()}
    common = [v for v in dict.fromkeys(r.attributes[name] for r in rows) if min(h[v] for h in held.values()) >= FOLDS]
    if len(common) < 2:
        return None
    draws = random.Random(f"retained:{name}:{seed}")
    chosen: dict[str, list[Example]] = {member: [] for member in MEMBER}
    for value in common:
        of = {m: [row for row in kinds[m] if row.attributes[name] == value] for m in MEMBER}
        count = min(map(len, of.values()))
        for member, each in of.items():
            keep = set(draws.sample([row.id for row in each], count))
            chosen[member] += [row for row in each if row.id in keep]
    return {m: sorted(each, key=kinds[m].index) for m, each in chosen.items()}


def _names(row: Example) -> list[str]:
    return [name for name in row.attributes if name.startswith(HIDDEN)]


SUITE = RetainedAttributes()
