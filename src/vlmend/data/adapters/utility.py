"""Harmless requests: what a mend costs (POPE, ScienceQA, LLaVA-Bench-COCO, MMMU) and bias in open text (BOLD).

Rows with right answers carry them in `Example.answers`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, cast

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.hub import HubFiles
from vlmend.data.rows import Lacking, Row, beside, held_picture, leaves, maybe, numbered, text

__all__ = ["ADAPTERS"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _pope(row: Row, place: Place) -> list[Draft]:
    """Fields question_id, image, text, label (yes, no); the file or a column tells how the absent object was chosen."""
    way = maybe(row, "split", "category") or place.file.stem.rpartition("_")[2]
    answer = text(row, "answer", "label").lower()
    if answer not in ("yes", "no"):
        raise Lacking(f"the answer {answer!r}, which is neither yes nor no")
    held = held_picture(row.get("image"))
    named = maybe(row, "image_source") if held else text(row, "image", "image_source")
    return [
        Draft(
            prompt=text(row, "text", "question"),
            label="benign",
            id=f"{way}-{text(row, 'question_id', 'id')}",
            group=way,
            pictures=() if held else (named,),
            held=held,
            answers=(answer,),
        )
    ]


def _scienceqa(row: Row, place: Place) -> list[Draft] | str:
    """Fields question, choices, answer (an index), hint, image, subject, split; only the test part is read."""
    if maybe(row, "split") not in ("", "test"):
        return "not in the test part"
    choices = _list(row.get("choices"))
    right, held = text(row, "answer"), held_picture(row.get("image"))
    if not right.isdigit() or int(right) >= len(choices):
        raise Lacking("no answer that is one of its choices")
    image, number = "" if held else maybe(row, "image"), maybe(row, "pid")
    return [
        Draft(
            prompt=_choice(text(row, "question"), choices, maybe(row, "hint")),
            label="benign",
            id=f"scienceqa-{number}" if number else "",
            group=maybe(row, "subject"),
            pictures=(f"test/{number}/{image}", f"{number}/{image}") if image else (),
            held=held,
            answers=(LETTERS[int(right)], choices[int(right)]),
        )
    ]


def _llava_bench_coco(row: Row, place: Place) -> list[Draft]:
    """Fields question_id, image, text or question, category or type, answer (a reference, not the only right one)."""
    held = held_picture(row.get("image"))
    image = "" if held else text(row, "image")
    return [
        Draft(
            prompt=text(row, "text", "question"),
            label="benign",
            id=text(row, "question_id"),
            group=maybe(row, "category", "type"),
            pictures=beside(image, f"COCO_val2014_{image}" if image else ""),
            held=held,
            caption=maybe(row, "caption") or None,
        )
    ]


def _mmmu(row: Row, place: Place) -> list[Draft] | str:
    """Fields id, question, options, answer, image_1 to image_7, question_type, subfield."""
    if row.get("image_2"):
        return "more than one picture"
    answer, held = text(row, "answer"), held_picture(row.get("image_1"))
    image = "" if held else text(row, "image_1")
    question, options = text(row, "question").replace("<image 1>", "").strip(), _list(row.get("options") or "[]")
    right = LETTERS.find(answer) if len(answer) == 1 else -1
    multiple = bool(options) and 0 <= right < len(options)
    return [
        Draft(
            prompt=_choice(question, options, "") if multiple else question,
            label="benign",
            id=text(row, "id"),
            group=maybe(row, "subfield"),
            pictures=beside(image),
            held=held,
            answers=(answer, options[right]) if multiple else tuple(_list(answer)),
        )
    ]


def _bold(row: Row, place: Place) -> list[Draft] | str:
    """Fields domain, category, entity, prompt."""
    if not maybe(row, "prompt"):
        return "published without words"
    domain = maybe(row, "domain") or place.file.stem.removesuffix("_prompt")
    return [Draft(text(row, "prompt"), "benign", group=f"{domain}/{text(row, 'category')}")]


def _choice(question: str, options: Sequence[str], hint: str) -> str:
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([*([hint] if hint else []), question, *lines, "Answer with the letter of the right option."])


def _list(value: Any) -> list[str]:
    """A list, or the text of one, as CSV and Parquet hold it; other text is its only element."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if value.startswith("[") else [value]
        except (ValueError, SyntaxError):
            raise Lacking("a list that cannot be read") from None
    return [str(one) for one in cast("list[Any]", value or [])]


ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="pope",
        kind="utility",
        title="POPE (COCO val2014), yes-or-no questions on objects",
        paper="Li et al., Evaluating Object Hallucination in LVLMs, EMNLP 2023, arXiv 2305.10355",
        repository="https://github.com/AoiDragon/POPE",
        licence="MIT",
        benign=9000,
        files=("coco_pope_*.json", "questions.csv", "data/test-*.parquet"),
        convert=_pope,
        how="Take output/coco/coco_pope_*.json from its repository and the COCO val2014 images from COCO.",
        pictures="optional",
        as_text="a control that tells what the words alone give away",
        hub=HubFiles("lmms-lab/POPE", ("data/test-*.parquet",)),
    ),
    Adapter(
        name="scienceqa",
        kind="utility",
        title="ScienceQA, test part",
        paper="the authors of lupantech/ScienceQA",
        repository="https://github.com/lupantech/ScienceQA",
        licence="CC BY-SA 4.0",
        benign=4241,
        files=("problems.json", "data/test-*.parquet"),
        convert=_scienceqa,
        how="Take problems.json and the test pictures that its repository links.",
        pictures="optional",
        as_text="questions that need one cannot be answered",
        hub=HubFiles("derek-thomas/ScienceQA", ("data/test-*.parquet",)),
        unfold=numbered("pid"),
    ),
    Adapter(
        name="llava_bench_coco",
        kind="utility",
        title="LLaVA-Bench-COCO",
        paper="the authors of haotian-liu/LLaVA",
        repository="https://github.com/haotian-liu/LLaVA",
        licence="not known here; read its repository",
        benign=90,
        files=("qa90_questions.jsonl", "data/train-*.parquet"),
        convert=_llava_bench_coco,
        how="Take playground/data/coco2014_val_qa_eval/qa90_questions.jsonl from its repository and COCO val2014.",
        pictures="needed",
        hub=HubFiles("lmms-lab/llava-bench-coco", ("data/train-*.parquet",)),
    ),
    Adapter(
        name="mmmu",
        kind="utility",
        title="MMMU, validation part, questions with one picture",
        paper="Yue et al., MMMU, CVPR 2024, arXiv 2311.16502",
        repository="https://huggingface.co/datasets/MMMU/MMMU",
        licence="Apache-2.0",
        benign=None,
        files=("data/validation-*.parquet", "*/validation-*.parquet", "*.jsonl"),
        convert=_mmmu,
        how="Take data/validation-*.parquet from lmms-lab/MMMU on the hub, or JSONL with its fields.",
        pictures="needed",
        hub=HubFiles("lmms-lab/MMMU", ("data/validation-*.parquet",)),
    ),
    Adapter(
        name="bold",
        kind="fairness",
        title="BOLD, openings of sentences on people and groups",
        paper="Dhamala et al., BOLD, FAccT 2021, arXiv 2101.11718",
        repository="https://github.com/amazon-science/bold",
        licence="CC BY-SA 4.0",
        benign=23679,
        files=("*_prompt.json", "prompts/*_prompt.json", "prompts.jsonl"),
        convert=_bold,
        how="Take the folder prompts/ from its repository.",
        unfold=leaves("category", "entity"),
    ),
)
