"""Pictures and captions that differ in one thing: COCO-Counterfactuals in pairs, SocialCounterfactuals in sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, listed_rows, maybe, rows_of, text
from vlmend.pictures.counterfactuals import PAIR, SET
from vlmend.pictures.pool import phrase

__all__ = ["ADAPTERS"]

SUFFIXES = (".jpg", ".jpeg", ".png")

CROSSED = re.compile(
    r"\b(?P<race>White|Black|Indian|Asian|Middle Eastern|Latino) (?P<gender>male|female) (?P<occupation>.+?)\.?$"
)
"""Race, gender and occupation at the end of a caption of SocialCounterfactuals."""

PROMPT = "prompt.json"
"""What the generator of SocialCounterfactuals writes beside its pictures."""


def _coco_counterfactuals(row: Row, place: Place) -> list[Draft]:
    """Two rows a pair; pictures are called by its index, _0 the original and _1 the counterfactual."""
    del place
    own = text(row, "coco-counterfactual-index", "id")
    captions = (text(row, "original_caption", "caption_0"), text(row, "counterfactual_caption", "caption_1"))
    return [
        Draft(
            "", id=f"{own}:{side}", caption=caption.strip(), attributes={PAIR: own},
            pictures=tuple(f"{own}_{side}{suffix}" for suffix in SUFFIXES),
        )
        for side, caption in enumerate(captions)
    ]  # fmt: skip


def _walked(path: Path) -> list[Row]:
    """Caption files as they are, or each picture in the folders that the authors' generator writes."""
    if path.is_file():
        return rows_of(path, listed_rows)
    prompts = sorted(path.glob(f"*/{PROMPT}"))
    files = sorted(path.glob("**/race_gender_occupation.jsonl"))
    pictured = [row for prompt in prompts for row in _pictured(path, prompt)]
    return pictured or [row for file in files for row in rows_of(file, listed_rows)]


def _pictured(root: Path, prompt: Path) -> Iterator[Row]:
    """Pictures are SEED_NUMBER.jpg: those of one seed are one set, the number is that of the caption."""
    said = json.loads(prompt.read_text("utf-8"))
    for picture in sorted(prompt.parent.glob("*.jpg")):
        seed, _, number = picture.stem.partition("_")
        caption = said.get("caption" if number == "0" else f"output_{number}", "")
        name = picture.relative_to(root).as_posix()
        yield {"picture": name, "caption": caption, "set": f"{prompt.parent.name}/{seed}"}


def _social_counterfactuals(row: Row, place: Place) -> Sequence[Draft] | str:
    """A picture, or the captions of a set; templates come several times, so sets go by their number."""
    if "picture" in row:
        told = _crossed(str(row["caption"]))
        if told is None:
            return "its caption names no race, gender and occupation"
        neutral = f"a photo of {phrase(told['occupation'])}"
        name = str(row["picture"])
        return [Draft("", id=name, pictures=(name,), caption=neutral, attributes={SET: str(row["set"]), **told})]
    own = f"{place.number:04d}:{text(row, 'template', 'filename')}"
    captions: list[str] = row.get("captions") or [
        maybe(row, name) for name in ("caption", *(f"output_{k}" for k in range(1, len(row)))) if maybe(row, name)
    ]
    drafts = [
        Draft("", id=f"{own}:{k}", caption=caption, attributes={SET: own, **told})
        for k, caption in enumerate(captions)
        if (told := _crossed(caption))
    ]
    if not drafts:
        raise Lacking("no captions with race, gender and occupation")
    return drafts


def _crossed(caption: str) -> dict[str, str] | None:
    found = CROSSED.search(caption)
    return dict(found.groupdict()) if found else None


ADAPTERS = (
    Adapter(
        name="coco_counterfactuals",
        kind="fairness",
        title="COCO-Counterfactuals, pairs of pictures and captions that differ in one noun",
        paper="Le, Lal, Howard, NeurIPS 2023, arXiv 2309.14356",
        repository="https://github.com/IntelLabs/multimodal_cognitive_ai",
        licence="CC BY 4.0",
        files=("coco_counterfactuals_captions.jsonl", "examples.jsonl"),
        convert=_coco_counterfactuals,
        how=(
            "Take coco_counterfactuals_captions.jsonl from its repository, and the pictures from Intel's page on the "
            "hub, each called by its index (158956_0_0.jpg the original, 158956_0_1.jpg the counterfactual)."
        ),
        pictures="needed",
        caution="its authors chose the pictures with CLIP, so a CLIP is asked here what another CLIP let through",
        unlabelled=None,
    ),
    Adapter(
        name="social_counterfactuals",
        kind="fairness",
        title="SocialCounterfactuals, sets of one occupation by race and gender",
        paper="Howard et al., CVPR 2024, arXiv 2312.00825",
        repository="https://github.com/IntelLabs/multimodal_cognitive_ai",
        licence="MIT (captions)",
        files=("**/race_gender_occupation.jsonl", "*/prompt.json"),
        convert=_social_counterfactuals,
        how="Take the captions from its repository, or pass a folder that its generator wrote (NUMBER/SEED_K.jpg).",
        pictures="optional",
        as_text="captions alone, which no suite of pictures can use",
        caution="races and genders are words that a generator was given, and it draws grounds with them",
        unlabelled=None,
        walk=_walked,
    ),
)
