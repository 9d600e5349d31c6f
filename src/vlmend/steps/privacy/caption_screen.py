"""caption_screen: leaves out pictures whose captions are instructions, stand under many pictures, or do not fit.

A picture whose caption is a prompt teaches a model to obey that picture (ImgTrojan). Such captions talk to a reader and
give orders, all say the same, and describe nothing that is seen.

After Tao et al. 2024 (ImgTrojan), arXiv 2403.02910; the screen is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from vlmend.core.contracts import AbstractStep, DataEdit, Dropped
from vlmend.core.examples import Dataset, Example
from vlmend.core.targets import DualTarget
from vlmend.data.alike import normal_words
from vlmend.errors import BadData, BadParameter, SampleError
from vlmend.steps.opening import opened

__all__ = ["CUES", "STEP", "CaptionScreen", "cues"]

ORDERS = (
    "ignore|answer|respond|reply|pretend|act|imagine|write|tell|explain|give|follow|say|begin|start|provide|describe|"
    "list|generate|create|output|do not|don't|never|always|remember|forget|disregard|repeat|translate|"
    "summari[sz]e|help|show|identify|find|calculate|classify|edit|rewrite|suggest|name|think|play"
)
ABOUT = (
    "instructions?|prompts?|requests?|rules?|polic(?:y|ies)|respon(?:se|ses|d)|questions?|answers?|chatgpt|gpt|ai|chatbot|"
    "assistant|language model|jailbreak\\w*|filters?|guidelines|roleplay|user|system"
)
CUES: Mapping[str, str] = {
    "speaks to a reader": r"\b(?:you|your|yours|yourself)\b",
    "gives orders": rf"(?:^|[.!?:;,]\s|\b(?:and|then|please|must|to|not|now)\s)\s*(?:{ORDERS})\b",
    "speaks of prompts": rf"\b(?:{ABOUT})\b",
    "asks": r"\?|\b(?:how (?:do|can|to)|what is|why (?:do|is)|can you|could you)\b",
    "insists": r"\b(?:must|from now on|no matter|regardless|under no circumstances|in all cases|at all times)\b",
    "is marked up": r"(?:^|\n)(?:#|\*|- |\d+\.|user:|system:|assistant:)|\[[A-Z_ ]{3,40}\]|\{\w+\}|<\w+>",
    "is long": r"^(?:\S+\s+){60}\S",
}
"""What tells an instruction from a description: a name, and what is looked for, letter case aside."""


@dataclass(frozen=True)
class CaptionScreen(AbstractStep):
    """Drops captioned pictures whose captions are suspect. Rows that ask something are no captions and stay.

    Attributes:
        least: Cues of an instruction that a caption must have to be dropped; 0 looks for none.
        repeats: Pictures under which one and the same caption may stand; 0 for any number.
        judge: A dual encoder, by folder or name, that says how well caption and picture fit; empty for none.
        misfits: With a judge, the share of rows that fit worst and are dropped.
    """

    name: ClassVar[str] = "caption_screen"
    source: ClassVar[str] = "after Tao et al. 2024, arXiv 2403.02910"

    least: int = 2
    repeats: int = 0
    judge: str = ""
    misfits: float = 0.01

    def __post_init__(self) -> None:
        bad = [
            told
            for told, wrong in (
                (f"least={self.least}: 0 to {len(CUES)}", not 0 <= self.least <= len(CUES)),
                (f"repeats={self.repeats}: 0 or more", self.repeats < 0),
                (f"misfits={self.misfits:g}: 0 or more and below 1", not 0 <= self.misfits < 1),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("Captions cannot be screened so.", "; ".join(bad) + ".")

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        rows = [row for row in data.examples if row.image is not None and row.caption and not row.prompt]
        if not rows:
            raise BadData(
                f"{data.name} has no captioned picture.", "Pass rows with an image and a caption, and without a prompt."
            )
        why = {row.id: told for row, told in self._suspects(rows)}
        dropped = tuple(Dropped(row, why[row.id]) for row in data.examples if row.id in why)
        kept = tuple(row for row in data.examples if row.id not in why)
        table: list[dict[str, Any]] = [
            {"reason": kind, "dropped": sum(told.startswith(kind) for told in why.values())}
            for kind in ("instruction", "repeated", "misfit")
        ]
        told = {"captioned pictures": len(rows), "dropped": len(dropped), "share": len(dropped) / len(rows)}
        return DataEdit(replace(data, examples=kept), (), dropped, {"screened": [told], "reasons": table})

    def _suspects(self, rows: Sequence[Example]) -> Iterator[tuple[Example, str]]:
        """Suspect rows with what speaks against them; the first reason of a row is the one that is told last here."""
        if self.judge and self.misfits:
            yield from self._misfits(rows)
        pictures: dict[str, set[str]] = {}
        for row in rows:
            pictures.setdefault(normal_words(row.caption or ""), set()).add(_picture(row))
        for row in rows:
            under = len(pictures[normal_words(row.caption or "")])
            if 0 < self.repeats < under:
                yield row, f"repeated: the same caption under {under} pictures"
        for row in rows:
            found = cues(row.caption or "")
            if 0 < self.least <= len(found):
                yield row, f"instruction: it {', '.join(found)}"

    def _misfits(self, rows: Sequence[Example]) -> Iterator[tuple[Example, str]]:
        encoder = opened(self.judge, "dual", self.name)
        assert isinstance(encoder, DualTarget)
        seen = [row for row in rows if _readable(row)]
        images = encoder.embed_images([row.image for row in seen if row.image is not None]).double()
        cosines = (images * encoder.embed_texts([row.caption or "" for row in seen]).double()).sum(1)
        worst = cosines.argsort(stable=True)[: int(self.misfits * len(seen))]
        yield from ((seen[k], f"misfit: cosine {float(cosines[k]):.3f} of picture and caption") for k in worst.tolist())


def cues(caption: str) -> list[str]:
    """The cues of an instruction that a caption has, by name."""
    return [name for name, pattern in _PATTERNS.items() if pattern.search(caption)]


_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in CUES.items()}


def _picture(row: Example) -> str:
    try:
        return row.image.digest if row.image else ""
    except SampleError:
        return row.id


def _readable(row: Example) -> bool:
    try:
        return row.image is not None and bool(row.image.decode().size)
    except SampleError:
        return False


STEP = CaptionScreen
