"""How far the offline scorers agree with people: `python -m tools.scorers FOLDER_OF_PUBLIC_ROWS`.

Words: MSTS (replies of ten VLMs that people called safe or unsafe), XSTest (requests that are safe or not). AUROC and
kappa at 0.5, by a bootstrap over cases; beside them the length of the text, which knows nothing. Harmless texts about
people: BOLD's openings by group, and SocialCounterfactuals' captions, twelve of each that differ in race and gender
alone. Pictures: harmless ones, drawn here and of MOSSBench, so only false alarms can be counted; words drawn by FigStep
against what RapidOCR reads. Lines of Markdown tables go to stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from vlmend.audit.suites.safety.over_filtering import SUITE as OVER_FILTERING
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.metrics.detection import auroc
from vlmend.core.metrics.resampling import expanded_percentile, mean_interval
from vlmend.core.metrics.stats import Interval, agreement, wilson
from vlmend.models.judging.scorers import THRESHOLD, have, picture_scores, scorer_id, text_scores, words_in
from vlmend.pictures.pool import drawn

DRAWS = 500
DRAWN = 100
"""Harmless pictures drawn here."""


@dataclass(frozen=True)
class Labelled:
    """Texts with what people called them, and the case that each belongs to."""

    name: str
    texts: Sequence[str]
    bad: Sequence[bool]
    cases: Sequence[str]


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def _labelled(shared: Path) -> list[Labelled]:
    msts = [row for name in ("with_picture", "text_only") for row in _rows(shared / f"msts/replies_{name}.jsonl")]
    xstest = _rows(shared / "xstest/prompts.jsonl")
    return [
        Labelled(
            "MSTS replies, unsafe", [row["reply"] for row in msts], [row["label"].startswith("2") for row in msts],
            [row["case"] for row in msts],
        ),
        Labelled(
            "XSTest requests, unsafe", [row["prompt"] for row in xstest], [row["label"] == "unsafe" for row in xstest],
            [row["id"] for row in xstest],
        ),
    ]  # fmt: skip


def over_cases(
    scores: Sequence[float], bad: Sequence[bool], cases: Sequence[str], statistic: Callable[[Any, Any], float]
) -> Interval:
    """A statistic of (scores of bad texts, scores of others); its interval draws whole cases again."""
    score, label = np.asarray(scores), np.asarray(bad)
    places: defaultdict[str, list[int]] = defaultdict(list)
    for k, case in enumerate(cases):
        places[case].append(k)
    held, rng, found = list(places.values()), np.random.default_rng(0), list[float]()
    for _ in range(DRAWS):
        rows = np.concatenate([held[k] for k in rng.integers(len(held), size=len(held))])
        own = label[rows]
        if own.any() and not own.all():
            found.append(statistic(score[rows][own], score[rows][~own]))
    value = statistic(score[label], score[~label])
    return expanded_percentile(np.asarray(found), value, len(held), 0.95)


def kappa(bad: Any, good: Any) -> float:
    """Cohen's kappa of people and of scores at the threshold."""
    told = ["bad"] * len(bad) + ["good"] * len(good)
    scored = ["bad" if one >= THRESHOLD else "good" for one in (*bad, *good)]
    value = agreement(scored, told)[1]
    return 0.0 if math.isnan(value) else value


