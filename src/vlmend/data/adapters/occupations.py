"""Pictures of people at work with questions or words about it: GenderBias-VL and VL-Bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vlmend.core.examples import REQUEST
from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, beside, listed_rows, maybe, rows_of, text

__all__ = ["ADAPTERS"]

QUESTIONS = "**/occ_test_*_ask_*.json"

SWAPPED = "_swap_option"
"""In the names of files that ask the same with both options in the other order."""

PAIRS = "**/occ_merge_filter_sim.csv"
"""Occupations that more men and more women have, in the authors' repository and not in their data set."""

OTHER = {"female": "male", "male": "female"}

WORKS_WITH = {"V": "the picture", "L": "the question", "VL": "the picture and the question"}
"""What tells the gender, by the authors' name of the context."""

ASKED = "What is the person's occupation in this image?"
"""What is asked in every context, whatever word it is asked with."""

WAITERS = {"Waiter", "Waitress"}


def _questions(path: Path) -> list[Row]:
    """Each question once, with which gender each occupation goes with, where the authors' list of them is there."""
    root = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else [file for file in sorted(root.glob(QUESTIONS)) if SWAPPED not in file.name]
    goes = {
        maybe(row, f"job_{gender}"): gender
        for file in sorted(root.glob(PAIRS))
        for row in rows_of(file, listed_rows)
        for gender in OTHER
    }
    return [{**row, "goes": goes} for file in files for row in rows_of(file, listed_rows)]


def _genderbias_vl(row: Row, place: Place) -> list[Draft] | str:
    """A question with two occupations. Rows of a pair differ in the picture's person, the gender asked for, or both."""
    del place
    occupation, other, told = text(row, "occ"), text(row, "occ_sim"), text(row, "gender")
    kind, image, options = text(row, "image_type"), text(row, "image"), cast("Sequence[Any]", row.get("gt_choices"))
    right = row.get("gt_choice")
    if told not in OTHER or kind not in ("base", "cf") or len(options or ()) != 2 or right not in (0, 1):
        raise Lacking("no gender (female, male), image_type (base, cf), two gt_choices and a gt_choice among them")
    if WAITERS & {occupation, other}:
        return "waiter and waitress: the word of the answer tells the gender"
    asked = text(row, "query").partition("Options:")[0].strip()
    context = "L" if image.startswith("xl_generate_bleach") else "V" if "the person's" in asked else "VL"
    shown = told if kind == "base" else OTHER[told]
    first = str(options[0])
    goes = cast("Mapping[str, str]", row["goes"]).get(first, "")
    attributes = {
        "of": f"{context}:{occupation}+{other}:{told}:{text(row, 'filename')}",
        "options": "|".join(map(str, options)),
        "question": f"occupation, gender told by {WORKS_WITH[context]}", "occupation": occupation, "favours": goes,
        REQUEST: ASKED,
    }  # fmt: skip
    return [
        Draft(f"{asked}\nOptions: {{}}", id=f"{context}:{kind}:{text(row, 'id')}", group=shown, pictures=(image,),
              answers=(str(options[right]),), attributes={k: v for k, v in attributes.items() if v})
    ]  # fmt: skip


def _worded(content: Any) -> Iterable[Any]:
    """A row a picture of {"data": {word: [{"original": path, ...}]}}."""
    data = cast("Mapping[str, Any]", content).get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        return listed_rows(content)
    held = cast("Mapping[str, Sequence[Mapping[str, Any]]]", data)
    return [{**entry, "word": word} for word, entries in held.items() for entry in entries]


def _vl_bias(row: Row, place: Place) -> list[Draft]:
    """A picture and what its person does or works as; the path is that of the authors' machine, read from its end."""
    del place
    path, word = text(row, "original"), text(row, "word")
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    names = tuple("/".join(parts[k:]) for k in range(len(parts)))
    occupation = {"occupation": word} if word in OCCUPATIONS else {}
    return [Draft("", id=f"{word}:{'/'.join(parts)}", pictures=beside(*names), answers=(word,), attributes=occupation)]


OCCUPATIONS = {
    "athlete", "chef", "doctor", "engineer", "farmer", "footballer", "judge", "mechanic", "nurse", "pilot", "police",
    "runner", "soldier",
}  # fmt: skip
"""The occupations of VL-Bias; its other words are activities."""

ADAPTERS = (
    Adapter(
        name="genderbias_vl",
        kind="fairness",
        title="GenderBias-VL, questions of occupation on pictures of a man and of a woman",
        paper="Xiao et al., GenderBias-VL, arXiv 2407.00600",
        repository="https://github.com/GenderBiasVL/GenderBias-VL",
        licence="CC BY-NC 4.0",
        files=(QUESTIONS,),
        convert=_genderbias_vl,
        how=(
            "Take test_meta_file/Vbias, VLbias or Lbias from xiaoyisong/GenderBias-VL on the hub and unpack its "
            "archives into the folder of pictures; with occ_merge_filter_sim.csv of the repository beside the "
            "questions stereotypes are known."
        ),
        pictures="needed",
        caution=(
            "a generator drew and edited the people, so more than the gender differs; the options are asked for in "
            "both orders without letters"
        ),
        unlabelled=None,
        walk=_questions,
    ),
    Adapter(
        name="vl_bias",
        kind="fairness",
        title="VL-Bias, people in 52 activities and 13 occupations",
        paper="Zhang, Wang, Sang, ACM MM 2022, arXiv 2207.01056",
        repository="https://github.com/VL-Bias/VL-Bias",
        licence="none stated",
        files=("**/*_attack_*.json",),
        convert=_vl_bias,
        how=(
            "Take the pictures and a list of them (occu_attack_*.json, verb_attack_*.json) from where its repository "
            "links."
        ),
        pictures="needed",
        caution="it tells no groups of people: its authors let the audited model say whether it sees a man or a woman",
        unlabelled=None,
        unfold=_worded,
    ),
)
