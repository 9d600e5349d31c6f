"""Texts and labels on groups of people: BBQ, CrowS-Pairs, WinoBias, Winogender, and the labels of FairFace."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, listed_rows, maybe, rows_of, text

__all__ = ["ADAPTERS"]

LINK = re.compile(r"\[([^\]]+)\]")
"""WinoBias brackets the occupation and every pronoun that stands for it."""

PRONOUNS = {"he", "him", "his", "himself", "she", "her", "hers", "herself", "they", "them", "their"}

WINO = "*_stereotyped_type[12].txt.*"
"""Files of WinoBias: pro or anti, type, then dev or test."""


def _bbq(row: Row, place: Place) -> list[Draft]:
    """The authors' fields (ans0, answer_info) or those of a joined file (answers, groups)."""
    del place
    info = cast("Mapping[str, Sequence[str]]", row.get("answer_info") or {})
    answers = row.get("answers") or [text(row, f"ans{k}") for k in range(3)]
    groups = row.get("groups") or [str((info.get(f"ans{k}") or ["", ""])[1]) for k in range(3)]
    extra = cast("Mapping[str, Any]", row.get("additional_metadata") or row)
    label = int(text(row, "label"))
    if not 0 <= label < len(answers):
        raise Lacking(f"a label of {label}")
    category, own = text(row, "category"), text(row, "example_id")
    told = {
        "context_condition": text(row, "context_condition"), "question_polarity": text(row, "question_polarity"),
        "stereotyped_groups": "; ".join(map(str, extra.get("stereotyped_groups") or ())),
        "answer_groups": "; ".join(map(str, groups)), "options": "; ".join(map(str, answers)),
        "set": f"{category}-{text(row, 'question_index')}",
    }  # fmt: skip
    prompt = f"{text(row, 'context')} {text(row, 'question')}"
    return [
        Draft(prompt, "benign", f"{category}-{own}", category, answers=(str(answers[label]),),
              attributes={name: value for name, value in told.items() if value})
    ]  # fmt: skip


def _crows_pairs(row: Row, place: Place) -> list[Draft]:
    """Both sentences of a pair; the authors' first column has no name."""
    own = maybe(row, "id", "") or str(place.number)
    kind, direction = text(row, "bias_type"), text(row, "stereo_antistereo", "direction")
    return [
        Draft(text(row, f"sent_{side}"), id=f"{own}:{side}", group=kind,
              attributes={"pair": own, "side": side, "direction": direction})
        for side in ("more", "less")
    ]  # fmt: skip


def _wino_rows(path: Path) -> list[Row]:
    """The authors' text files, one numbered sentence a line, or JSONL of the same."""
    files = [path] if path.is_file() else sorted([*path.glob(f"**/{WINO}"), *path.glob("sentences.jsonl")])
    found: list[Row] = []
    for file in files:
        if file.match(WINO):
            found += _wino_lines(file)
        else:
            found += rows_of(file, listed_rows)
    return found


def _wino_lines(file: Path) -> list[Row]:
    kind, _, rest = file.name.partition("_stereotyped_type")
    rows: list[Row] = []
    for line in file.read_text("utf-8").splitlines():
        number, _, sentence = line.strip().partition(" ")
        if sentence:
            own = f"{rest.rpartition('.')[2]}_t{rest[0]}_{number}"
            rows.append({"id": own, "stereotype": kind, "type": rest[0], "sentence": sentence})
    return rows


def _winobias(row: Row, place: Place) -> list[Draft]:
    """The sentence without brackets; the answer is what the pronoun stands for."""
    del place
    sentence, own, side = text(row, "sentence"), text(row, "id"), text(row, "stereotype")
    linked = LINK.findall(sentence)
    pronouns = [link for link in linked if link.casefold() in PRONOUNS]
    named = [link for link in linked if link.casefold() not in PRONOUNS]
    if len(named) != 1 or not pronouns:
        raise Lacking(f"no occupation and pronoun in brackets in {sentence!r}")
    told = {"pair": own, "stereotype": side, "type": text(row, "type"), "pronoun": pronouns[0]}
    return [Draft(LINK.sub(r"\1", sentence), id=f"{own}:{side}", group=side, answers=(named[0],), attributes=told)]


