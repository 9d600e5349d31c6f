"""What a step does to what is learnt: small dual encoders trained with it and without, and the tables of its page.

    python -m tools.steps measure mixgen     # trains every arm with seeds 0, 1, 2; adds runs to docs/steps/runs.json
    python -m tools.steps pages              # writes the tables anew

Arms of a study start from the same rows and weights and train as many steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

from vlmend.core.contracts import AbstractStep
from vlmend.core.examples import Dataset, Example
from vlmend.core.metrics.stats import wilson
from vlmend.phantom.clip.tokens import END, LONGEST, tokenizer, vocabulary
from vlmend.phantom.mini.language import COLOURS
from vlmend.phantom.mini.pairs import scene_pairs
from vlmend.phantom.mini.scenes import SHAPES, Scene, scene
from vlmend.phantom.pixels import to_pixels
from vlmend.pictures.galleries import PHOTO, shifted_objects, training_objects
from vlmend.registry import make_step
from vlmend.steps.robustness.biaug import NEGATIVE
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import contrastive_loss, counterpart_loss

__all__ = ["RUNS", "STUDIES", "Encoder", "Study", "page_of", "table", "trained"]

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "steps" / "runs.json"

SEEDS = (0, 1, 2)
SIDE = 32
BATCH = 64
RATE = 1e-3
HOTTEST = 100.0
PLACES = 15
"""Scale of the places of patches at the start; at that of transformers the patches drown them."""

Counts = Mapping[str, tuple[int, int]]
"""Name of a measure to (hits, n)."""


class Encoder:
    """A CLIP of 0.7 million weights for pictures of 32 pixels."""

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        words = vocabulary(texts)
        width = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 3, "projection_dim": 64}
        torch.manual_seed(seed)
        self.tokenizer = tokenizer(words)
        self.model: Any = CLIPModel(
            CLIPConfig(
                vision_config=width | {"num_hidden_layers": 3, "image_size": SIDE, "patch_size": 8},
                text_config=width
                | {"num_hidden_layers": 2, "vocab_size": len(words), "max_position_embeddings": LONGEST,
                   "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END},
                projection_dim=64,
            )
        )  # fmt: skip
        with torch.no_grad():
            self.model.vision_model.embeddings.position_embedding.weight.mul_(PLACES)

    @property
    def scale(self) -> Tensor:
        return self.model.logit_scale.exp().clamp(max=HOTTEST)

    def images(self, pixels: Tensor) -> Float[Tensor, "image width"]:
        return normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return normalize(self.model.get_text_features(**tokens).pooler_output, dim=-1)

    @torch.no_grad()
    def logits(self, rows: Sequence[Example], texts: Sequence[str]) -> Float[Tensor, "image text"]:
        return self.images(_pixels(rows)) @ self.texts(texts).T


@dataclass(frozen=True)
class Study:
    """What is trained with and without a step, and what is asked afterwards.

    Attributes:
        step: Name of the step.
        rows: The training rows of a seed.
        arms: Parameters of the step by the name of the arm; None: the rows as they are.
        anew: Whether the step is applied anew each epoch, which is its seed; else it is once, with the study's.
        exam: Hits and n of each measure.
        floors: What chance gives, by measure.
        steps: Of training.
    """

    step: str
    rows: Callable[[int], Dataset]
    arms: Mapping[str, Mapping[str, Any] | None]
    exam: Callable[[Encoder], Counts]
    floors: Mapping[str, float]
    steps: int = 150
    anew: bool = False


def trained(study: Study, parameters: Mapping[str, Any] | None, seed: int) -> Encoder:
    """A new encoder, trained on what the step makes of the rows."""
    rows = study.rows(seed)
    step = None if parameters is None else make_step(study.step, parameters)
    said = [text for row in rows.examples for text in (str(row.caption), *row.answers)]
    encoder = Encoder([*said, *COLOURS, *SHAPES], seed)
    batches = _batches(rows, step, seed, anew=study.anew)

    def loss_of_step(step: int) -> Tensor:
        pixels, batch = next(batches)
        captions = [str(row.caption) for row in batch]
        images, texts = encoder.images(pixels), encoder.texts(captions)
        same = torch.tensor([[one == other for one in captions] for other in captions])
        loss = contrastive_loss(images, texts, encoder.scale, same)
        told = [k for k, row in enumerate(batch) if NEGATIVE in row.attributes]
        if not told:
            return loss
        negatives = encoder.texts([batch[k].attributes[NEGATIVE] for k in told])
        return loss + counterpart_loss(images[told], texts[told], negatives, encoder.scale)

    encoder.model.train()
    train_at_once(list(encoder.model.parameters()), loss_of_step, LoopSettings(study.steps, RATE))
    encoder.model.eval()
    return encoder


def _batches(
    rows: Dataset, step: AbstractStep | None, seed: int, *, anew: bool
) -> Iterator[tuple[Tensor, list[Example]]]:
    """Pixels and rows of each step, without end; every epoch is shuffled."""
    made, pixels = rows.examples, None
    for epoch in itertools.count():
        if pixels is None or anew:
            made = rows.examples if step is None else step.apply(rows, seed=epoch if anew else seed).data.examples
            pixels = _pixels(made)
        order = random.Random(f"{seed}:{epoch}").sample(range(len(made)), len(made))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            some = order[start : start + BATCH]
            yield pixels[some], [made[k] for k in some]


def _pixels(rows: Sequence[Example]) -> Tensor:
    pictures = [row.image.decode() for row in rows if row.image is not None]
    return to_pixels([picture.resize((SIDE, SIDE), PIL.Image.Resampling.BOX) for picture in pictures])


# --- studies


def _scenes(split: Any, count: int, seed: int, *, distinct: bool = False) -> list[Scene]:
    """Random scenes with things in them; distinct: no two with one caption."""
    rng = random.Random(f"steps:{split}:{seed}")
    found: list[Scene] = []
    said: set[str] = set()
    while len(found) < count:
        one = scene(split, rng)
        if one.things and not (distinct and one.caption in said):
            found.append(one)
            said.add(one.caption)
    return found


def _pairs(seed: int) -> Dataset:
    """500 captioned training scenes."""
    return scene_pairs("pairs", _scenes("train", 500, seed), seed)


def _retrieval(encoder: Encoder) -> Counts:
    """Whether a held-out picture finds its caption first among 500, and a caption its picture."""
    rows = scene_pairs("held out", _scenes("held_out", 500, 0, distinct=True), 0).examples
    logits = encoder.logits(rows, [str(row.caption) for row in rows])
    own = torch.arange(len(rows))
    hits = {"caption found": logits.argmax(1) == own, "picture found": logits.argmax(0) == own}
    return {name: (int(right.sum()), len(rows)) for name, right in hits.items()}


USUAL: Mapping[str, str] = dict(zip(SHAPES, COLOURS, strict=True))
"""The one colour that each shape has in biased scenes."""


def _biased(count: int, seed: int) -> Dataset:
    """Training scenes in which every shape has its usual colour, as bananas are yellow."""
    scenes = [
        replace(one, things=tuple(replace(thing, colour=USUAL[thing.shape]) for thing in one.things))
        for one in _scenes("train", count, seed)
    ]
    return scene_pairs("usual colours", scenes, seed)


@torch.no_grad()
def _colour_named(encoder: Encoder) -> Counts:
    """Whether the right colour of a thing is chosen among six, the rest of the caption staying as it is."""
    scenes = [one for one in _scenes("held_out", 1500, 0) if len({t.shape for t in one.things}) == len(one.things)]
    rows = scene_pairs("held out", scenes, 0).examples
    asked = [one.things[0] for one in scenes]
    texts = [
        str(row.caption).replace(thing.name, f"{colour} {thing.shape}")
        for row, thing in zip(rows, asked, strict=True)
        for colour in COLOURS
    ]
    images, named = encoder.images(_pixels(rows)), encoder.texts(texts).unflatten(0, (len(rows), len(COLOURS)))
    chosen = (images[:, None] * named).sum(-1).argmax(1).tolist()
    marks: dict[str, list[bool]] = {"unusual colour": [], "usual colour": []}
    for thing, place in zip(asked, chosen, strict=True):
        kind = "usual colour" if thing.colour == USUAL[thing.shape] else "unusual colour"
        marks[kind].append(COLOURS[place] == thing.colour)
    return {name: (sum(right), len(right)) for name, right in marks.items()}


THINGS = 120


def _things(rows: Iterable[Example]) -> tuple[Example, ...]:
    """The rows of so many things, captioned with their names; which things is drawn once."""
    known = sorted({row.answers[0] for row in training_objects(4).examples})
    names = set(random.Random("steps:things").sample(known, THINGS))
    kept = (row for row in rows if row.answers and row.answers[0] in names)
    return tuple(replace(row, caption=PHOTO.format(row.answers[0])) for row in kept)


def _named(encoder: Encoder) -> Counts:
    """Whether a held-out view is named right among all things, plain and under each shift."""
    rows = _things(shifted_objects("held_out").examples)
    captions = sorted({str(row.caption) for row in rows})
    chosen = encoder.logits(rows, captions).argmax(1).tolist()
    marks: dict[str, list[bool]] = {"clean": [], "style": [], "ground": [], "rotation": [], "blur": []}
    for row, place in zip(rows, chosen, strict=True):
        marks[row.attributes.get("shift", "clean")].append(captions[place] == row.caption)
    return {name: (sum(right), len(right)) for name, right in marks.items()}


MIXGEN_ARMS: Mapping[str, Mapping[str, Any] | None] = {
    "pairs as they are": None,
    "mixgen": {},
    "captions joined, pictures not mixed": {"weight": 1.0},
}

STUDIES: dict[str, Study] = {
    "mixgen": Study(
        step="mixgen",
        rows=_pairs,
        arms=MIXGEN_ARMS,
        exam=_retrieval,
        floors={"caption found": 1 / 500, "picture found": 1 / 500},
        anew=True,
    ),
    "mixgen_long": Study(
        step="mixgen",
        rows=_pairs,
        arms=MIXGEN_ARMS,
        exam=_retrieval,
        floors={"caption found": 1 / 500, "picture found": 1 / 500},
        steps=600,
        anew=True,
    ),
    "biaug": Study(
        step="biaug",
        rows=lambda seed: _biased(500, seed),
        arms={
            "pairs as they are": None,
            "biaug": {},
            "counterparts as rows alone": {"emit": "pictures"},
            "hard negatives alone": {"emit": "captions"},
        },
        exam=_colour_named,
        floors=dict.fromkeys(("unusual colour", "usual colour"), 1 / 6),
    ),
    "caption_draw_mix": Study(
        step="caption_draw_mix",
        rows=lambda seed: replace(training_objects(4), examples=_things(training_objects(4).examples)),
        arms={
            "real pictures": None,
            "drawn in the style of the shift": {"shift": "style"},
            "drawn in ordinary views": {},
        },
        exam=_named,
        steps=300,
        floors=dict.fromkeys(("clean", "style", "ground", "rotation", "blur"), 1 / THINGS),
    ),
}


# --- runs and pages


def _measure(name: str, seeds: Sequence[int]) -> None:
    study = STUDIES[name]
    for seed in seeds:
        for arm, parameters in study.arms.items():
            began = time.process_time()
            counts = study.exam(trained(study, parameters, seed))
            values = {measure: [*wilson(hits, n), n] for measure, (hits, n) in counts.items()}
            run = {"study": name, "arm": arm, "set": parameters, "seed": seed, "values": values,
                   "cpu_seconds": round(time.process_time() - began)}  # fmt: skip
            runs = json.loads(RUNS.read_text()) if RUNS.exists() else []
            RUNS.write_text(json.dumps([*runs, run], indent=1) + "\n")
            print(json.dumps(run), flush=True)


def table(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    """Every run of a study, arm by arm, then what each arm gains on the first, seed by seed, as Markdown."""
    study = STUDIES[name]
    measures = list(study.floors)
    own = sorted((run for run in runs if run["study"] == name), key=lambda run: list(study.arms).index(run["arm"]))
    lines = [["", "seed", *measures], ["---"] * (2 + len(measures))]
    lines += [[run["arm"], str(run["seed"]), *(_told(run["values"][one]) for one in measures)] for run in own]
    lines.append(["chance", "", *(f"{study.floors[one]:.3f}" for one in measures)])
    plain, *others = study.arms
    for arm in (one for one in others if any(run["arm"] == one for run in own)):
        gains = [[f"{gain:+.2f}" for gain in _gains(own, arm, plain, one)] for one in measures]
        lines.append([f"**{arm}** less {plain}", "each", *(", ".join(each) for each in gains)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gains(runs: Sequence[Mapping[str, Any]], arm: str, plain: str, measure: str) -> list[float]:
    """What an arm has more than the plain one, for each seed that both have."""
    found = {(run["arm"], run["seed"]): run["values"][measure][0] for run in runs}
    return [value - found[plain, seed] for (one, seed), value in found.items() if one == arm and (plain, seed) in found]


def _told(value: Sequence[float]) -> str:
    return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def page_of(text: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """A page with its tables written anew, each between `<!-- runs: STUDY -->` and `<!-- end -->`."""
    return re.sub(
        r"(<!-- runs: (\w+) -->\n).*?(?=<!-- end -->)",
        lambda found: f"{found[1]}{table(runs, found[2])}\n",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "pages"))
    parser.add_argument("study", nargs="?", choices=tuple(STUDIES))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    asked = parser.parse_args()
    if asked.what == "measure":
        _measure(asked.study, [int(seed) for seed in asked.seeds.split(",")])
    else:
        for page in sorted((ROOT / "docs" / "steps").glob("*.md")):
            page.write_text(page_of(page.read_text(), json.loads(RUNS.read_text())))
