"""Questions on pictures in the layout of VQA, as OK-VQA, VQA-CP and others have it: questions and annotations apart."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, beside, listed_rows, maybe, read_text, text

__all__ = ["ADAPTERS"]

ENOUGH = 3
"""People of ten who gave an answer that VQA's accuracy counts in full."""


def _vqa(row: Row, place: Place) -> list[Draft]:
    """Fields question_id, image_id, question and maybe domain; answers are in the file of annotations beside it."""
    number, picture = text(row, "question_id"), text(row, "image_id", "image")
    domain = maybe(row, "domain") or re.sub("_?questions", "", place.file.stem)
    return [
        Draft(
            prompt=text(row, "question"),
            label="benign",
            id=f"{domain}-{number}",
            group=domain,
            pictures=(*beside(maybe(row, "image")), *_pictures(picture, maybe(row, "coco_split") or place.file.stem)),
            answers=_answers(number, row, place.file),
            attributes={"domain": domain},
        )
    ]


def _pictures(picture: str, told: str) -> tuple[str, ...]:
    """What the authors call the picture of a number: COCO's, with and without its split, or an abstract scene."""
    if not picture.isdigit():
        return beside(picture)
    number, split = f"{int(picture):012d}", re.search(r"(train|val|test)\d{4}", told)
    of_split = [f"COCO_{split[0]}_{number}.jpg", f"abstract_v002_{split[0]}_{number}.png"] if split else []
    return (*of_split, f"{number}.jpg")


def _answers(number: str, row: Row, questions: Path) -> tuple[str, ...]:
    """Those that three of ten people gave; where there are none, the most common one."""
    beside_it = questions.with_name(questions.name.replace("OpenEnded_", "").replace("questions", "annotations"))
    held = row if "answers" in row else _annotations(beside_it).get(number)
    if held is None:
        raise Lacking(f"no answers in {beside_it.name} for question {number}")
    told = [one["answer"] if isinstance(one, dict) else one for one in cast("list[Any]", held.get("answers") or [])]
    counts = Counter(map(str, told))
    common = maybe(held, "multiple_choice_answer") or next((one for one, _ in counts.most_common(1)), "")
    found = tuple(one for one, count in counts.most_common() if count >= ENOUGH) or ((common,) if common else ())
    if not found:
        raise Lacking(f"no answers to question {number}")
    return found


def _annotations(file: Path) -> Mapping[str, Row]:
    if not file.is_file():
        raise Lacking(f"no answers, and {file.name} is not beside it")
    return _annotations_of(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _annotations_of(file: Path, changed_ns: int) -> Mapping[str, Row]:
    """The rows of a file of annotations by the number of their question; read again when the file has changed."""
    del changed_ns
    try:
        return {text(row, "question_id"): row for row in _rows("annotations", json.loads(read_text(file)))}
    except (OSError, ValueError, AttributeError) as problem:
        raise Lacking(f"answers in {file.name} that cannot be read ({problem})") from None


def _rows(name: str, content: Any) -> Sequence[Any]:
    """VQA's files hold their rows under a name, those of VQA-CP hold nothing else."""
    held = cast("Mapping[str, Any]", content).get(name) if isinstance(content, dict) else None
    return cast("list[Any]", held) if isinstance(held, list) else listed_rows(content)


ADAPTERS = (
    Adapter(
        name="vqa",
        kind="robustness",
        title="Questions in the layout of VQA (VQAv2, OK-VQA, VQA-CP)",
        paper="Goyal et al., CVPR 2017, arXiv 1612.00837",
        repository="https://visualqa.org/download.html",
        licence="not known here; read https://visualqa.org/terms.html",
        benign=None,
        files=("*questions.json", "*/*questions.json"),
        convert=_vqa,
        how="Put *questions.json and *annotations.json, a pair a domain, into a folder, and the pictures in another.",
        pictures="needed",
        caution="an answer counts that three of ten people gave: VQA's accuracy gives part of a point for fewer",
        unfold=lambda content: _rows("questions", content),
    ),
)
