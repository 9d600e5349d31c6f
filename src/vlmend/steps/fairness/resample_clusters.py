"""resample_clusters: rows of clusters that a first model does badly on come in more often, without group labels.

Pictures are clustered within each class by a profile, their cosines with texts that describe what may differ. A first
model, a linear probe on embeddings, is scored on rows that it was not fitted on. Clusters with more errors than
average, beyond chance, get copies, the more the worse they do and the smaller they are, up to a cap.

After Zhang and Chunara 2024, arXiv 2403.10624.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import PIL.Image
from scipy.stats import norm
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vlmend.core.contracts import AbstractStep, Added, DataEdit
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.targets import DualTarget
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.steps.opening import opened

__all__ = ["STEP", "ResampleClusters", "cluster_weights"]

COLOURS = "colours"
"""Name of the stand-in for an encoder: the picture in a few colours, and what it looks like as a whole."""

LEVEL = 0.05
"""Chance that any cluster is taken for a poor one where all are alike."""

GRID, LEAST, STARTS, SHUFFLES, MOST_VALUES = 8, 4, 10, 20, 20

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ResampleClusters(AbstractStep):
    """Adds copies of rows in clusters that do badly.

    Attributes:
        model: Name or folder of the dual encoder whose embeddings the first model is a linear probe on; `colours` takes
            the picture in 8 by 8 colours, without a model.
        profiler: Name or folder of the dual encoder that profiles pictures, best another one than `model`; `colours`
            takes means and spreads of the colours.
        prompts: Texts that describe what may differ, separated by "|"; for a profiler that is an encoder.
        clusters: In each class, at most; fewer where it has few rows.
        cap: Largest weight of a row beside that of a row whose cluster does well.
        folds: Parts of the rows; each is scored by a probe that was fitted on the others.
    """

    name: ClassVar[str] = "resample_clusters"
    source: ClassVar[str] = "Zhang and Chunara 2024, arXiv 2403.10624"

    model: str = COLOURS
    profiler: str = COLOURS
    prompts: str = ""
    clusters: int = 4
    cap: float = 10.0
    folds: int = 5

    def __post_init__(self) -> None:
        texts = self.texts
        bad = [
            told
            for told, wrong in (
                (f"clusters={self.clusters}: 1 or more", self.clusters < 1),
                (f"cap={self.cap:g}: 1 or more", not self.cap >= 1),
                (f"folds={self.folds}: 2 or more", self.folds < 2),
                ("prompts: two or more for a profiler that is an encoder", self.profiler != COLOURS and len(texts) < 2),
                ("prompts: for a profiler that is an encoder alone", self.profiler == COLOURS and bool(texts)),
            )
            if wrong
        ]
        if bad:
            raise BadParameter("Rows cannot be sampled so.", "; ".join(bad) + ".")

    @property
    def texts(self) -> list[str]:
        """The prompts, one by one."""
        return [part.strip() for part in self.prompts.split("|") if part.strip()]

    def sample_data(self) -> Dataset:
        """Twenty-four plain pictures of two classes."""
        shades = [(200 - 5 * k, 60, 60) if k % 2 else (60, 60, 200 - 5 * k) for k in range(24)]
        rows = (
            Example(str(k), image=_plain(shade), answers=("warm" if k % 2 else "cold",))
            for k, shade in enumerate(shades)
        )
        return Dataset("warm-and-cold", tuple(rows))

    def apply(self, data: Dataset, *, seed: int) -> DataEdit:
        rows = _rows(data)
        classes = np.array([row.answers[0] for row in rows])
        least = min(Counter(classes.tolist()).values())
        if len(set(classes.tolist())) < 2 or least < self.folds:
            raise BadData(
                f"{data.name} has {len(set(classes.tolist()))} classes with {least} pictures or more.",
                f"Pass two classes or more (answers) of {self.folds} pictures or more, or fewer folds.",
            )
        clusters = self._clusters(self._profiles(rows), classes, seed)
        losses = _held_out_errors(self._features(rows), classes, self.folds, seed)
        weights = cluster_weights(losses, clusters, self.cap)
        rng = np.random.default_rng(seed)
        extra = weights / weights.min() - 1
        copies = (np.floor(extra) + (rng.random(len(rows)) < extra % 1)).astype(int)
        added = tuple(
            Added(
                replace(row, id=f"{row.id}+{k}", attributes={**row.attributes, "copy_of": row.id}),
                f"copy: the cluster {cluster} does badly",
            )
            for row, count, cluster in zip(rows, copies.tolist(), clusters, strict=True)
            for k in range(1, count + 1)
        )
        tables = {
            "clusters": _table(clusters, losses, weights, copies),
            "what clusters know of attributes": _known(rows, clusters, seed),
        }
        return DataEdit(
            replace(data, examples=(*data.examples, *(one.example for one in added))), tables=tables, added=added
        )

    def _features(self, rows: Sequence[Example]) -> Array:
        """What the first model reads of each picture (row, width)."""
        if self.model == COLOURS:
            return np.stack([_thumbnail(row).reshape(-1) for row in rows])
        return _embedded(self.model, rows, self.name)

    def _profiles(self, rows: Sequence[Example]) -> Array:
        """What pictures are clustered by (row, prompt)."""
        if self.profiler == COLOURS:
            small = np.stack([_thumbnail(row).reshape(-1, 3) for row in rows])
            grey = np.ptp(small, axis=2).mean(1, keepdims=True)
            return np.concatenate([small.mean(1), small.std(1), grey], axis=1)
        encoder = opened(self.profiler, "dual", self.name)
        assert isinstance(encoder, DualTarget)
        texts = encoder.embed_texts(self.texts).double().numpy()
        return _embedded(self.profiler, rows, self.name) @ texts.T

    def _clusters(self, profiles: Array, classes: npt.NDArray[Any], seed: int) -> list[str]:
        """The cluster of each row, within its class; k-means on profiles as they are."""
        names = [""] * len(classes)
        for name in sorted(set(classes.tolist())):
            own = np.flatnonzero(classes == name)
            count = max(1, min(self.clusters, len(own) // LEAST))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct profiles than clusters
                found = KMeans(count, n_init=STARTS, random_state=seed).fit_predict(profiles[own])  # type: ignore[arg-type]
            for place, cluster in zip(own.tolist(), found.tolist(), strict=True):
                names[place] = f"{name}/{cluster}"
        return names


def cluster_weights(losses: Array, clusters: Sequence[str], cap: float) -> Array:
    """The weight of each row, mean 1: the same for all where no cluster does worse than the rows on average.

    A cluster of mean loss L gets 1 + (L / mean loss - 1) x (mean size of a cluster / its size), at most `cap`, where L
    is larger than that of as many rows by chance (one-sided z, Bonferroni over clusters, at 5 %); others get 1. Then
    all are scaled to sum to the number of rows.

    Shape:
        losses (row,), clusters (row,), result (row,).
    """
    names, place, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    overall, spread = float(losses.mean()), float(losses.std())
    if spread <= 1e-9:
        return np.ones(len(losses))
    means = np.bincount(place, losses) / sizes
    poor = (means - overall) / spread * np.sqrt(sizes) > norm.isf(LEVEL / len(names))
    excess = np.where(poor, means / overall - 1, 0)
    raw = np.minimum(cap, 1 + excess * len(losses) / len(names) / sizes)
    return (raw / raw[place].mean())[place]


def _rows(data: Dataset) -> list[Example]:
    """Pictures with a class, which ask nothing and are for training.

    Raises:
        UsageError: The data are for testing only.
        BadData: There are none.
    """
    if data.test_only:
        raise UsageError(
            f"{data.name} is for testing only, so nothing is copied in it to train on.", "Copy other rows."
        )
    found = [
        row for row in data.examples
        if row.image is not None and row.answers and not row.prompt and row.attributes.get("split", "train") == "train"
    ]  # fmt: skip
    if not found:
        raise BadData(
            f"{data.name} has no picture with a class to train on.",
            "Pass rows with image and answers, without a prompt; rows whose attribute `split` is not `train` are left "
            "alone.",
        )
    return found


def _held_out_errors(features: Array, classes: npt.NDArray[Any], folds: int, seed: int) -> Array:
    """1 for each row that a probe, fitted without it, takes for another class, else 0."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return (np.asarray(cross_val_predict(probe, features, classes, cv=parts)) != classes).astype(np.float64)