def _said(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _share(hits: Sequence[bool]) -> str:
    value, low, high = wilson(sum(hits), len(hits))
    return f"{value:.1%} [{low:.1%}, {high:.1%}] ({sum(hits)} of {len(hits)})"


def _agreement(shared: Path, names: Sequence[str]) -> None:
    print("| rows | n, cases | scorer | AUROC | flagged, of bad | flagged, of others | kappa |")
    print("|---|---|---|---|---|---|---|")
    for data in _labelled(shared):
        columns: Mapping[str, Sequence[float]] = {scorer_id(name): text_scores(name, data.texts) for name in names}
        columns = {**columns, "length of the text (blind)": [float(len(text)) for text in data.texts]}
        count = f"{len(data.texts)}, {len(set(data.cases))}"
        for name, scores in columns.items():
            blind = name.endswith("(blind)")
            flagged = [score >= THRESHOLD for score in scores]
            of = [[f for f, bad in zip(flagged, data.bad, strict=True) if bad is wanted] for wanted in (True, False)]
            cells = ["", "", ""] if blind else [
                *map(_share, of), _said(over_cases(scores, data.bad, data.cases, kappa))
            ]  # fmt: skip
            area = _said(over_cases(scores, data.bad, data.cases, auroc))
            print(f"| {data.name} | {count} | {name} | {area} | {' | '.join(cells)} |")


def _harmless(shared: Path, names: Sequence[str]) -> None:
    """Flagged openings of BOLD by group, and the spread of scores in each set of twelve captions."""
    bold = _rows(shared / "bold/prompts.jsonl")
    print("\n| BOLD openings, group | scorer | flagged |\n|---|---|---|")
    for name in names:
        flags = [score >= THRESHOLD for score in text_scores(name, [row["prompt"] for row in bold])]
        print(f"| all | {name} | {_share(flags)} |")
        groups: defaultdict[str, list[bool]] = defaultdict(list)
        for row, flag in zip(bold, flags, strict=True):
            groups[f"{row['domain']}: {row['category']}"].append(flag)
        worst = sorted(groups.items(), key=lambda item: -sum(item[1]) / len(item[1]))
        for group, own in worst[:6]:
            print(f"| {group} | {name} | {_share(own)} |")
    sets = _rows(shared / "social_counterfactuals/race_gender_occupation.jsonl")
    people = sorted({_people(text) for row in sets for text in row["captions"]})
    print("\n| SocialCounterfactuals, who is named | scorer | mean score | flagged |\n|---|---|---|---|")
    for name in names:
        captions = [(row["template"], text) for row in sets for text in row["captions"]]
        scores = text_scores(name, [text for _, text in captions])
        for who in people:
            own = [(s, t) for s, (t, text) in zip(scores, captions, strict=True) if _people(text) == who]
            mean = mean_interval([s for s, _ in own], [t for _, t in own], seed=0)
            print(f"| {who} | {name} | {_said(mean)} | {_share([s >= THRESHOLD for s, _ in own])} |")


def _whom(shared: Path) -> None:
    """The suite over_filtering on the same captions; those that differ in the people alone are pairs."""
    sets = _rows(shared / "social_counterfactuals/race_gender_occupation.jsonl")
    rows = tuple(
        Example(f"{k}-{who}", "", "benign", who.rpartition(" ")[0], caption=text,
                attributes={"pair": f"{k}-{who.rpartition(' ')[2]}"})
        for k, row in enumerate(sets) for text in row["captions"] for who in [_people(text)]
    )  # fmt: skip
    samples = OVER_FILTERING.samples(Dataset("captions", rows), None, None, seed=0)
    print("\n| safety/over_filtering | group | value | floor |\n|---|---|---|---|")
    for row in OVER_FILTERING.measures(samples, seed=0):
        print(f"| {row.name} | {row.group} | {row.said(1)} | {row.floor:.3f} |")


def _people(caption: str) -> str:
    found = re.search(r"(White|Black|Indian|Asian|Middle Eastern|Latino) (male|female)", caption, re.IGNORECASE)
    return found[0].lower() if found else "not told"


def _pictures(shared: Path, names: Sequence[str]) -> None:
    own = [drawn("object", "held_out", 7, k).image for k in range(DRAWN)] + [
        noise_image(72, k).decode() for k in range(20)
    ]
    moss = [PIL.Image.open(file) for file in sorted((shared / "mossbench/images").iterdir())]
    print("\n| harmless pictures | scorer | taken for unsafe |\n|---|---|---|")
    for name in names:
        for what, pictures in (("drawn here", own), ("MOSSBench", moss)):
            flags = [score >= THRESHOLD for score in picture_scores(name, pictures)]
            print(f"| {what} | {scorer_id(name)} | {_share(flags)} |")


def _reading(shared: Path) -> None:
    """Words of FigStep's phrases that stand in what is read."""
    rows = [row for row in _rows(shared / "figstep/safebench.jsonl") if row.get("image")]
    files = [(row["instruction"], shared / "figstep" / row["image"]) for row in rows]
    found, whole = list[bool](), list[bool]()
    for phrase, file in [(phrase, file) for phrase, file in files if file.is_file()]:
        wanted = re.findall(r"\w+", phrase.lower())
        read = re.findall(r"\w+", words_in(PIL.Image.open(file)).lower())
        hits = [word in read for word in wanted]
        found += hits
        whole.append(all(hits))
    print(f"\nRapidOCR on FigStep's pictures: words read {_share(found)}, phrases read whole {_share(whole)}")


def main() -> None:
    """The tables of docs/guides/scorers.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    shared = parser.parse_args().shared
    texts = [name for name in ("profanity", "grim") if have(name)]
    _agreement(shared, texts)
    _harmless(shared, texts)
    if have(OVER_FILTERING.scorer):
        _whom(shared)
    _pictures(shared, [name for name in ("nsfw", "nude") if have(name)])
    if have("ocr"):
        _reading(shared)


if __name__ == "__main__":
    main()
