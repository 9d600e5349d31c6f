"""The parts of the CMRM study that only read states: where they lie, and which anchors are good ones.

A basis is fitted once on the unmended states (text and image) of a layer; mended states are only
projected, since refitting on them would make any method look good.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlmend.audit.states import centre_distance
from vlmend.audit.suite import Question
from vlmend.core.conversation import Conversation
from vlmend.core.edits import RefuseWhen
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.methods.reading import as_text, read_states, with_image
from vlmend.methods.safety.hidden_detect import HiddenDetect
from vlmend.models.vlm import VLM
from vlmend.studies.cmrm.lab import Lab

__all__ = ["anchors", "probe_auc", "states"]

BATCH = 20
SHRINK = 0.01
"""Inverse regularisation of the probe: states are wide and samples few."""

States = NDArray[np.float32]
"""example, layer, width."""


def states(lab: Lab) -> dict[str, Any]:
    """Per layer: distance of centres, probe AUC and refusal margin, before and after each level; PCA points."""
    harmful = [q for q in lab.held_out.harmful.questions if q.condition == "original"][: lab.plan.states]
    seen = [_asked(lab, q) for q in harmful]
    text = [conversation.without_images() for conversation in seen]
    views = {"image": [], "dataset": [lab.mend("dataset")], "sample": [lab.mend("sample")]}
    read = {"text": _read(lab.target, text)}
    read |= {name: _read(_view(lab.target, mends), seen) for name, mends in views.items()}
    margin = _refusal_direction(lab)
    rows = [
        _layer({name: s[:, layer] for name, s in read.items()}, margin[layer], layer)
        for layer in range(lab.target.layers)
    ]
    kept = sorted({0, lab.target.layers // 2, lab.target.layers - 1})
    return {
        "n": len(harmful),
        "rows": rows,
        "points": [_points(read, layer) for layer in kept],
        "detector": _detector(lab),
    }


def anchors(lab: Lab) -> dict[str, Any]:
    """Which anchors' own shift is near the ideal one: that of validation requests with their real pictures."""
    asked = lab.validation.harmful.questions
    seen = [_asked(lab, q) for q in asked if q.condition == "original"]
    ideal = (_read(lab.target, seen) - _read(lab.target, [c.without_images() for c in seen])).mean(0)
    examples = lab.anchors.examples
    image = blank_image(lab.target.image_side)
    delta = read_states(lab.target, examples, with_image(image)) - read_states(lab.target, examples, as_text)
    quality = cosine_similarity(delta, torch.from_numpy(ideal)[None], dim=-1).mean(1)
    mean = delta.mean(0)
    features = {
        "words in the prompt": [float(len(example.prompt.split())) for example in examples],
        "size of its shift": delta.norm(dim=-1).mean(1).tolist(),
        "cosine with the mean shift": cosine_similarity(delta, mean[None], dim=-1).mean(1).tolist(),
    }
    groups: dict[str, list[float]] = defaultdict(list)
    for example, value in zip(examples, quality.tolist(), strict=True):
        groups[f"label: {example.label}"].append(value)
        groups[f"topic: {example.group or 'none'}"].append(value)
    whole = cosine_similarity(mean, torch.from_numpy(ideal), dim=-1).mean()
    return {
        "n": len(examples),
        "quality": {"mean of single shifts": float(quality.mean()), "mean shift of all": float(whole)},
        "features": {name: _rank_correlation(values, quality.tolist()) for name, values in features.items()},
        "groups": {
            name: {"n": len(values), "mean": float(np.mean(values)), "sd": float(np.std(values))}
            for name, values in sorted(groups.items())
        },
    }


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Spearman's rho and its p value."""
    found: Any = spearmanr(first, second)
    return {"spearman": float(found.statistic), "p": float(found.pvalue)}


