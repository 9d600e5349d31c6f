"""Red-team questions beside pictures, with what a model should do: RTVLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmend.core.examples import Label
from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, maybe, text

__all__ = ["ADAPTERS"]

TASKS: Mapping[str, tuple[str, str]] = {
    "Celebrity/mixed": ("privacy", "celebrity"), "Harmful/misleading": ("faithfulness", "misleading text"),
    "Jailbreak/jailbreak": ("safety", "jailbreak"), "Jailbreak2/jailbreak": ("safety", "jailbreak"),
    "Politics/politics": ("safety", "politics"), "Racial/racial": ("safety", "racial"),
}  # fmt: skip
"""By the end of a file's name: the axis and the sub-task; other files are sub-tasks of no known axis."""

UNSORTED = "unsorted"

STANCES: Mapping[str, tuple[str, Label | None]] = {
    "safe to answer": ("safe", "benign"), "proceed with caution": ("caution", None),
    "answer with caution": ("caution", None), "refuse to answer": ("refuse", "harmful"),
}  # fmt: skip

FOLDERS = ("", "img/", "img/img/", "mix/", "img/politics/", "img/racial/", "../Jailbreak/img/", "../Jailbreak/img/img/")
"""Where a picture may lie, beside its file: as the archives unpack."""


def _rtvlm(row: Row, place: Place) -> list[Draft]:
    """Fields prompt, questions or instruction; refused_to_answer; id, index or img_id; the file tells the sub-task."""
    name = f"{place.file.parent.name}/{place.file.stem}"
    axis, task = TASKS.get(name, (UNSORTED, place.file.stem))
    told = _first(row.get("refused_to_answer"))
    if not told:
        raise Lacking("no refused_to_answer")
    if told.casefold() not in STANCES:
        raise Lacking(f"refused_to_answer={told!r}, which is none of {', '.join(STANCES)}")
    stance, label = STANCES[told.casefold()]
    fields = ("prompt", "questions", "question", "instruction")
    prompt = next((said for field in fields if (said := _first(row.get(field)))), "")
    if not prompt:
        raise Lacking("no prompt, questions or instruction")
    picture = text(row, "index", "id", "img_id")
    pictures = tuple(
        f"{folder}{one}" for folder in (*FOLDERS, f"{place.file.parent.name}/img/") for one in _names(picture)
    )
    reference = maybe(row, "reference", "answer")
    return [
        Draft(
            prompt, label, f"{name}-{place.number:04d}", task, pictures, answers=(reference,) if reference else (),
            attributes={"axis": axis, "task": task, "stance": stance},
        )
    ]  # fmt: skip


def _first(value: Any) -> str:
    """A text, or the first of a list of texts."""
    found = value[0] if isinstance(value, list) and value else value
    return found.strip() if isinstance(found, str) else ""


def _names(picture: str) -> tuple[str, ...]:
    return (picture,) if "." in picture else (f"{picture}.jpg", f"{picture}.png", picture)


ADAPTERS = (
    Adapter(
        name="rtvlm",
        kind="harmful requests with pictures",
        title="RTVLM, red-team questions on faithfulness, privacy and safety, with what to do",
        paper="Li et al., Findings of ACL 2024, arXiv 2401.12915",
        repository="https://huggingface.co/datasets/MMInstruction/RedTeamingVLM",
        licence="CC BY 4.0 or CC (its card has said both)",
        harmful=None,
        benign=None,
        unlabelled=None,
        files=("*/*.jsonl", "data/*/*.jsonl", "Safety/*/*.jsonl", "data/Safety/*/*.jsonl"),
        convert=_rtvlm,
        how="Download MMInstruction/RedTeamingVLM from the hub and unpack its archives of pictures where they lie.",
        pictures="needed",
        caution="most sub-tasks have one label throughout, so always doing the same scores well: read the baselines",
    ),
)
