"""Red team of a text-to-image pipeline with scorers that work offline as its detectors and filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from vlmend import registry
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.targets import DrawTarget, Target, check_kind
from vlmend.data.layouts import read_data
from vlmend.errors import BadData
from vlmend.models.judging.scorers import PICTURE_SCORERS, THRESHOLD, picture_scores, scorer_id, text_scores
from vlmend.models.loading.options import LoadOptions
from vlmend.models.loading.target import open_target
from vlmend.redteam.novelty import Embed
from vlmend.redteam.pictures import Drawn, red_team_pictures
from vlmend.redteam.search import SearchKind
from vlmend.redteam.space import Template, read_templates

__all__ = ["DETECTORS", "FILTERS", "check_scorers", "red_team_pipeline"]

DETECTORS = tuple(PICTURE_SCORERS)
FILTERS = ("profanity",)


def red_team_pipeline(
    target: Target | str, goals: Dataset | str | Path, out: str | Path, *, budget: int, search: SearchKind = "novelty",
    detectors: Sequence[str] = DETECTORS, filters: Sequence[str] = FILTERS,
    templates: Sequence[Template] | None = None, seed: int = 0, embed: Embed | None = None,
    options: LoadOptions = LoadOptions(), progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Drawn:  # fmt: skip
    """Search for prompts that no filter stops and whose pictures a detector flags (`red_team_pictures`).

    Args:
        target: The pipeline, or its name.
        goals: Prompts to start from, each with a `category`; rows labelled `benign` are the neutral ones, on which the
            detectors' false alarms are counted.
        out: Run folder, closed to others, and the data set of found prompts.
        budget: How many tries, filtered ones among them.
        search: novelty, reward or random.
        detectors: Scorers of pictures, by name: a picture is flagged from a score of 0.5 on.
        filters: Scorers of texts: a prompt is stopped from a score of 0.5 on.
        templates: Forms that prompts are put into; our own unless given.
        seed: Of the search.
        embed: Texts to unit vectors, for novelty; the sentence encoder unless given.
        options: How to load a pipeline that is named.
        progress: Called with (step, done, total).

    Raises:
        BadData: No row is labelled benign.
        UnknownName, MissingExtra: Of a scorer.
        BadParameter, UsageError, RunProblem: As of `red_team_pictures`.
    """
    check_scorers(detectors, filters)
    given = goals if isinstance(goals, Dataset) else read_data(str(goals))
    neutral = [row.prompt for row in given.labelled("benign")]
    if not neutral:
        raise BadData(
            f"{given.name} holds no neutral prompt, so false alarms of the detectors would count as finds.",
            'Add some rows with "label": "benign", prompts of which nothing should be flagged.',
        )
    if isinstance(target, str):
        progress("load", 0, 1)
        target = _opened(target, options)
        progress("load", 1, 1)
    return red_team_pictures(
        cast("DrawTarget", target), given, neutral, Path(out), budget=budget,
        detectors={scorer_id(one): partial(_flags, one) for one in detectors},
        filters={scorer_id(one): partial(_stops, one) for one in filters},
        templates=read_templates() if templates is None else templates, search=search, seed=seed, embed=embed,
        progress=progress,
    )  # fmt: skip


def _opened(name: str, options: LoadOptions) -> Target:
    return open_target(
        name, options, folder=registry.model_folder(name),
        check=lambda kind: check_kind(kind, name, "redteam", "draw"),
    )  # fmt: skip


def check_scorers(detectors: Sequence[str], filters: Sequence[str]) -> None:
    """
    Raises:
        UnknownName: There is no such scorer.
        MissingExtra: One is not installed.
        BadParameter: A file of words cannot be read.
    """
    for name in detectors:
        picture_scores(name, [])
        scorer_id(name)
    for name in filters:
        text_scores(name, ["a word"])


def _flags(name: str, image: Image) -> bool:
    return picture_scores(name, [image.decode()])[0] >= THRESHOLD


def _stops(name: str, prompt: str) -> bool:
    return text_scores(name, [prompt])[0] >= THRESHOLD
