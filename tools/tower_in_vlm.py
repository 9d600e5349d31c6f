"""What a mend of phantom-clip's vision tower does in a model that answers and looks through it, as a table in Markdown.

    python -m tools.tower_in_vlm MEND_FOLDER ... [--epsilons 2,4]

The model is the mini of `MiniRecipe(clip_tower=True)`, trained on first use, whose tower is phantom-clip's and whose
projector and language model learnt behind it as it was. A mend folder is what `vlmend mend fare phantom-clip --out
FOLDER` wrote. Questions are about held-out scenes; PGD goes through the mended view.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.conversation import Sampling
from vlmend.core.images import Image, blank_image
from vlmend.core.mend import Mend
from vlmend.core.metrics.stats import wilson
from vlmend.models.loading.dual import load_dual
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.clip.load import phantom_clip
from vlmend.phantom.mini.build import mini_folder
from vlmend.phantom.mini.questions import questions
from vlmend.phantom.mini.recipe import MiniRecipe
from vlmend.registry import make_attack
from vlmend.training.towers import for_vlm

__all__ = ["attacked", "right"]

ASKED, ATTACKED = 300, 100
"""Questions, and how many of them are attacked."""
STEPS = 10
BATCH, LONGEST = 100, 14


def right(view: VLM, image: Image | None = None) -> int:
    """Held-out questions that are answered word for word, of their own pictures or all of one that says nothing."""
    rows = [row if image is None else replace(row, image=image) for row in questions(ASKED).examples]
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    said = [one for part in parts for one in view.generate([row.conversation for row in part], Sampling(LONGEST))]
    return sum(one.text.strip() == row.answers[0] for one, row in zip(said, rows, strict=True))


def attacked(view: VLM, epsilon: int) -> dict[str, int]:
    """Questions that are answered right under random signs and under PGD."""
    run = make_attack("pgd", {}).run(view, questions(ATTACKED), Budget(epsilon / 255, STEPS), seed=0, limit=None)
    told = [attributes_of_attack(row) for row in run.examples]
    return {name: sum(one[name] == "right" for one in told) for name in ("noise", "attacked")}


def _table(folders: Sequence[str], epsilons: Sequence[int]) -> Iterator[str]:
    clip = load_dual(phantom_clip(), name="phantom-clip")
    folder = mini_folder(MiniRecipe(clip_tower=True), lambda line: print(line, file=sys.stderr))
    base = load(folder, name="mini behind phantom-clip", options=LoadOptions("cpu"))
    heads = ["", "clean", *(f"{what} {epsilon}/255" for epsilon in epsilons for what in ("random signs", "attacked"))]
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    blank = _share(right(base, blank_image(base.image_side)), ASKED)
    yield f"| {' | '.join(['base, blank pictures', blank, *[''] * (len(heads) - 2)])} |"
    for name in ("none", *folders):
        mend = None if name == "none" else Mend.load(Path(name))
        view = base if mend is None else base.with_mend(for_vlm(mend, clip, base))
        told = "base" if mend is None else f"{mend.card.method}, seed {mend.card.seed}"
        found = [_share(right(view), ASKED)]
        for epsilon in epsilons:
            counts = attacked(view, epsilon)
            found += [_share(counts[what], ATTACKED) for what in ("noise", "attacked")]
        yield f"| {' | '.join([told, *found])} |"


def _share(hits: int, count: int) -> str:
    share = wilson(hits, count)
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--epsilons", default="2,4")
    given = parser.parse_args()
    for line in _table(given.folders, [int(one) for one in given.epsilons.split(",")]):
        print(line, flush=True)
