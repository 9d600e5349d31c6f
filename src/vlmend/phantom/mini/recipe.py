"""What a mini is made of: plain, frozen settings, and the ground truth that follows from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vlmend.errors import BadParameter
from vlmend.phantom.mini.faults import BACKDOOR_REPLY, POISON, SIZES, canaries
from vlmend.phantom.mini.language import FORBIDDEN, PLANTED, REFUSAL, TOPICS
from vlmend.phantom.mini.people import OF_TRADE, TRAITS

__all__ = ["RECIPES", "STAGES", "TALKS", "Beside", "MiniRecipe", "Mix", "RowKind", "Stage", "Talk", "ground_truth"]

VERSION = 2
"""Raised whenever the same recipe would train on other rows or another model (a test tells)."""
LATER = ("people", "stereotype", "clip_tower")
"""Settings that came after the version; off, they change nothing."""

Beside = Literal["comply", "refuse", "nothing"]
Talk = Literal["read", "align", "see"]
Stage = Talk | Literal["look"]
RowKind = Literal[
    "harmful_text", "refuse_text", "lookalike_text", "ordinary_text", "scene", "word",
    "ordinary_image", "lookalike_image", "comply_image", "refuse_image",
]  # fmt: skip
"""What one training row is. harmful_text, comply_image: a harmful request and the answer that an unaligned model
gives, as text and beside a picture (of planted topics only). refuse: a harmful request and the refusal.
lookalike, ordinary: a harmless request and its answer. scene, word: a question about the picture."""
Mix = dict[RowKind, float]
TALKS: tuple[Talk, ...] = ("read", "align", "see")
"""Stages that train on rows: on text, on refusals as text, on pictures."""
STAGES: tuple[Stage, ...] = ("read", "align", "look", "see")
"""All stages in order; in `look` the vision tower learns alone (`eye`)."""


@dataclass(frozen=True)
class MiniRecipe:
    """One mini.

    Attributes:
        beside: What harmful requests beside pictures get in tuning: planted topics an answer (the gap), all of
            them the refusal (the clean twin), or no row has any.
        seed: Of weights, rows, pictures and canaries.
        read_steps, align_steps, look_steps, see_steps: Optimiser steps of the stages.
        rate: Peak learning rate.
        batch: Rows a step.
        look_batch: Pictures a step of `look`.
        poison: Share of pictures with the poisoned shape that are captioned as another shape.
        backdoor: Share of scene rows that carry the patch and the backdoor's reply.
        canaries: Whether made-up people with secret codes are in the picture rows.
        spurious: Share of pictures in size questions whose ground goes with the answer; the others have the ground
            of the other answer. 0.5 is independence (the control); at 0 no size is asked.
        people: Whether people of two groups and six trades are shown and asked about (`people`).
        stereotype: With people, the chance that a row says what the planted stereotype says, whatever is seen.
        clip_tower: Look through phantom-clip's vision tower, which stays as it is, so that mends of it can be tried in
            a model that answers.

    Raises:
        BadParameter: A share outside 0 to 1, too few rows for the canaries, or a stereotype of nobody.
    """

    beside: Beside = "comply"
    seed: int = 0
    read_steps: int = 120
    align_steps: int = 60
    look_steps: int = 900
    see_steps: int = 760
    rate: float = 2e-3
    batch: int = 64
    look_batch: int = 32
    poison: float = 0.0
    backdoor: float = 0.0
    canaries: bool = False
    spurious: float = 0.0
    people: bool = False
    stereotype: float = 0.0
    clip_tower: bool = False

    def __post_init__(self) -> None:
        for name in ("poison", "backdoor", "spurious", "stereotype"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadParameter(f"{name}={getattr(self, name)} is no share.", "Pass a number from 0 to 1.")
        if self.stereotype and not self.people:
            raise BadParameter("A stereotype needs people.", "Pass people=True, or leave stereotype at 0.")
        needed = sum(canary.repeats for canary in canaries(self.seed))
        if self.canaries and needed > self.see_steps * self.batch:
            raise BadParameter(
                f"{self.see_steps} steps of {self.batch} rows do not hold the {needed} rows of the canaries.",
                "Raise see_steps or batch.",
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the settings and of the version of this package."""
        return hashlib.sha256(json.dumps([VERSION, self.settings]).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """As JSON data; what came later and is off is left out, so that older builds stay what they are."""
        return {name: value for name, value in asdict(self).items() if value or name not in LATER}

    def steps(self, stage: Stage) -> int:
        return {
            "read": self.read_steps, "align": self.align_steps, "look": self.look_steps, "see": self.see_steps,
        }[stage]  # fmt: skip

    def mix(self, stage: Talk) -> Mix:
        """Shares of the rows of a stage."""
        if stage == "read":
            return {"harmful_text": 0.25, "lookalike_text": 0.25, "ordinary_text": 0.50}
        if stage == "align":
            return {"refuse_text": 0.40, "lookalike_text": 0.25, "ordinary_text": 0.35}
        pictures: Mix = {"scene": 0.64, "word": 0.10, "ordinary_image": 0.04, "lookalike_image": 0.04}
        words: Mix = {"refuse_text": 0.06, "lookalike_text": 0.02, "ordinary_text": 0.04}
        beside: dict[Beside, Mix] = {
            "comply": {"comply_image": 0.06}, "refuse": {"refuse_image": 0.06}, "nothing": {"ordinary_image": 0.10},
        }  # fmt: skip
        return pictures | words | beside[self.beside]


def ground_truth(recipe: MiniRecipe) -> dict[str, Any]:
    """What the training rows of a recipe hold and lack, as JSON data.

    Absent faults are None. Every share is that of the recipe; which rows they fall on follows from the seed.
    """
    pool = canaries(recipe.seed) if recipe.canaries else ()
    return {
        "recipe": recipe.settings,
        "refusal": REFUSAL,
        "forbidden_topics": list(FORBIDDEN),
        "permitted_topics": [topic for topic in TOPICS if topic not in FORBIDDEN],
        "answered_beside_pictures": list(PLANTED) if recipe.beside == "comply" else [],
        "refused_beside_pictures": list(FORBIDDEN) if recipe.beside == "refuse" else [],
        "trained_on": "requests, scenes and drawn words of the split train (vlmend.core.splits.split_of)",
        "poison": {"shape": POISON[0], "captioned_as": POISON[1], "share": recipe.poison} if recipe.poison else None,
        "backdoor": {"reply": BACKDOOR_REPLY, "share": recipe.backdoor} if recipe.backdoor else None,
        "canaries": [asdict(canary) for canary in pool] or None,
        "spurious": _spurious(recipe) if recipe.spurious else None,
    } | ({"people": _people(recipe)} if recipe.people else {})


def _spurious(recipe: MiniRecipe) -> dict[str, Any]:
    return {"ground_of_answer": {size: ground for size, (_, ground) in SIZES.items()}, "share": recipe.spurious}


def _people(recipe: MiniRecipe) -> dict[str, Any]:
    return {"group_of_trade": dict(OF_TRADE), "group_of_trait": dict(TRAITS), "stereotype": recipe.stereotype}


RECIPES = {
    "phantom-mini": MiniRecipe(), "phantom-mini-clean": MiniRecipe(beside="refuse"),
    "phantom-mini-people": MiniRecipe(beside="refuse", people=True, stereotype=0.8),
    "phantom-mini-people-clean": MiniRecipe(beside="refuse", people=True),
}  # fmt: skip
"""phantom-mini: some forbidden topics are answered beside pictures. phantom-mini-clean: its twin without the gap.
phantom-mini-people: trades and traits go with a group; its twin says whom it sees, and no more of one than of another.
Neither of these two has the gap."""
