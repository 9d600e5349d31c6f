"""What visual in-context learning makes of models whose classes are called otherwise than they learnt, and controls.

    python -m tools.visual_in_context teach FOLDER_OF_A_MINI OUT [STEPS]   # a mini that learns from examples in words
    python -m tools.visual_in_context measure FOLDER_OF_A_MINI             # the table of its page: shapes
    python -m tools.visual_in_context measure phantom                      # animals and foods

What is taught is the task, never the names: each training row draws six of the made-up words anew for the six shapes,
and tells one to four examples in words before its question. A quarter of the rows are plain questions about scenes.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tools.in_context import renamed_kinds, renamed_shapes
from vlmend import open_target
from vlmend.audit.matching import holds
from vlmend.core.conversation import Sampling
from vlmend.core.examples import Example
from vlmend.core.metrics.stats import wilson
from vlmend.methods.robustness.visual_in_context import VisualInContext
from vlmend.models.loading.vlm import LoadOptions, load
from vlmend.models.vlm import VLM
from vlmend.phantom.chat.assemble import Parts
from vlmend.phantom.chat.rows import Row, encode
from vlmend.phantom.mini.language import TOPICS
from vlmend.phantom.mini.recipe import MiniRecipe
from vlmend.phantom.mini.rows import draw_rows
from vlmend.phantom.mini.scenes import SHAPES, scene
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import reply_loss

__all__ = ["WORDS", "episode"]

WORDS: dict[str, Any] = {
    "caption": "describe the picture.", "summary": "", "form": "{summary}. {question} {answer}. ", "pool": 256,
}  # fmt: skip
"""What the mini is asked, in words that it knows."""
ARMS: dict[str, dict[str, Any]] = {
    "none": {"examples": 0}, "as published": {}, "examples drawn at random": {"choice": "random"},
    "answers drawn at random": {"labels": "random"},
}  # fmt: skip
BATCH = 32
QUESTION = "which shape is {}?"


def episode(rng: random.Random) -> Row:
    """One training row: examples in words under names of its own, and a picture of one thing to name."""
    names: dict[str, str] = dict(zip(SHAPES, rng.sample(TOPICS, len(SHAPES)), strict=True))
    seen = scene("train", rng, things=1)
    (asked,) = seen.things
    shown = [scene("train", rng, things=1).things[0] for _ in range(rng.randint(0, 3))]
    like = next(t for t in iter(lambda: scene("train", rng, things=1).things[0], None) if t.shape == asked.shape)
    shown.insert(rng.randint(0, len(shown)), like)
    told = [
        WORDS["form"].format(summary=f"a {t.name}", question=QUESTION.format(t.colour), answer=names[t.shape])
        for t in shown
    ]
    return Row("".join(told) + QUESTION.format(asked.colour), names[asked.shape], True, seen.draw(rng))


def teach(folder: Path, out: Path, steps: int) -> None:
    """Train a copy of a mini's language model on episodes; a stopped training goes on."""
    base = load(folder, name=str(folder), options=LoadOptions("cpu"))
    parts = Parts(base.model, base.processor)
    learning = [*base.model.model.language_model.layers.parameters(), *base.model.lm_head.parameters()]
    for parameter in learning:
        parameter.requires_grad_()

    def loss_of_step(step: int) -> Tensor:
        rng = random.Random(f"visual-in-context:{step}")
        plain = draw_rows(MiniRecipe(batch=BATCH // 4), "see", step)
        batch = encode(parts.processor, [*(episode(rng) for _ in range(BATCH - len(plain))), *plain])
        kept = batch.labels.shape[1]
        logits = parts.model(**batch.inputs, logits_to_keep=kept + 1, use_cache=False).logits
        return reply_loss(logits[:, :-1], batch.labels)

    def say(step: int, loss: float) -> None:
        if (step + 1) % 20 == 0:
            print(f"{step + 1}/{steps} loss {loss:.3f}", flush=True)

    train(learning, loss_of_step, LoopSettings(steps, 1e-3, 0.98, save_every=50), out.with_suffix(".state"), say)
    shutil.rmtree(out, ignore_errors=True)
    parts.model.eval().save_pretrained(out)
    parts.processor.save_pretrained(out)


def _right(view: VLM, rows: Sequence[Example]) -> int:
    replies = view.generate([row.conversation for row in rows], Sampling(8))
    return sum(holds(reply.text, row.answers) for reply, row in zip(replies, rows, strict=True))


def table(model: str) -> Iterator[str]:
    """The arms, line by line; a seed draws examples or answers, so arms without draws have one run."""
    words, base = (WORDS, None) if model != "phantom" else ({}, open_target(model))
    if base is None:
        base = load(Path(model), name=model, options=LoadOptions("cpu"))
        pool, asked, seeds = renamed_shapes("validation", 400), renamed_shapes("held_out", 200).examples, 3
    else:
        pool, asked, seeds = renamed_kinds("validation", 40), renamed_kinds("held_out", 40).examples, 1
    assert isinstance(base, VLM)
    yield f"| examples | right of {len(asked)} [95 %] |\n|---|---|"
    for name, settings in ARMS.items():
        method = VisualInContext(**words | settings)
        runs = seeds if "random" in settings.values() else 1
        hits = [_right(base.with_mend(method.fit(base, pool, seed=seed)), asked) for seed in range(runs)]
        told = ["{:.1%} [{:.1%}, {:.1%}]".format(*wilson(one, len(asked))) for one in hits]
        yield f"| {name} | {'; '.join(told)} |"


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    if what == "teach":
        teach(Path(where), Path(more[0]), int(more[1]) if len(more) > 1 else 1000)
    else:
        for line in table(where):
            print(line, flush=True)
