"""Requests that only the picture makes harmful: SIUO, MSSBench, VLGuard, RTVLM, VLSBench, MM-Harmful Bench."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.hub import HubFiles
from vlmend.data.rows import Lacking, Row, beside, held_picture, listed_rows, maybe, text

__all__ = ["ADAPTERS"]


def _siuo(row: Row, place: Place) -> list[Draft]:
    """Fields question_id, image, question, category, safety_warning (which tells what the picture shows)."""
    image = text(row, "image", "image_name")
    return [
        Draft(
            prompt=text(row, "question", "prompt"),
            label="harmful",
            id=text(row, "question_id", "id"),
            group=maybe(row, "category"),
            pictures=(image, f"images/{image}"),
            caption=maybe(row, "safety_warning") or None,
        )
    ]


def _mssbench(row: Row, place: Place) -> list[Draft]:
    """Chat: queries with safe_image_path and unsafe_image_path. Embodied: (un)safe_instructions with (un)safe."""
    part, number = text(row, "part"), text(row, "entry")
    group = maybe(row, "Type", "category")
    if part == "chat":
        pairs = [(query, query) for query in _several(row, "queries")]
        safe, unsafe = text(row, "safe_image_path"), text(row, "unsafe_image_path")
    else:
        pairs = list(zip(_several(row, "safe_instructions"), _several(row, "unsafe_instructions"), strict=False))
        safe, unsafe = text(row, "safe"), text(row, "unsafe")
    told = maybe(row, "unsafe_image", "observation_unsafe") or None
    return [
        draft
        for k, (benign, harmful) in enumerate(pairs)
        for draft in (
            Draft(benign, "benign", f"{part}-{number}-{k}-safe", group, (f"{part}/{safe}",)),
            Draft(harmful, "harmful", f"{part}-{number}-{k}-unsafe", group, (f"{part}/{unsafe}",), caption=told),
        )
    ]


def _unfold_mssbench(content: Any) -> Iterable[Any]:
    """{"chat": [entry], "embodied": [entry]}."""
    if not isinstance(content, dict):
        return listed_rows(content)
    parts = cast("Mapping[str, list[Mapping[str, Any]]]", content)
    return [
        {"part": part, "entry": k, **entry}
        for part in ("chat", "embodied")
        for k, entry in enumerate(parts.get(part, []))
    ]


def _several(row: Row, name: str) -> list[str]:
    found = row.get(name)
    if not isinstance(found, list) or not found:
        raise Lacking(f"no {name}")
    return [str(one) for one in cast("list[Any]", found)]


def _vlguard(row: Row, place: Place) -> list[Draft]:
    """Fields image, safe, instr-resp: an unsafe picture with its request, or a safe one with a safe and an unsafe."""
    image, asked = text(row, "image"), row.get("instr-resp")
    if not isinstance(asked, list) or not isinstance(row.get("safe"), bool):
        raise Lacking("no instr-resp (a list) or no safe (true or false)")
    turns = cast("list[Row]", asked)
    group = maybe(row, "harmful_subcategory", "harmful_category")
    if not row["safe"]:
        return [Draft(text(turns[0] if turns else {}, "instruction"), "harmful", image, group, (image,))]
    whole = {key: value for turn in turns for key, value in turn.items()}
    return [
        Draft(text(whole, "safe_instruction"), "benign", f"{image}-safe", group, (image,)),
        Draft(text(whole, "unsafe_instruction"), "harmful", f"{image}-unsafe", group, (image,)),
    ]


def _vlsbench(row: Row, place: Place) -> list[Draft] | str:
    """Fields instruction_id, instruction, image_path, category, image_description."""
    if "instruction" in row and not maybe(row, "instruction"):
        return "published without an instruction"
    held, image = held_picture(row.get("image")), maybe(row, "image_path")
    if held is None and not image:
        raise Lacking("no image_path")
    return [
        Draft(
            prompt=text(row, "instruction"),
            label="harmful",
            id=text(row, "instruction_id"),
            group=maybe(row, "category"),
            pictures=beside(image),
            held=held,
            caption=maybe(row, "image_description") or None,
        )
    ]


def _mm_harmful_bench(row: Row, place: Place) -> list[Draft]:
    """Fields id, prompt, image_url (COCO pictures only; the others are third-party)."""
    url = maybe(row, "image_url")
    return [Draft(text(row, "prompt", "question"), "harmful", text(row, "id"), pictures=beside(url.rpartition("/")[2]))]


ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="siuo",
        kind="harmful requests with pictures",
        title="SIUO, safe inputs but unsafe output",
        paper="Wang et al., Safe Inputs but Unsafe Output, arXiv 2406.15279",
        repository="https://github.com/sinwang20/SIUO",
        licence="CC BY-NC 4.0",
        harmful=167,
        files=("siuo_gen.json", "siuo_gen.jsonl"),
        convert=_siuo,
        how="Take data/siuo_gen.json from its repository and images/ from sinwang/SIUO on the hub.",
        pictures="optional",
        as_text="words that are harmless alone; the caption is the authors' safety warning",
        hub=HubFiles("sinwang/SIUO", ("siuo_gen.json", "images/*")),
    ),
    Adapter(
        name="mssbench",
        kind="harmful requests with pictures",
        title="MSSBench, one request with a safe and an unsafe picture",
        paper="Zhou et al., Multimodal Situational Safety, arXiv 2410.06172",
        repository="https://github.com/eric-ai-lab/MSSBench",
        licence="MIT (its repository; the data set's page states none)",
        harmful=None,
        benign=None,
        files=("combined.json",),
        convert=_mssbench,
        how="Take combined.json, chat/ and embodied/ from kzhou35/mssbench on the hub.",
        pictures="needed",
        hub=HubFiles("kzhou35/mssbench", ("combined.json", "chat/*", "embodied/*")),
        unfold=_unfold_mssbench,
    ),
    Adapter(
        name="vlguard",
        kind="harmful requests with pictures",
        title="VLGuard, test part",
        paper="Zong et al., Safety Fine-Tuning at (Almost) No Cost, ICML 2024, arXiv 2402.02207",
        repository="https://github.com/ys-zong/VLGuard",
        licence="none stated; the hub asks for its terms to be accepted",
        harmful=None,
        benign=None,
        files=("test.json",),
        convert=_vlguard,
        how="Accept the terms of ys-zong/VLGuard on the hub, take test.json and unpack test.zip.",
        pictures="needed",
        hub=HubFiles("ys-zong/VLGuard", ("test.json",), gated=True),
    ),
    Adapter(
        name="vlsbench",
        kind="harmful requests with pictures",
        title="VLSBench, whose words do not give the harm away",
        paper="VLSBench, arXiv 2411.19939",
        repository="https://huggingface.co/datasets/Foreshhh/vlsbench",
        licence="Apache-2.0",
        harmful=2240,
        files=("data.json", "*.jsonl", "*.parquet"),
        convert=_vlsbench,
        how="Take data.json from Foreshhh/vlsbench on the hub and unpack its imgs.tar.",
        pictures="needed",
        hub=HubFiles("Foreshhh/vlsbench", ("data.json",)),
    ),
    Adapter(
        name="mm_harmful_bench",
        kind="harmful requests with pictures",
        title="MM-Harmful Bench",
        paper="Wang et al., InferAligner, EMNLP 2024, arXiv 2401.11206",
        repository="https://github.com/Jihuai-wpy/InferAligner",
        licence="CC BY-NC 4.0",
        harmful=100,
        files=("questions.jsonl",),
        convert=_mm_harmful_bench,
        how="Take MM-HarmfulBench/questions.jsonl from its repository and the COCO pictures that its rows link.",
        pictures="optional",
        as_text="the requests speak of a picture that is not shown",
    ),
)
