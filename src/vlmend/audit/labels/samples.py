"""The judged replies of a run, as people are asked about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmend.audit.suite import question_suite
from vlmend.core.replies import spoken
from vlmend.core.samples import read_samples
from vlmend.core.verdicts import Exchange
from vlmend.errors import UsageError

__all__ = ["Key", "Sample", "judged_samples"]

Key = tuple[str, str | None]
"""Digest of the words and the image that was seen with them."""


@dataclass(frozen=True)
class Sample:
    """One judged reply of a run.

    Attributes:
        image: Its file under `images/`.
        labels: What each judge said.
        scores: By judge the probability of each label, of those who give them.
    """

    suite: str
    group: str
    condition: str
    prompt: str
    reply: str
    image: str | None
    labels: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the words."""
        return Exchange(self.prompt, self.reply).digest

    @property
    def stratum(self) -> str:
        """What a row of the scorecard counts over."""
        return f"{self.suite}:{self.group}:{self.condition}"


def judged_samples(run: Path, suites: Sequence[str] = ()) -> list[Sample]:
    """The samples of a run whose replies a judge reads and that hold any text.

    Raises:
        UsageError: See `queue_of`.
    """
    rows = read_samples(run)
    if not rows:
        if (run / "measured.jsonl").exists():
            raise UsageError(f"{run} holds no replies: its suites measure by themselves.", "There is nothing to label.")
        raise UsageError(f"{run} holds no samples.", "Run `vlmend audit ... --out` there until it ends.")
    judged = [name for name in dict.fromkeys(row["suite"] for row in rows) if question_suite(name).judged]
    wanted = [question_suite(name).name for name in suites] or judged
    missing = [name for name in wanted if name not in judged]
    if missing or not judged:
        what = f"no judged replies of {', '.join(missing)}" if missing else "no suite whose replies a judge reads"
        raise UsageError(f"{run} holds {what}.", f"It holds: {', '.join(judged) or 'suites with known answers only'}.")
    return [
        _sample(row)
        for row in rows
        if row["suite"] in wanted and (spoken(row["reply"]) or "").strip() and not row.get("problem")
    ]


def _sample(row: dict[str, Any]) -> Sample:
    """A row of samples.jsonl; runs of older versions hold one judge's label only."""
    verdicts: dict[str, Any] = row.get("verdicts") or {question_suite(row["suite"]).judge_id: row}
    labels = {judge: str(verdict["label"]) for judge, verdict in verdicts.items()}
    return Sample(
        row["suite"], row["group"], row["condition"], row["prompt"], spoken(row["reply"]) or "", row.get("image"),
        labels, {judge: dict(verdict.get("scores") or {}) for judge, verdict in verdicts.items()},
    )  # fmt: skip
