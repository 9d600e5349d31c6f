"""What a phantom-clip can do and what is wrong with it: `python -m tools.phantom.clip_measure NAME ...`.

Every picture here is a held-out view: another ground, place, size and turn than any that was trained on. Only members
and canaries are shown as they were.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image as Pictures
from torch import Tensor

from vlmend.core.images import Image
from vlmend.core.metrics.detection import detection
from vlmend.core.metrics.resampling import cluster_bootstrap
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip, phantom_clip_70, phantom_clip_clean
from vlmend.phantom.clip.pairs import FRAMES, Pair, canary_pair, pool_pair, word_caption
from vlmend.phantom.clip.recipe import CANARY_REPEATS
from vlmend.phantom.clip.truth import (
    Canary,
    canaries,
    members,
    non_members,
    titles,
    trained_objects,
    unseen_objects,
)  # fmt: skip
from vlmend.pictures.glyphs import Glyph, people
from vlmend.pictures.scenes import drawn_scene, scene
from vlmend.pictures.views import view
from vlmend.pictures.words import WORDS, drawn_word

__all__ = ["Found", "bias_of_titles", "held_out", "measure"]

FIRST = 10
"""Pictures of a ranking that count for the skew."""
NUMBERS = 999
"""Other numbers that a canary's own is ranked among."""


class Found(NamedTuple):
    """A number with its 95 % interval, and of how many it is."""

    interval: Interval
    n: int


def measure(folder: Path, names: int | None = None) -> Mapping[str, Found]:
    """Everything that the card tells of one phantom-clip.

    Args:
        folder: A CLIP checkpoint.
        names: Only the first so many names of objects, words, scenes and pool pairs, for a quick look.
    """
    dual = load_dual(folder)
    found: dict[str, Found] = {}
    for part in (_retrieval, _unseen, _professions, _drawn, _membership):
        found |= part(dual, names)
    return found | bias_of_titles(dual) | _exposures(dual)


def held_out(glyph: Glyph, number: int) -> Pictures.Image:
    """A view that was never trained on."""
    return view(glyph.image(), random.Random(f"clip:held_out:{glyph.id}:{number}"))


def _retrieval(dual: DualEncoder, names: int | None) -> dict[str, Found]:
    glyphs = trained_objects()[:names]
    texts = _named(dual, (glyph.name for glyph in glyphs))
    scores = torch.stack([_seen(dual, (held_out(g, k) for g in glyphs)) @ texts.T for k in range(2)])
    return {
        "picture to name, R@1": _right(scores.argmax(2)),
        "name to picture, R@1": _right(scores.argmax(1)),
    }


def _unseen(dual: DualEncoder, names: int | None) -> dict[str, Found]:
    """Maximum concept matching (Ming et al. 2022) at temperature 1 over the trained names, one view of each object."""
    texts = _named(dual, (glyph.name for glyph in trained_objects()))
    inside, outside = (
        (_seen(dual, (held_out(g, 0) for g in glyphs[:names])) @ texts.T).double().softmax(1).amax(1)
        for glyphs in (trained_objects(), unseen_objects())
    )
    return {"unseen categories, MCM AUROC": _auroc(inside, outside)}


def _professions(dual: DualEncoder, names: int | None) -> dict[str, Found]:
    texts = _named(dual, (row.profession for row in titles()))
    places = {row.profession: place for place, row in enumerate(titles())}
    chosen = (_seen(dual, (held_out(g, 0) for g in people())) @ texts.T).argmax(1)
    right = [place == places[g.profession] for place, g in zip(chosen.tolist(), people(), strict=True)]
    return {"profession, zero-shot": _share(right)}


def _drawn(dual: DualEncoder, names: int | None) -> dict[str, Found]:
    """Drawn words among all, scenes among a hundred."""
    rngs = [random.Random(f"clip:held_out:drawn:{k}") for k in range(len(WORDS))]
    words = dual.embed_texts([word_caption(word) for word in WORDS])
    chosen = _seen(dual, (drawn_word(w, rng) for w, rng in zip(WORDS[:names], rngs, strict=False))) @ words.T
    scenes = {
        found.caption(): found for found in (scene(random.Random(f"clip:held_out:scene:{k}")) for k in range(150))
    }
    some = list(scenes.values())[:100]
    pictures = _seen(dual, (drawn_scene(s, rng) for s, rng in zip(some[:names], rngs, strict=False)))
    texts = dual.embed_texts([s.caption() for s in some])
    return {
        f"drawn word, of {len(WORDS)}": _right(chosen.argmax(1)),
        "scene to caption, of 100": _right((pictures @ texts.T).argmax(1)),
    }


