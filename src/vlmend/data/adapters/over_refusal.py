"""Requests that look harmful and are not, with their contrasts: XSTest, OR-Bench, MOSSBench, LVLM-SafeR."""

from __future__ import annotations

from typing import cast

from vlmend.core.examples import Label
from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.hub import HubFiles
from vlmend.data.rows import Lacking, Row, maybe, numbered, text

__all__ = ["ADAPTERS"]


def _xstest(row: Row, place: Place) -> list[Draft]:
    """Columns id, prompt, type, label (safe, unsafe)."""
    return [Draft(text(row, "prompt"), _safety(text(row, "label")), text(row, "id"), maybe(row, "type"))]


def _or_bench(row: Row, place: Place) -> list[Draft]:
    """Columns prompt, category; the file's name tells the toxic part, which a model should decline."""
    label: Label = "harmful" if "toxic" in place.file.stem else "benign"
    return [Draft(text(row, "prompt"), label, maybe(row, "id"), maybe(row, "category"))]


def _mossbench(row: Row, place: Place) -> list[Draft]:
    """Fields pid, question, image_path or image, description, meta_data_over or metadata.over.

    The folder data_contrast, or a file with "contrast" in its name, holds the requests that do ask for
    harm. Their pictures have the names of the harmless ones, so they are looked for where only
    contrasts can be.
    """
    below = "data_contrast" in place.file.parts[-3:-1]
    contrast = below or "contrast" in place.file.stem
    number, image = text(row, "pid", "id"), maybe(row, "image") or text(row, "image_path", "image_name")
    base = image.rpartition("/")[2]
    beside = (image, f"../{image}", base) if not contrast or (below and not place.pictured) else ()
    over = maybe(row, "meta_data_over", "type") or maybe(cast("Row", row.get("metadata") or {}), "over")
    return [
        Draft(
            prompt=text(row, "question", "prompt"),
            label="harmful" if contrast else "benign",
            id=f"contrast-{number}" if contrast else number,
            group=over,
            pictures=(*beside, f"contrast_images/{base}", f"data_contrast/images/{base}") if contrast else beside,
            caption=maybe(row, "description", "short description", "short_description") or None,
        )
    ]


def _lvlm_safer(row: Row, place: Place) -> list[Draft]:
    """Fields id, prompt, label, type, image_name, image_description."""
    return [
        Draft(
            prompt=text(row, "prompt"),
            label=_safety(text(row, "label")),
            id=text(row, "id"),
            group=maybe(row, "type"),
            pictures=(text(row, "image_name"),),
            caption=maybe(row, "image_description") or None,
        )
    ]


def _safety(label: str) -> Label:
    match label:
        case "safe":
            return "benign"
        case "unsafe":
            return "harmful"
        case _:
            raise Lacking(f"the label {label!r}, which is neither safe nor unsafe")


ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="xstest",
        kind="over-refusal",
        title="XSTest v2, safe prompts and unsafe contrasts",
        paper="Röttger et al., XSTest, NAACL 2024, arXiv 2308.01263",
        repository="https://github.com/paul-rottger/exaggerated-safety",
        licence="CC BY 4.0",
        harmful=200,
        benign=250,
        files=("xstest_prompts.csv", "prompts.jsonl"),
        convert=_xstest,
        how="Take xstest_prompts.csv from its repository.",
    ),
    Adapter(
        name="or_bench",
        kind="over-refusal",
        title="OR-Bench, the hard part and the toxic part",
        paper="Cui et al., OR-Bench, ICML 2025",
        repository="https://huggingface.co/datasets/bench-llm/or-bench",
        licence="CC BY 4.0",
        harmful=655,
        benign=1319,
        files=("or-bench-hard-1k.csv", "or-bench-toxic.csv"),
        convert=_or_bench,
        how="Take or-bench-hard-1k.csv and or-bench-toxic.csv from its page on the hub and pass their folder.",
        hub=HubFiles("bench-llm/or-bench", ("or-bench-hard-1k.csv", "or-bench-toxic.csv")),
    ),
    Adapter(
        name="mossbench",
        kind="over-refusal",
        title="MOSSBench, harmless picture-and-question pairs and harmful contrasts",
        paper="Li et al., MOSSBench, arXiv 2406.17806",
        repository="https://github.com/xirui-li/MOSSBench",
        licence="CC BY-SA 4.0",
        harmful=244,
        benign=300,
        files=("benign.jsonl", "contrast_harmful.jsonl", "information.csv", "data_contrast/*/information.json"),
        convert=_mossbench,
        how="Clone its repository and pass that folder.",
        pictures="optional",
        as_text="the labels hold with the picture or its caption only",
        test_only=True,
        unfold=numbered("pid"),
    ),
    Adapter(
        name="lvlm_safer",
        kind="over-refusal",
        title="LVLM-SafeR, prompts that one picture makes safe and another unsafe",
        paper="Liu et al., Don't Always Say No to Me, 2024 (project page)",
        repository="https://github.com/isXinLiu/LVLM-SafeR",
        licence="CC BY-NC 4.0",
        harmful=250,
        benign=250,
        files=("pairs.jsonl",),
        convert=_lvlm_safer,
        how="Bring parts 1 and 2 as JSONL rows {id, prompt, label, type, image_name, image_description}.",
        pictures="optional",
        as_text="the labels hold with the picture or its caption only",
    ),
)