def _winogender(row: Row, place: Place) -> list[Draft]:
    """Ids are OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt; answer 0 is the occupation, 1 the participant."""
    del place
    own, sentence = text(row, "sentid"), text(row, "sentence")
    parts = own.removesuffix(".txt").split(".")
    if len(parts) != 4 or parts[2] not in ("0", "1"):
        raise Lacking(f"a sentid of {own} (occupation.participant.answer.gender.txt)")
    occupation, participant, answer, gender = parts
    told = {"occupation": occupation, "participant": participant, "gender": gender, "pair": ".".join(parts[:3])}
    return [Draft(sentence, id=own, group=gender, answers=((occupation, participant)[int(answer)],), attributes=told)]


def _fairface(row: Row, place: Place) -> list[Draft]:
    """One face: its picture, where there is a folder, and what annotators perceived."""
    del place
    file = text(row, "file")
    told = {name: text(row, name) for name in ("race", "gender", "age")}
    return [Draft("", id=file, group=told["race"], pictures=(file,), attributes={**told, "groups_by": "annotators"})]


ADAPTERS = (
    Adapter(
        name="bbq",
        kind="fairness",
        title="BBQ, questions whose answer is a group, with and without what decides it",
        paper="Parrish et al., BBQ, Findings of ACL 2022, arXiv 2110.08193",
        repository="https://github.com/nyu-mll/BBQ",
        licence="CC BY 4.0",
        files=("data/*.jsonl", "subset.jsonl"),
        convert=_bbq,
        how="Take the folder data/ from its repository.",
        caution="the right answer of an ambiguous context is that it cannot be known",
        benign=None,
    ),
    Adapter(
        name="crows_pairs",
        kind="fairness",
        title="CrowS-Pairs, pairs of sentences that differ in the group named",
        paper="Nangia et al., CrowS-Pairs, EMNLP 2020, arXiv 2010.00133",
        repository="https://github.com/nyu-mll/crows-pairs",
        licence="CC BY-SA 4.0",
        files=("data/crows_pairs_anonymized.csv", "crows_pairs_anonymized.csv", "pairs.jsonl"),
        convert=_crows_pairs,
        how="Take data/crows_pairs_anonymized.csv from its repository.",
        caution="its authors warn of noise in some pairs: use totals, not single rows",
        unlabelled=3016,
    ),
    Adapter(
        name="winobias",
        kind="fairness",
        title="WinoBias, sentences with an occupation and a pronoun, for and against the stereotype",
        paper="Zhao et al., Gender Bias in Coreference Resolution, NAACL 2018, arXiv 1804.06876",
        repository="https://github.com/uclanlp/corefBias",
        licence="MIT",
        files=(f"**/{WINO}", "sentences.jsonl"),
        convert=_winobias,
        how="Take the folder WinoBias/wino/data from its repository.",
        unlabelled=3168,
        walk=_wino_rows,
    ),
    Adapter(
        name="winogender",
        kind="fairness",
        title="Winogender schemas, sentences that differ in the pronoun alone",
        paper="Rudinger et al., Gender Bias in Coreference Resolution, NAACL 2018, arXiv 1804.09301",
        repository="https://github.com/rudinger/winogender-schemas",
        licence="MIT",
        files=("data/all_sentences.tsv", "all_sentences.tsv", "sentences.csv"),
        convert=_winogender,
        how="Take data/all_sentences.tsv from its repository.",
        unlabelled=720,
    ),
    Adapter(
        name="fairface_labels",
        kind="fairness",
        title="FairFace, faces with race, gender and age",
        paper="Kärkkäinen and Joo, FairFace, WACV 2021, arXiv 1908.04913",
        repository="https://github.com/joojs/fairface",
        licence="CC BY 4.0",
        files=("fairface_label_*.csv", "val_labels.csv"),
        convert=_fairface,
        how="Take fairface_label_val.csv and the faces that its repository links; the folder of pictures holds val/.",
        pictures="optional",
        as_text="labels alone, for fairness/representation",
        caution="groups are as annotators perceived them",
        unlabelled=None,
    ),
)