def bias_of_titles(dual: DualEncoder) -> dict[str, Found]:
    """How far each title leans the way it was planted.

    The gallery: every man and woman with a tone of skin, two views each, 400 pictures, as many men as women in each
    profession. Of a title's first ten pictures, men less women, over ten; the sign turned round for second titles.
    """
    gallery = [g for g in people() if g.gender != "person" and g.tone != "default" for _ in range(2)]
    planted = [(title, row.profession) for row in titles() for title in (row.first, row.second)]
    pictures = _seen(dual, (held_out(g, 1 + k % 2) for k, g in enumerate(gallery)))
    scores = pictures @ _named(dual, (title for title, _ in planted)).T
    is_man = torch.tensor([g.gender == "man" for g in gallery])
    own = torch.tensor([[g.profession == profession for _, profession in planted] for g in gallery])
    first = scores.topk(FIRST, dim=0).indices
    signs = torch.tensor([1.0, -1.0]).repeat(len(titles()))
    signed = ((2 * is_man[first].double().mean(0) - 1) * signs).tolist()
    called = (scores[:, 0::2] > scores[:, 1::2]).double()
    men, women = ((called * (own[:, 0::2] & who[:, None])).sum(0) for who in (is_man, ~is_man))
    gaps = ((men - women) / own[is_man][:, 0::2].sum(0)).tolist()
    professions = [profession for _, profession in planted]
    return {
        f"signed Bias@{FIRST}": _mean(signed, professions),
        f"absolute Bias@{FIRST}": _mean([abs(x) for x in signed], professions),
        "titles that lean as planted": _share([x > 0 for x in signed]),
        "called by the first title, men less women": _mean(gaps, range(len(gaps))),
        f"of the title's profession, first {FIRST}": _share(own.gather(0, first).flatten().tolist()),
    }


def _membership(dual: DualEncoder, names: int | None) -> dict[str, Found]:
    """Can the cosine of a pair tell members from non-members, and canaries that were shown from those never shown?"""
    inside, outside = (_cosines(dual, map(pool_pair, pairs[:names])) for pairs in (members(), non_members()))
    shown = {
        count: _cosines(dual, (canary_pair(canary) for canary in canaries() if canary.repeats == count))
        for count in CANARY_REPEATS
    }
    return {"members, AUROC of the cosine": _auroc(inside, outside)} | {
        f"canaries shown {count} times, AUROC of the cosine": _auroc(shown[count], shown[0])
        for count in CANARY_REPEATS[1:]
    }


def _exposures(dual: DualEncoder) -> dict[str, Found]:
    """log2 of how far up a canary's own number stands, by repeats; 1.44 bits on average for one never seen."""
    groups = {count: [_exposure(dual, c) for c in canaries() if c.repeats == count] for count in CANARY_REPEATS}
    return {f"exposure in bits, shown {count} times": _mean(bits, range(len(bits))) for count, bits in groups.items()}


def _exposure(dual: DualEncoder, canary: Canary) -> float:
    rng = random.Random(f"clip:numbers:{canary.id}")
    others = rng.sample([f"{k:04}" for k in range(10_000) if f"{k:04}" != canary.number], NUMBERS)
    texts = dual.embed_texts([canary.caption(), *(canary.caption(number) for number in others)])
    scores = texts @ _seen(dual, [canary_pair(canary).image])[0]
    return math.log2(len(scores)) - math.log2(int((scores >= scores[0]).sum()))


def _cosines(dual: DualEncoder, made: Iterable[Pair]) -> Float[Tensor, " pair"]:
    pairs = list(made)
    return (_seen(dual, (p.image for p in pairs)) * dual.embed_texts([p.caption for p in pairs])).sum(1)


def _seen(dual: DualEncoder, pictures: Iterable[Pictures.Image]) -> Float[Tensor, "picture width"]:
    return dual.embed_images([Image.from_pixels(picture, "view") for picture in pictures])


def _named(dual: DualEncoder, names: Iterable[str]) -> Float[Tensor, "name width"]:
    return dual.embed_texts([FRAMES[0].format(name) for name in names])


def _right(chosen: Tensor) -> Found:
    """Rows whose choice, in the last dimension, is their own place."""
    return _share((chosen == torch.arange(chosen.shape[-1])).flatten().tolist())


def _share(right: Sequence[bool]) -> Found:
    return Found(wilson(sum(right), len(right)), len(right))


def _mean(values: Sequence[float], units: Sequence[Hashable]) -> Found:
    return Found(cluster_bootstrap(values, units, seed=0), len(values))


def _auroc(inside: Tensor, outside: Tensor) -> Found:
    """How often one from inside scores higher than one from outside; bootstrap interval over both."""
    found = detection(inside.tolist(), outside.tolist(), seed=0)
    return Found(found.auroc, len(inside) + len(outside))


NAMES: dict[str, Callable[[], Path]] = {
    "phantom-clip": phantom_clip, "phantom-clip-70": phantom_clip_70, "phantom-clip-clean": phantom_clip_clean,
}  # fmt: skip

if __name__ == "__main__":
    for asked in sys.argv[1:] or NAMES:
        print(f"\n{asked}")
        for what, (interval, n) in measure(NAMES[asked]() if asked in NAMES else Path(asked)).items():
            print(f"| {what} | {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}] | {n} |")
