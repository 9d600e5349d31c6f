"""Families that vlmend refuses, and the reason that it gives: the second table of docs/models.md.

`python -m tests.models.families.refused --write` writes it between its two markers. No weights are made, save
for BLIP-2's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import transformers
from tests.models.families.querying import blip2_over_t5
from tests.models.families.table import PAGE
from transformers import PreTrainedModel

from vlmend.errors import AnatomyProblem
from vlmend.models.anatomy.find import find_anatomy

__all__ = ["REFUSED", "reason", "refusals", "written"]

BEGIN, END = "<!-- refused: begin -->", "<!-- refused: end -->"
MAP: dict[str, Any] = {"vocabulary_map": {"<image>": 3, "<|extra_200|>": 4, "IMGIMGA": 5}}
"""The words that image-writing families ask of a config."""


def reason(make: Callable[[], PreTrainedModel]) -> str:
    """Why this model cannot be used, without the list of its modules."""
    try:
        find_anatomy(make())
    except AnatomyProblem as problem:
        return problem.message.partition(" Its lists")[0]
    return "not refused"


def refusals() -> str:
    """The families and the reasons, as a Markdown table."""
    lines = ["| Class | vlmend says |", "| --- | --- |"]
    for name, make in REFUSED.items():
        kind, _, rest = name.partition(" ")
        lines.append(f"| `{kind}` {rest}".rstrip() + f" | {reason(make)} |")
    return "\n".join(lines)


def written() -> str:
    """The table in docs/models.md."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def _plain(family: str, head: str = "ForConditionalGeneration", **settings: Any) -> Callable[[], PreTrainedModel]:
    """The real class with its default config, without weights."""

    def make() -> PreTrainedModel:
        config = getattr(transformers, f"{family}Config")(**settings)
        with torch.device("meta"):
            return getattr(transformers, f"{family}{head}")(config)

    return make


REFUSED: dict[str, Callable[[], PreTrainedModel]] = {
    "Blip2ForConditionalGeneration over T5": blip2_over_t5,
    "Florence2ForConditionalGeneration": _plain("Florence2"),
    "FuyuForCausalLM": _plain("Fuyu", "ForCausalLM"),
    "ChameleonForConditionalGeneration": _plain("Chameleon", **MAP),
    "Emu3ForConditionalGeneration": _plain("Emu3", **MAP),
    "Kosmos2ForConditionalGeneration": _plain("Kosmos2"),
    "Kosmos2_5ForConditionalGeneration": _plain("Kosmos2_5"),
    "GitForCausalLM": _plain("Git", "ForCausalLM"),
    "BlipForConditionalGeneration": _plain("Blip"),
    "IdeficsForVisionText2Text": _plain("Idefics", "ForVisionText2Text"),
}


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{refusals()}\n{END}{rest.partition(END)[2]}")
    else:
        print(refusals())
