"""What every part of a study works with: the model, the questions, the mends, the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset, Label, spread
from vlmend.core.files import read_json
from vlmend.core.mend import Mend
from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.cmrm_sample import CMRMSample
from vlmend.models.vlm import VLM
from vlmend.studies.asking import Asker
from vlmend.studies.fitting import fitted
from vlmend.studies.measuring import Panels, Sizes, panels

__all__ = ["Lab", "Level", "StudyPlan", "full_plan", "quick_plan", "thinned"]

Level = Literal["dataset", "sample"]


@dataclass(frozen=True)
class StudyPlan:
    """How much of everything.

    Attributes:
        sizes: Questions of the held-out tables.
        sweep: Questions of each setting of a sweep (alpha, layers, transfer, controls).
        alphas: Strengths of the sweep, besides 0.
        layer_step: Every how many layers one is tried alone, as a prefix and as a suffix.
        anchor_sizes: Anchor-set sizes, besides all.
        anchors: Anchors that mends are fitted on, evenly spread over the data; None is all.
        states: Requests whose states are read.
        timed: Requests a timing batch; `rounds` medians.
        defences: Names of the defences compared; empty is all.
    """

    sizes: Sizes
    sweep: Sizes
    alphas: tuple[float, ...]
    layer_step: int
    anchor_sizes: tuple[int, ...]
    anchors: int | None
    states: int
    timed: int
    rounds: int
    defences: tuple[str, ...] = field(default=())


def quick_plan() -> StudyPlan:
    """For a laptop: about 25 minutes on two cores for the phantom; the four slowest rivals are left to `compare`."""
    return StudyPlan(
        sizes=Sizes(40, 30, 12, 24, 16), sweep=Sizes(20, 16, 8, 8, 16),
        alphas=tuple(round(0.25 * k, 2) for k in range(1, 9)), layer_step=6, anchor_sizes=(1, 4, 16),
        anchors=96, states=40, timed=16, rounds=3,
        defences=("random_vector", "cmrm", "cmrm_sample", "cmrm_gated", "safety_prompt", "tbop", "vlm_guard", "shiftdc",
                  "astra", "infer_aligner", "hidden_detect"),
    )  # fmt: skip


def full_plan() -> StudyPlan:
    """Every held-out request, alpha in steps of 0.1, every layer."""
    return StudyPlan(
        sizes=Sizes(None, None, None, 150, 24), sweep=Sizes(None, None, None, 80, 24),
        alphas=tuple(round(0.1 * k, 1) for k in range(1, 21)), layer_step=1,
        anchor_sizes=(1, 2, 4, 8, 16, 32, 64, 128), anchors=None, states=200, timed=16, rounds=7,
    )  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """One study under way.

    Attributes:
        target: The model without mends.
        anchors: What mends are fitted on.
        data: Further harmful sets.
        asker: Asks and remembers.
        plan: How much.
        out: Folder of the study.
        seed: Of fits and resampling.
    """

    target: VLM
    anchors: Dataset
    data: tuple[Dataset, ...]
    asker: Asker
    plan: StudyPlan
    out: Path
    seed: int

    @cached_property
    def held_out(self) -> Panels:
        return panels(self.plan.sizes, "held_out")

    @cached_property
    def validation(self) -> Panels:
        return panels(self.plan.sweep, "validation")

    @cached_property
    def best(self) -> dict[Level, float]:
        """The strengths that the sweep chose on the validation split."""
        return read_json(self.out / "parts" / "sweep.json")["best"]

    def method(self, level: Level, alpha: float) -> AbstractMethod:
        """CMRM at a level, everything else at its default."""
        return CMRM(alpha=alpha) if level == "dataset" else CMRMSample(alpha=alpha)

    def mend(self, level: Level, alpha: float | None = None) -> Mend:
        """CMRM's mend at a level; the strength that the sweep chose unless given."""
        strength = self.best[level] if alpha is None else alpha
        return self.fit(f"cmrm-{level}-{strength:g}", self.method(level, strength))

    def fit(self, name: str, method: AbstractMethod[Any], data: Dataset | None = None) -> Mend:
        """A mend kept under `mends/` in the study's folder."""
        mend, _ = fitted(self.target, method, data or self.anchors, self.out / "mends" / name, self.seed)
        return mend

    def labelled(self, label: Label) -> Dataset:
        """The anchors of one label."""
        return replace(self.anchors, name=label, examples=self.anchors.labelled(label))


def thinned(data: Dataset, keep: int | None, name: str | None = None) -> Dataset:
    """That many examples, evenly spread over the data; all of them for None."""
    return replace(data, name=name or data.name, examples=spread(data.examples, keep))
