"""The family table of docs/models.md, measured on the tiny models.

`python -m tests.models.families.table --write` writes it between its two markers; without `--write` it prints it.
A test holds the committed table to what is measured.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import torch
from tests.models.families import FAMILIES, NEEDS, STAND_INS, family
from tests.models.families.asking import BATCH, BIG, DATA, SEEN, SMALL, SYSTEM, TWO, WORDS

from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector
from vlmend.core.mend import Mend
from vlmend.errors import ModelProblem
from vlmend.methods.safety.cmrm import CMRM
from vlmend.models.decoding.trial import loop_of
from vlmend.models.vlm import VLM

__all__ = ["COLUMNS", "committed", "fitted", "rows", "table"]

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"

COLUMNS = {
    "class": "Class", "needs": "Needs", "processor": "Processor", "blocks": "Decoder blocks", "tower": "Vision tower",
    "image": "The image enters", "tokens": "Tokens of an image", "batch": "Batches", "loop": "Decode loop",
    "several": "Several images",
    "system": "System turn", "cmrm": "CMRM", "notes": "Notes",
}  # fmt: skip
LOOPS = {"refilled": "ours", "thinned": "ours, rows leave only", "generate": "transformers'"}


def rows() -> list[dict[str, str]]:
    """One row a family, in the order of the class names."""
    return sorted((_row(name, family(name)) for name in FAMILIES), key=lambda row: row["class"])


def table(found: list[dict[str, str]]) -> str:
    """The rows as a Markdown table."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS), *([row[key] for key in COLUMNS] for row in found)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def committed() -> str:
    """The table in docs/models.md."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()


@cache
def fitted(name: str) -> Mend:
    """A CMRM mend of a family, fitted once."""
    return CMRM(alpha=0.6).fit(family(name), DATA, seed=0)


def _row(name: str, vlm: VLM) -> dict[str, str]:
    anatomy = vlm.anatomy
    small, big = (_image_tokens(vlm, Conversation.ask("what", image)) for image in (SMALL, BIG))
    return {
        "class": f"`{type(vlm.model).__name__}`" + (" (as Pixtral)" if name == "pixtral" else ""),
        "needs": NEEDS.get(name, ""),
        "processor": STAND_INS.get(name, f"`{type(vlm.processor).__name__}`"),
        "blocks": f"`{anatomy.blocks_path}`",
        "tower": f"`{anatomy.vision_path}`",
        "image": "through cross-attention" if anatomy.crossing else "as tokens",
        "tokens": str(small) if small == big else f"{small} to {big}",
        "batch": f"one by one: {anatomy.alone}" if anatomy.alone else _batched(vlm),
        "loop": LOOPS[loop_of(vlm).way],
        "several": _differs(vlm, TWO),
        "system": _differs(vlm, SYSTEM),
        "cmrm": _cmrm(vlm, fitted(name)),
        "notes": "; ".join(anatomy.notes),
    }


def _image_tokens(vlm: VLM, conversation: Conversation) -> int:
    return int(vlm.reader.rows([conversation], vlm.reader.inputs([conversation])).image.sum())


def _batched(vlm: VLM) -> str:
    alone = torch.cat([vlm.logits([conversation]) for conversation in BATCH])
    off = (vlm.logits(BATCH) - alone).abs().max() / alone.abs().max()
    return "together" if off < 1e-5 else "rows change one another"


def _differs(vlm: VLM, pair: list[Conversation]) -> str:
    """Whether the model hears what two requests differ in, or refuses it."""
    try:
        first, second = (vlm.logits([conversation]) for conversation in pair)
    except ModelProblem as problem:
        return f"refused: {problem.message}"
    return "yes" if (first - second).abs().max() > 1e-3 else "not heard"


def _cmrm(vlm: VLM, mend: Mend) -> str:
    """Fitted, moves image requests by an edit at every layer, and leaves text as it was."""
    mended = vlm.with_mend(mend)
    moved = (mended.logits([SEEN]) - vlm.logits([SEEN])).abs().max() > 1e-3
    same = torch.equal(mended.logits([WORDS]), vlm.logits([WORDS]))
    layers = [edit.site.layer for edit in mend.edits if isinstance(edit, AddVector)]
    return "yes" if moved and same and layers == list(range(vlm.layers)) else "no"


def _write() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows())}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        _write()
    else:
        print(table(rows()))
