"""What a user is told of a run besides its numbers, one line each: rows that were used, pictures lent, replies kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from vlmend import registry
from vlmend.audit.plan import lacking
from vlmend.audit.suite import Answer, Question
from vlmend.core.contracts import AbstractSuite
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.measures import Axis
from vlmend.core.targets import Kind, Target, kinds_of

__all__ = ["absent_notes", "kept_note", "lent_note", "lost_notes", "new_note", "parts_note", "row_notes", "shard_note"]


def absent_notes(
    wanted: Sequence[str], kept: Sequence[AbstractSuite], subject: Target | Dataset, data: Dataset | None, *,
    reference: bool,
) -> list[str]:  # fmt: skip
    """Which suites of an axis are not measured, and what they would need; of those that fit the kind of subject."""
    kind: Kind = "data" if isinstance(subject, Dataset) else subject.kind
    given = subject if isinstance(subject, Dataset) else data
    named = {suite.name for suite in kept}
    absent: dict[str, list[str]] = {}
    for axis in wanted:
        for suite in map(registry.suite, registry.names("suites", axis) if axis in get_args(Axis) else ()):
            if kind in kinds_of(suite.works_on) and suite.name not in named:
                need = lacking(suite, given, kind, reference=reference) or f"the {suite.needs} of the model"
                absent.setdefault(need, []).append(suite.name)
    return [f"not measured, for it needs {need}: {', '.join(names)}" for need, names in absent.items()]


def row_notes(suites: Sequence[AbstractSuite], data: Dataset | None) -> list[str]:
    """Which rows of the user's data each suite looks at, and how many none does."""
    if data is None:
        return []
    used = {suite.name: [row.id for row in suite.uses(data)] for suite in suites}
    own = [name for name, rows in used.items() if not rows]
    told = [f"{name}: {len(rows)} of {len(data.examples)} rows of {data.name}" for name, rows in used.items() if rows]
    if own:
        told.append(f"{', '.join(own)}: built-in questions, no row of {data.name}")
    left = len(data.examples) - len({row for rows in used.values() for row in rows})
    return [*told, f"{left} of {len(data.examples)} rows of {data.name} are used by no suite"] if left else told


def lent_note(questions: Mapping[str, Sequence[Question]], data: Dataset | None) -> list[str]:
    """How many rows without a picture are asked beside a built-in one, which brings its caption too."""
    bare = [row.id for row in data.examples if row.image is None] if data is not None else []
    asked = {q.id.rpartition(":")[0] for every in questions.values() for q in every if isinstance(q.image, Image)}
    lent = len(asked.intersection(bare))
    return [f"{lent} rows bring no picture and are asked beside a built-in one"] if lent else []


def kept_note(kept: int, asked: int) -> list[str]:
    """How many replies are there from before."""
    return [f"{min(kept, asked)} of {asked} replies are kept from before"] if kept else []


def shard_note(replies: int) -> list[str]:
    """How many replies the parts of a run hold."""
    return [f"{replies} replies are there from shards"] if replies else []


def new_note(new: int, kept: int) -> list[str]:
    """How much a part asked, where replies were there: in its own folder, the run folder or that of another part."""
    return [f"{new} requests were asked; {kept} replies were there before"] if kept else []


def parts_note(missing: Sequence[str], unfinished: Sequence[str], requests: int) -> list[str]:
    """Which parts of a run were not asked to their end, where requests are asked because of that."""
    kinds = {"have no folder": missing, "are unfinished": unfinished}
    told = "; ".join(f"parts that {what}: {_some(names)}" for what, names in kinds.items() if names)
    return [f"{told}. Because of that this command asks {requests} requests itself"] if requests else []


def _some(names: Sequence[str], most: int = 8) -> str:
    """Names, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def lost_notes(answers: Mapping[str, Sequence[Answer]]) -> list[str]:
    """Requests without a reply, counted by why, with the first of each."""
    lost = [answer for every in answers.values() for answer in every if answer.problem]
    kinds = Counter(answer.problem.partition(":")[0] for answer in lost)
    first = {kind: next(a for a in lost if a.problem.startswith(f"{kind}:")) for kind in kinds}
    return [f"{n} requests have no reply ({kind}), first {first[kind].id}: {first[kind].problem}"
            for kind, n in kinds.items()]  # fmt: skip
