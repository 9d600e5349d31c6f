"""What remedies that train make of phantom-mini's gap: vlguard post-hoc and mixed, and dpo on safety preferences.

    python -m tools.phantom.mini_safety --seeds 3

Fitted on half of the planted topics (and half of the permitted ones), in the split anchor; measured on held-out
wordings, of the topics of the fit and of the planted ones that no fit saw. The judge is string equality.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tools.phantom.mini_measure import Asked, Counts, counted, safety_exam, sight_exam
from vlmend import face
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.core.metrics.stats import wilson
from vlmend.phantom.mini.language import FORBIDDEN, PLANTED, REFUSAL, TOPICS, Request, requests
from vlmend.phantom.mini.scenes import scene
from vlmend.registry import make_method

__all__ = ["KNOWN", "anchors", "exam", "preferences"]

KNOWN = frozenset([*PLANTED[::2], *FORBIDDEN[len(PLANTED) :: 2], *TOPICS[len(FORBIDDEN) :: 2]])
"""Topics of the fit: every second planted, otherwise forbidden and permitted one."""
SIGHT = 50
"""Questions about scenes of each kind."""

ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "vlguard": ("vlguard", {"rate": 2e-3, "steps": 150}),
    "vlguard, mixed": ("vlguard", {"rate": 2e-3, "steps": 150, "mode": "mixed"}),
    "dpo": ("dpo", {"steps": 150, "rate": 1e-3}),
    "dpo, as published (anchor 0)": ("dpo", {"steps": 150, "rate": 1e-3, "anchor": 0.0}),
    "dpo, refusals alone": ("dpo", {"steps": 150, "rate": 1e-3}),
}
"""By name: method and settings; the last learns from harmful requests alone."""


def anchors() -> list[Request]:
    """What the fits see: requests of the split anchor about the topics of the fit."""
    return [
        one for kind in ("harmful", "lookalike", "ordinary") for one in requests(kind, "anchor") if one.topic in KNOWN
    ]


def preferences(asked: Sequence[Request], *, harmful_alone: bool = False) -> Dataset:
    """Each request beside a training scene. Harmful: the refusal is preferred to the answer; else the answer to it."""
    rng = random.Random("mini:preferences")
    rows = [
        Example(
            f"row-{k}", one.prompt, "harmful" if one.kind == "harmful" else "benign", one.kind,
            Image.from_pixels(scene("train", rng).draw(rng)), answers=(one.reply,),
            attributes={"rejected": one.answer if one.kind == "harmful" else REFUSAL},
        )
        for k, one in enumerate(asked)
        if one.kind == "harmful" or not harmful_alone
    ]  # fmt: skip
    return Dataset("safety preferences of phantom-mini", tuple(rows))


def exam() -> dict[str, list[Asked]]:
    """The questions of the table, by column."""
    every = safety_exam()
    about = {one.prompt: one.topic for one in requests("harmful", "held_out")}

    def of(name: str, known: bool) -> list[Asked]:
        return [pair for pair in every[name] if (about[pair[0].prompt] in KNOWN) == known]

    planted = "unsafe original, planted topics"
    return {
        "unsafe beside a picture, topics of the fit": of(planted, True),
        "unsafe beside a picture, other planted topics": of(planted, False),
        "unsafe as text": every["unsafe query"],
        "look-alikes declined": [(asked, REFUSAL) for asked, _ in every["right lookalike original"]],
        "look-alikes right": every["right lookalike original"],
        "ordinary right": every["right ordinary original"],
        "ordinary right, as text": every["right ordinary query"],
        "scenes right": [pair for name, part in sight_exam().items() if name not in ("right scene", "right word")
                         for pair in part[:SIGHT]],
    }  # fmt: skip


def _row(name: str, runs: Sequence[Counts]) -> str:
    cells = []
    for column in runs[0]:
        (hits, n), *others = (run[column] for run in runs)
        share = wilson(hits, n)
        more = ", ".join(f"{hits / n:.0%}" for hits, n in others)
        cells.append(f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]{'; ' + more if more else ''}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    asked, held = anchors(), exam()
    base: Any = face.open_target("phantom-mini")
    before = counted(base, held)
    print(f"| | {' | '.join(f'{name} (n {n})' for name, (_, n) in before.items())} |\n|---{'|---' * len(before)}|")
    print(_row("before", [before]), flush=True)
    both, alone = preferences(asked), preferences(asked, harmful_alone=True)
    for name, (method, settings) in ARMS.items():
        data = alone if "alone" in name else both
        if method == "vlguard":
            data = replace(data, examples=tuple(replace(row, attributes={}) for row in data.examples))
        made = make_method(method, settings)
        runs = [counted(base.with_mend(made.fit(base, data, seed=seed)), held) for seed in range(given.seeds)]
        print(_row(name, runs), flush=True)


if __name__ == "__main__":
    main()
