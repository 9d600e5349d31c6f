"""What `resample_clusters` does to the worst group: a probe on phantom-clip's embeddings, with it and without.

    python -m tools.resampling     # prints the tables of docs/steps/resample_clusters.md

Things of the two largest categories; one view in twenty is of a rare style. Two worlds: the style is grey, whatever the
class; or each class has a tint that goes with it, and rare are views in the tint of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import PIL.Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.targets import DualTarget
from vlmend.pictures.galleries import object_pictures, training_objects
from vlmend.steps.fairness.resample_clusters import ResampleClusters
from vlmend.steps.opening import opened

__all__ = ["SEEDS", "WORLDS", "arms", "main", "pool", "tried"]

SEEDS = (0, 1, 2)
VIEWS = 6
RARE = 20
"""One row in so many is rare."""

PROMPTS = {
    "grey": "a photo in colour|a grey photo|a blurred photo|a photo on a plain ground|a photo turned round",
    "tint": "a red photo|a blue photo|a green photo|a photo on a plain ground|a blurred photo",
}

WARM, COLD = (230, 90, 40), (40, 90, 230)

Change = Callable[[PIL.Image.Image, int, bool], PIL.Image.Image]
"""The picture of a class (0 or 1) as it is usually, or in the rare style."""


def _grey(picture: PIL.Image.Image, own: int, rare: bool) -> PIL.Image.Image:
    return picture.convert("L").convert("RGB") if rare else picture


def _tint(picture: PIL.Image.Image, own: int, rare: bool) -> PIL.Image.Image:
    colour = (WARM, COLD)[own ^ rare]
    return PIL.Image.blend(picture, PIL.Image.new("RGB", picture.size, colour), 0.35)


WORLDS: Mapping[str, Change] = {"grey": _grey, "tint": _tint}


def classes() -> tuple[str, str]:
    """The two categories with most things."""
    counted = Counter(row.group for row in training_objects(1).examples).most_common(2)
    return counted[0][0], counted[1][0]


def _shown(row: Example, world: str, rare: bool) -> Example:
    """The row in this world, its category as the class."""
    assert row.image is not None
    picture = WORLDS[world](row.image.decode(), classes().index(row.group), rare)
    told = {"style": "rare" if rare else "usual"}
    return replace(row, image=Image.from_pixels(picture), answers=(row.group,), group="", attributes=told)


def pool(world: str, seed: int) -> Dataset:
    """Training views; which ones are rare is drawn by the seed."""
    rows = [row for row in training_objects(VIEWS).examples if row.group in classes()]
    drawn = set(np.random.default_rng(seed).permutation(len(rows))[: len(rows) // RARE].tolist())
    return Dataset(f"rare-{world}-{seed}", tuple(_shown(row, world, k in drawn) for k, row in enumerate(rows)))


def tests(world: str) -> Mapping[str, list[Example]]:
    """Held-out views of each thing, as usual and in the rare style."""
    rows = [row for row in object_pictures("held_out").examples if row.group in classes()]
    return {name: [_shown(row, world, name == "rare") for row in rows] for name in ("usual", "rare")}


def embedded(target: DualTarget, rows: Sequence[Example]) -> np.ndarray:
    """(row, width)."""
    return target.embed_images([row.image for row in rows if row.image is not None]).double().numpy()


def tried(target: DualTarget, rows: Sequence[Example], held: Mapping[str, list[Example]]) -> dict[str, list[float]]:
    """Whether a probe that was fitted on these rows is right, on each test row."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(embedded(target, rows), [row.answers[0] for row in rows])
    return {
        name: [
            float(said == row.answers[0]) for said, row in zip(probe.predict(embedded(target, own)), own, strict=True)
        ]
        for name, own in held.items()
    }


def arms(world: str, seed: int) -> dict[str, Dataset]:
    """The rows as they are, with copies by the step, with as many copies of any rows, and with the style known."""
    data = pool(world, seed)
    by_texts = ResampleClusters("phantom-clip", "phantom-clip", PROMPTS[world]).apply(data, seed=seed)
    by_colours = ResampleClusters("phantom-clip").apply(data, seed=seed)
    rng = np.random.default_rng(seed)
    random = [data.examples[k] for k in rng.choice(len(data.examples), len(by_colours.added)).tolist()]
    rare = [row for row in data.examples if row.attributes["style"] == "rare"]
    known = [rare[k % len(rare)] for k in range(len(data.examples) - 2 * len(rare))]
    return {
        "as they are": data,
        "resample_clusters, by texts": by_texts.data,
        "resample_clusters, by colours": by_colours.data,
        "as many copies of any rows": _more(data, random),
        "the style known, half rare": _more(data, known),
    }


def _more(data: Dataset, rows: Sequence[Example]) -> Dataset:
    copies = (replace(row, id=f"{row.id}+{k}") for k, row in enumerate(rows))
    return replace(data, examples=(*data.examples, *copies))


def main() -> None:
    """Print a line an arm and seed."""
    target = opened("phantom-clip", "dual", "tools.resampling")
    assert isinstance(target, DualTarget)
    print(f"classes {', '.join(classes())}")
    for world in WORLDS:
        held = tests(world)
        for seed in SEEDS:
            for name, data in arms(world, seed).items():
                said: list[str] = []
                for test, hits in tried(target, data.examples, held).items():
                    told = mean_interval(hits, list(range(len(hits))), seed=0)
                    said.append(f"{test} {told.value:.3f} [{told.low:.3f}, {told.high:.3f}] (n = {len(hits)})")
                rare = sum(row.attributes["style"] == "rare" for row in data.examples)
                counts = f"{len(data.examples)} rows, {rare} rare"
                print(f"{world} | seed {seed} | {name} | {counts} | {' | '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
