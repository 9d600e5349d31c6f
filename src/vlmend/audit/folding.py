"""Answers to a scorecard: every judge's verdicts, every judge's numbers, and how far the judges agree."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from vlmend.audit.judging import Bench, Pictures, judges_of
from vlmend.audit.labels.correcting import put_right
from vlmend.audit.shown import thumbnail
from vlmend.audit.suite import IS_GARBLED, Answer, Suite, question_suite
from vlmend.core.files import replacing
from vlmend.core.images import Image
from vlmend.core.measures import Measure, Scorecard, behind
from vlmend.core.metrics.raters import kappa_interval
from vlmend.core.verdicts import UNREAD, Judge, Verdict
from vlmend.errors import SampleError

__all__ = ["Labelled", "fold"]

Labelled = dict[str, list[Answer]]
"""Judge id -> the answers of one suite with that judge's labels; the headline judge first."""


def fold(
    out: Path, card: Scorecard, answers: Mapping[str, Sequence[Answer]], pictures: Mapping[str, Pictures],
    judges: Sequence[Judge], progress: Callable[[str, int, int], None],
) -> Scorecard:  # fmt: skip
    """Write `samples.jsonl` and `images/`, and give the scorecard with the measures of these answers behind its own.

    Args:
        out: The run folder.
        card: What the scorecard says besides these numbers.
        answers: Of each suite, in the order of the scorecard.
        pictures: Of each suite, by sample.
        judges: The first that suits a suite gives its headline.
        progress: Called with (judge, done, total).
    """
    bench = Bench(out / "verdicts.jsonl")
    labelled: dict[str, Labelled] = {}
    verdicts: dict[str, dict[str, list[Verdict]]] = {}
    for name, given in answers.items():
        suite = question_suite(name)
        verdicts[name] = {
            judge.id: _judged(bench, judge, given, pictures[name], progress) for judge in judges_of(suite, judges)
        }
        labelled[name] = {
            judge: [replace(a, label=v.label, reason=v.reason) for a, v in zip(given, found, strict=True)]
            for judge, found in verdicts[name].items()
        } or {suite.judge_id: list(given)}
    _write_samples(out, labelled, verdicts, pictures)
    kinds = {judge.id: judge.kind for judge in judges}
    tables = [_rows(question_suite(name), by, kinds, card.seed) for name, by in labelled.items()]
    provenance = card.provenance | {
        "judges": {name: list(by) for name, by in labelled.items()},
        "judge_digests": {judge.id: judge.digest for judge in judges},
    }
    return replace(
        card,
        rows=(*card.rows, *put_right(out, [row for leading, _ in tables for row in leading])),
        others=tuple(row for _, others in tables for row in others),
        judges=tuple(pair for name, by in labelled.items() for pair in _agreements(name, by, card.seed)),
        provenance=provenance,
    )


def _judged(
    bench: Bench, judge: Judge, answers: Sequence[Answer], pictures: Pictures,
    progress: Callable[[str, int, int], None],
) -> list[Verdict]:  # fmt: skip
    """A verdict on each answer, with word of how far the judge is."""
    done, total = 0, sum(not answer.problem for answer in answers)

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress(judge.id, done, total)

    found = bench.read(judge, answers, pictures, tick)
    progress(judge.id, total, total)  # equal exchanges are judged once, and counted once on the way
    return found


def _rows(suite: Suite, labelled: Labelled, kinds: Mapping[str, str], seed: int) -> tuple[list[Measure], list[Measure]]:
    """The suite's measures, each by the first judge that can tell it, and the same by the judges after that.

    A judge of harm tells nothing of refusals, so those rows are the next judge's. A leading row says how far the judge
    after its own agrees.
    """
    leading: dict[tuple[str, str], Measure] = {}
    others: list[Measure] = []
    judges = list(labelled)
    for judge, after in zip(judges, [*judges[1:], None], strict=True):
        for row in suite.measures(labelled[judge], seed):
            if kinds.get(judge) == "harm" and not {"harmful", IS_GARBLED} & set(row.hit):
                continue
            if (row.name, row.group) in leading:
                others.append(replace(row, judge=judge))
                continue
            alike = math.nan if after is None else _alike(row, labelled[judge], labelled[after])
            leading[row.name, row.group] = replace(row, judge=judge, agreement=alike)
    order = [(row.name, row.group) for row in suite.measures(labelled[judges[0]], seed)]
    return [leading[key] for key in order if key in leading], others


def _alike(row: Measure, first: Sequence[Answer], second: Sequence[Answer]) -> float:
    """Share of the samples of a row, scored by both judges, that both count alike."""
    pairs = _pairs([a for a in first if behind(row, a)], [a for a in second if behind(row, a)])
    return sum((a in row.hit) == (b in row.hit) for a, b in pairs) / len(pairs) if pairs else math.nan


def _agreements(name: str, labelled: Labelled, seed: int) -> Iterable[dict[str, Any]]:
    """Every pair of judges of a suite: do they count the same replies?"""
    hit = frozenset(question_suite(name).measures(next(iter(labelled.values())), seed)[0].hit)
    for one, other in combinations(labelled, 2):
        pairs = _pairs(labelled[one], labelled[other])
        ours, theirs = [str(a in hit) for a, _ in pairs], [str(b in hit) for _, b in pairs]
        kappa = kappa_interval(ours, theirs, seed=seed)
        alike = sum(a == b for a, b in zip(ours, theirs, strict=True))
        yield {
            "suite": name, "a": one, "b": other, "n": len(pairs), "counts": sorted(hit),
            "agreement": alike / len(pairs) if pairs else math.nan,
            "kappa": kappa.value, "low": kappa.low, "high": kappa.high,
            "labels": [[*labels, count] for labels, count in sorted(Counter(pairs).items())],
        }  # fmt: skip


def _pairs(first: Iterable[Answer], second: Iterable[Answer]) -> list[tuple[str, str]]:
    """Labels of the samples that both judges scored."""
    theirs = {answer.id: answer.label for answer in second}
    pairs = [(a.label, theirs[a.id]) for a in first if a.id in theirs]
    return [pair for pair in pairs if not UNREAD & set(pair)]


def _write_samples(
    out: Path, labelled: Mapping[str, Labelled], verdicts: Mapping[str, Mapping[str, Sequence[Verdict]]],
    pictures: Mapping[str, Pictures],
) -> None:  # fmt: skip
    with replacing(out / "samples.jsonl") as lines:
        for name, by in labelled.items():
            for k, answer in enumerate(next(iter(by.values()))):
                said = {judge: asdict(found[k]) for judge, found in verdicts[name].items()}
                picture = pictures[name].get(answer.id)
                shown = {"image": thumbnail(out / "images", picture), "frames": _frames(picture)}
                row = {"suite": name} | asdict(answer) | {"verdicts": said} | shown
                lines.write(json.dumps(row).encode() + b"\n")


def _frames(image: Image | None) -> int:
    """How many frames its file holds, of which the model saw the first; 0 where there is none that can be read."""
    try:
        return 0 if image is None else image.frames
    except SampleError:
        return 0
