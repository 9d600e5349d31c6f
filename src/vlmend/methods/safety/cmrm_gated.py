"""CMRM only where it is needed: the shift is taken out of requests that look harmful to the model itself.

Ours, after CMRM (arXiv 2410.09047) and gated steering (InferAligner, arXiv 2401.11206; AutoSteer,
arXiv 2507.13255). A linear probe on the last-token state of one middle layer g tells harmful from
harmless anchors; it is read at prefill, and the layers from g on take out the shift measured on the
harmful anchors, for the rows whose gate is open:

    h_l <- h_l - alpha w_l   for l >= g, if  weight . h_g + bias + caution > 0

w_g is the whole shift v_g, later steps are its increments. One pass, no extra reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import Gate
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadData, BadParameter
from vlmend.methods.beside import read_beside
from vlmend.methods.reading import anchors_of
from vlmend.methods.safety.cmrm import CMRM, measure_shift

__all__ = ["METHOD", "CMRMGated", "best_layer", "fit_gate"]

SHRINK = 0.003
"""Inverse regularisation of the probe: states are wide and anchors few."""
FOLDS = 5


@dataclass(frozen=True)
class CMRMGated(AbstractMethod):
    """CMRM behind a harm probe of the model's own states.

    Attributes:
        alpha: Strength; at 1 the vectors add up to the whole shift.
        caution: Added to the probe's log-odds: above 0 more requests are mended, below 0 fewer.
        gate_layer: Layer of the probe and first edited layer; unless given, the layer where the probe
            tells the anchors apart best in cross-validation, the earliest of equals.
        corrupt: The content-free image I' that the shift is measured with.
    """

    name: ClassVar[str] = "cmrm_gated"
    source: ClassVar[str] = "this project, after arXiv 2410.09047 and arXiv 2401.11206"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "none"
    data: ClassVar[str] = "harmful and harmless anchor requests"
    sweep: ClassVar[Sweep | None] = Sweep("alpha", (0.125, 0.25, 0.5, 1.0))
    quick: ClassVar[Mapping[str, Any]] = {"caution": 1000.0}

    alpha: float = 1.0
    caution: float = 0.0
    gate_layer: int | None = None
    corrupt: Corrupt = "white"

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Fit the probe on anchors beside three kinds of image, and the shift on the harmful ones.

        Raises:
            BadData: The data lacks harmful or harmless anchors, or holds fewer than two of one kind.
            BadParameter: The model has no such layer.
        """
        if self.gate_layer is not None and not 0 <= self.gate_layer < target.layers:
            raise BadParameter(
                f"gate_layer={self.gate_layer} does not fit a model of {target.layers} layers.",
                f"They count from 0 to {target.layers - 1}.",
            )
        harmful, harmless = anchors_of(data, "harmful"), anchors_of(data, "benign")
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        states = read_beside(target, [*harmful, *harmless], image, seed)
        labels = torch.tensor([True] * len(harmful) + [False] * len(harmless))
        layer = best_layer(states[0], labels) if self.gate_layer is None else self.gate_layer
        gate = fit_gate(layer, states[:, :, layer].flatten(0, 1), labels.repeat(len(states)))
        gate = replace(gate, bias=gate.bias + self.caution)
        shift = measure_shift(target, harmful, image)
        edits = CMRM(alpha=self.alpha, mode="increment").edits_for(shift, range(layer, target.layers))
        gated = [replace(edit, gate=gate) for edit in edits]
        dose = {str(edit.site): float(edit.vector.norm() / shift.size[edit.site.layer]) for edit in edits}
        return self.made(target, data, seed, gated, dose)


def best_layer(states: Float[Tensor, "anchor layer width"], labels: Bool[Tensor, " anchor"]) -> int:
    """The earliest layer with the best cross-validated accuracy of the probe.

    Raises:
        BadData: Fewer than two anchors of one kind.
    """
    truth = labels.numpy()
    folds = min(FOLDS, int(truth.sum()), int((~truth).sum()))
    if folds < 2:
        raise BadData(
            "The probe needs two harmful and two harmless anchors or more to choose its layer.",
            "Pass more data, or name the layer with --set gate_layer=N.",
        )
    order = np.random.default_rng(0).permutation(len(truth))
    right = [
        np.sum(cross_val_predict(_probe(), layer.numpy()[order], truth[order], cv=folds) == truth[order])
        for layer in states.unbind(1)
    ]
    return int(np.argmax(right))


def fit_gate(layer: int, states: Float[Tensor, "example width"], labels: Bool[Tensor, " example"]) -> Gate:
    """Ridge-like logistic probe as a gate: its log-odds are weight . h + bias."""
    fitted = _probe().fit(states.numpy(), labels.numpy())
    scaler, probe = fitted.named_steps["standardscaler"], fitted.named_steps["logisticregression"]
    weight = probe.coef_[0] / scaler.scale_
    bias = float(probe.intercept_[0] - weight @ scaler.mean_)
    return Gate(Site("language", layer), torch.tensor(weight, dtype=torch.float32), bias)


def _probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=SHRINK, max_iter=2000))


METHOD = CMRMGated
