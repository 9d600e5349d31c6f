"""People as a judge: the labels of one file, as `vlmend label` wrote it.

Which replies people were asked about, and how well they agree, is told by `label_report`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vlmend.audit.labels.labelling import labels_in
from vlmend.core.verdicts import Exchange, JudgeKind, Verdict
from vlmend.errors import UsageError

__all__ = ["JUDGE", "HumanJudge"]


class HumanJudge:
    """Gives the labels that stand in a file; what nobody labelled is unscored.

    Args:
        file: `labels/NAME.jsonl` of a run folder, of this run or another.

    Raises:
        BadData: The file cannot be read, or holds other rows.
    """

    def __init__(self, file: Path) -> None:
        self._rows = labels_in(file)
        self._digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self._name = file.stem

    @classmethod
    def of(cls, argument: str) -> HumanJudge:
        """`human:FILE`."""
        if not argument:
            raise UsageError("The judge human needs a labels file.", "Write --judge human:RUN/labels/NAME.jsonl.")
        return cls(Path(argument))

    @property
    def id(self) -> str:
        return f"human-{self._name}"

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def kind(self) -> JudgeKind:
        return "refusal"

    @property
    def reads_all(self) -> Literal[True]:
        return True

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The label given with the exchange's own image in view, else the one given on the words alone."""
        return [self._verdict(exchange) for exchange in exchanges]

    def _verdict(self, exchange: Exchange) -> Verdict:
        words = Exchange(exchange.prompt, exchange.reply).digest
        # Run folders name an image by the beginning of its digest (audit/folding.py).
        seen = "" if exchange.image is None else f"{exchange.image.digest[:16]}.webp"
        row = self._rows.get((words, seen)) or self._rows.get((words, None))
        if row is None or row.label is None:
            return Verdict("unscored", "not labelled")
        return Verdict(row.label, f"labelled by {self._name}")


JUDGE = HumanJudge