def probe_auc(first: NDArray[np.float32], second: NDArray[np.float32], seed: int = 0) -> float:
    """Cross-validated AUC of a ridge-like linear probe that tells two sets apart; 0.5 is blind.

    Five folds, or as many as the smaller set has examples.
    """
    features = np.concatenate([first, second])
    labels = np.array([0] * len(first) + [1] * len(second))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=SHRINK, max_iter=500, random_state=seed))
    order = np.random.default_rng(seed).permutation(len(labels))
    scores = cross_val_predict(
        probe, features[order], labels[order], cv=min(5, len(first), len(second)), method="decision_function"
    )
    return float(roc_auc_score(labels[order], scores))


def _layer(sets: dict[str, NDArray[np.float32]], margin: NDArray[np.float32], layer: int) -> dict[str, Any]:
    mended = [name for name in sets if name != "text"]
    return {
        "layer": layer,
        "distance": {name: centre_distance(sets["text"], sets[name]) for name in mended},
        "auc": {name: probe_auc(sets["text"], sets[name]) for name in mended},
        "margin": {name: float((s @ margin).mean()) for name, s in sets.items()},
    }


def _points(read: dict[str, States], layer: int) -> dict[str, Any]:
    basis = PCA(2, random_state=0).fit(np.concatenate([read["text"][:, layer], read["image"][:, layer]]))
    points = {name: basis.transform(s[:, layer]).round(4).tolist() for name, s in read.items()}
    return {
        "layer": layer,
        "before": centre_distance(read["text"][:, layer], read["image"][:, layer]),
        "after": centre_distance(read["text"][:, layer], read["dataset"][:, layer]),
        "text": points["text"],
        "image": points["image"],
        "mended": points["dataset"],
    }


def _refusal_direction(lab: Lab) -> NDArray[np.float32]:
    """Unit direction from answered to refused text prompts of the validation split, "layer width"."""
    questions = [*lab.validation.harmful.only("query").questions, *lab.validation.harmless.only("query").questions]
    answers = [
        *lab.asker.ask(lab.validation.harmful.only("query"), kind="refusal"),
        *lab.asker.ask(lab.validation.harmless.only("query"), kind="refusal"),
    ]
    read = _read(lab.target, [_asked(lab, q) for q in questions])
    refused = np.array([a.label == "refusal" for a in answers])
    if refused.all() or not refused.any():
        return np.zeros(read.shape[1:], dtype=np.float32)
    direction = read[refused].mean(0) - read[~refused].mean(0)
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def _detector(lab: Lab) -> dict[str, Any]:
    """HiddenDetect as a measure: AUROC of its score, harmful against harmless requests, as text and with image."""
    edit = lab.fit("hidden_detect", HiddenDetect()).edits[0]
    assert isinstance(edit, RefuseWhen)
    found: dict[str, Any] = {"layers": list(edit.layers)}
    for condition in ("query", "original"):
        harmful = [_asked(lab, q) for q in lab.held_out.harmful.only(condition).questions]
        harmless = [_asked(lab, q) for q in lab.held_out.harmless.only(condition).questions]
        scores = [_scores(lab.target, edit, group) for group in (harmful, harmless)]
        labels = [1] * len(harmful) + [0] * len(harmless)
        found[condition] = {"auroc": float(roc_auc_score(labels, np.concatenate(scores))), "n": len(labels)}
    return found


def _scores(target: VLM, edit: RefuseWhen, asked: Sequence[Conversation]) -> NDArray[np.float32]:
    parts: list[Tensor] = [
        target.lens(asked[k : k + BATCH], edit.layers, edit.token_ids) for k in range(0, len(asked), BATCH)
    ]
    return torch.cat(parts).numpy()


def _asked(lab: Lab, question: Question) -> Conversation:
    return question.conversation(lab.target.image_side)


def _view(target: VLM, mends: Sequence[Mend]) -> VLM:
    for mend in mends:
        target = target.with_mend(mend)
    return target


def _read(target: VLM, asked: Sequence[Conversation]) -> States:
    sites = [Site("language", layer) for layer in range(target.layers)]
    parts = [target.hidden(asked[k : k + BATCH], sites) for k in range(0, len(asked), BATCH)]
    return np.concatenate([np.stack([part[site].numpy() for site in sites], axis=1) for part in parts])
