"""The blind baseline of membership: what tells members from non-members without any model having been trained on them.

Where captions or pixels alone tell the two apart, they are not a random split of one pool, and whatever score an attack
reaches on them says nothing of what a model remembers (Zhu et al. 2025, arXiv 2504.18349).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["blind_scores", "thumbnails"]

THUMBNAIL = 8
"""Side of the picture that the blind baseline sees."""
FOLDS = 5

Array = npt.NDArray[np.float64]


def blind_scores(
    texts: Sequence[str], pictures: Sequence[PIL.Image.Image], members: Sequence[bool], clusters: Sequence[str],
    *, seed: int,
) -> dict[str, Array]:  # fmt: skip
    """How much like a member each pair is by its words and by its pixels alone, from classifiers fitted on others.

    A logistic regression over words and pairs of words, and one over an 8 x 8 thumbnail and the size of the picture;
    each pair is scored by one that was fitted without its cluster (five folds, fewer where a kind is smaller).

    Returns:
        `blind_words` and `blind_pixels`, "pair"; empty where a kind has fewer than two clusters.
    """
    counts = Counter(member for member, _ in {(m, c) for m, c in zip(members, clusters, strict=True)})
    folds = min(FOLDS, counts[True], counts[False])
    if folds < 2:
        return {}
    words = make_pipeline(TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    pixels = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)

    def scored(classifier: BaseEstimator, features: object) -> Array:
        found = cross_val_predict(
            classifier, features, np.array(members), groups=np.array(clusters), cv=split, method="decision_function"
        )  # fmt: skip
        return np.asarray(found, dtype=np.float64)

    return {"blind_words": scored(words, list(texts)), "blind_pixels": scored(pixels, thumbnails(pictures))}


def thumbnails(pictures: Sequence[PIL.Image.Image]) -> Array:
    """Colours of a small copy of each picture, then the logarithms of its width and height: "picture feature"."""
    small = [
        np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), PIL.Image.Resampling.BOX), dtype=np.float64).ravel()
        for picture in pictures
    ]
    sizes = np.log([picture.size for picture in pictures])
    return np.concatenate([np.stack(small), sizes], axis=1)
