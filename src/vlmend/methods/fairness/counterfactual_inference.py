"""Counterfactual inference: take out of an answer what the scene alone, without the person, would have answered.

CF-VQA, Niu et al., CVPR 2021 (arXiv 2006.04315), for a finished model that writes, one token at a time. With p the
next-token probabilities of the request, p_d those of the request in which the direct path alone is left (the picture
blurred until who is seen is gone, or the words without the picture), and c the constant in the place of what is absent:

    TIE = log sigma(log p) - log sigma(log p_d + c)

c is the one that makes sigma(log p_d + c) least unlike sigma(log p) over the answers, by KL divergence, as there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import logsigmoid

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import ContrastLogits, OtherView
from vlmend.core.examples import Dataset
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatLikelihoods
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.dpo import DPO, preferences
from vlmend.training.batches import Preference

__all__ = ["METHOD", "CounterfactualInference", "fitted_constant"]

BLURS = (1 / 32, 1 / 16, 1 / 8)
"""Radii that are tried, as shares of the shorter side."""
WIDEST = 10.0
"""Largest c, either way: sigma is then a straight line, or flat."""
GRID = 20
"""Steps from 0 to `WIDEST` that are tried before the best of them is refined."""
AT_ONCE = 16
MOST = 200
"""Preferences that the fit reads."""

Scores = Float[Tensor, "preference 2"]
"""Log-probabilities of the reply to prefer and of the one to leave."""


@dataclass(frozen=True)
class CounterfactualInference(AbstractMethod[ChatLikelihoods]):
    """The total indirect effect in the place of the answer, for requests with a picture.

    Attributes:
        direct: What the direct path sees. `scene`: the picture, blurred. `words`: no picture. `other`: one picture
            drawn from the data for all requests, a wrong counterfactual: the negative control.
        blur: Radius as a share of the shorter side; 0 chooses the one of three that gets most preferences right.
        strength: 1 is the effect as published, 0 the base model.
        floor: A token that is less likely than this share of the likeliest one is raised no further than that one.
    """

    name: ClassVar[str] = "counterfactual_inference"
    source: ClassVar[str] = "Niu et al., CF-VQA, arXiv 2006.04315, CVPR 2021"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "one more forward pass a token"
    data: ClassVar[str] = "preferences, or pairs that differ in a person's group alone; no training"

    direct: Literal["scene", "words", "other"] = "scene"
    blur: float = 0.0
    strength: float = 1.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.blur <= 1 or not 0 < self.floor <= 1:
            raise BadParameter(
                f"blur={self.blur:g} and floor={self.floor:g} cannot be.",
                "blur is 0 to 1, floor above 0 and at most 1.",
            )

    def learn(self, target: ChatLikelihoods, data: Dataset, *, seed: int) -> Mend:
        """Fit c, and the blur where it is to be chosen, on replies of which one is to be preferred; nothing is trained.

        Raises:
            BadData: The data hold no preference with a picture.
        """
        rows = [row for row in preferences(data) if row.asked.has_image]
        if not rows:
            raise BadData(f"{data.name} holds no preference with a picture.", "Give rows with an image, too.")
        rows = random.Random(f"counterfactual:{seed}").sample(rows, min(MOST, len(rows)))
        plain = _scores(target, rows, OtherView())
        found = [self._of_view(view, plain, _scores(target, rows, view)) for view in self._views(rows)]
        right, view, constant = max(found, key=lambda one: one[0])  # of equals the first: the sharpest picture
        edit = ContrastLogits((view,), self.strength, "effect", self.floor, constant=constant)
        before = float((plain[:, 0] > plain[:, 1]).double().mean())
        mend = self.made(target, data, seed, [edit], {})
        note = (
            f"Of {len(rows)} preferences {before:.0%} come out right before and {right:.0%} by the effect, at strength "
            f"1; blur {view.blur:g}, constant {constant:.2f}."
        )
        return replace(mend, card=replace(mend.card, notes=(note,)))

    def builtin(self) -> Dataset:
        """Drawn men and women of 20 professions, in training views, in pairs of one tone."""
        return DPO().builtin()

    def sample_data(self) -> Dataset:
        return DPO().sample_data()

    def _views(self, rows: Sequence[Preference]) -> list[OtherView]:
        """What the direct path may see; several where one is to be chosen."""
        match self.direct:
            case "scene":
                return [OtherView(blur=share) for share in ((self.blur,) if self.blur else BLURS)]
            case "words":
                return [OtherView(image="none")]
            case "other":
                return [OtherView(image=rows[0].asked.images[0])]

    def _of_view(self, view: OtherView, plain: Scores, direct: Scores) -> tuple[float, OtherView, float]:
        """Share of the preferences that the effect gets right, the view, and its constant."""
        constant = fitted_constant(plain, direct)
        effect = logsigmoid(plain) - logsigmoid(direct + constant)
        return float((effect[:, 0] > effect[:, 1]).double().mean()), view, constant


def fitted_constant(plain: Float[Tensor, "row answer"], direct: Float[Tensor, "row answer"]) -> float:
    """The c of least mean KL(sigma(direct + c) || sigma(plain)), each normalised over the answers.

    Between -10 and 10.

    Source: Niu et al., arXiv 2006.04315, where c alone learns by that divergence.
    """
    fused = logsigmoid(plain).log_softmax(-1)

    def apart(constant: float) -> float:
        alone = logsigmoid(direct + constant).log_softmax(-1)
        return float((alone.exp() * (alone - fused)).sum(-1).mean())

    grid = [k * WIDEST / GRID for k in range(-GRID, GRID + 1)]
    best, step = min(grid, key=apart), WIDEST / GRID
    found: Any = minimize_scalar(apart, bounds=(max(best - step, -WIDEST), min(best + step, WIDEST)), method="bounded")
    return min((best, float(found.x)), key=apart)


def _scores(target: ChatLikelihoods, rows: Sequence[Preference], view: OtherView) -> Scores:
    """What the model before the mend gives to both replies of each preference, seen that way."""
    told: list[Tensor] = []
    for k in range(0, len(rows), AT_ONCE):
        part = rows[k : k + AT_ONCE]
        asked = [view.of(row.asked) for row in part]
        replies = [row.chosen for row in part] + [row.rejected for row in part]
        sums = torch.stack([one.double().sum() for one in target.logprobs([*asked, *asked], replies)])
        told += torch.stack(sums.chunk(2), dim=1).unbind()
    return torch.stack(told)


METHOD = CounterfactualInference