def _embedded(name: str, rows: Sequence[Example], step: str) -> Array:
    encoder = opened(name, "dual", step)
    assert isinstance(encoder, DualTarget)
    return encoder.embed_images([row.image for row in rows if row.image is not None]).double().numpy()


def _thumbnail(row: Example) -> Array:
    assert row.image is not None
    return np.asarray(row.image.decode().resize((GRID, GRID)), np.float64) / 255


def _plain(shade: tuple[int, int, int]) -> Image:
    return Image.from_pixels(PIL.Image.new("RGB", (16, 16), shade))


def _table(
    clusters: Sequence[str], losses: Array, weights: Array, copies: npt.NDArray[np.int_]
) -> list[Mapping[str, Any]]:
    names = np.asarray(clusters)
    return [
        {
            "cluster": name, "rows": int(own.sum()), "wrong": float(losses[own].mean()),
            "weight": float(weights[own].mean()), "copies": int(copies[own].sum()),
        }
        for name in sorted(set(clusters))
        for own in (names == name,)
    ]  # fmt: skip


def _known(rows: Sequence[Example], clusters: Sequence[str], seed: int) -> list[Mapping[str, Any]]:
    """Mutual information of clusters and each attribute in nats, beside the mean of shuffled clusters."""
    rng = np.random.default_rng(seed)
    found: list[Mapping[str, Any]] = []
    for name in dict.fromkeys(key for row in rows for key in ("group", *row.attributes)):
        told = [row.group if name == "group" else row.attributes.get(name, "") for row in rows]
        if 2 <= len(set(told)) <= MOST_VALUES:
            by_chance = np.mean([mutual_info_score(told, rng.permutation(clusters)) for _ in range(SHUFFLES)])
            found.append({
                "attribute": name, "information": float(mutual_info_score(told, clusters)), "shuffled": float(by_chance)
            })  # fmt: skip
    return found


STEP = ResampleClusters
