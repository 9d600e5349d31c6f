"""Temperature and threshold of a dual encoder, fitted on pictures of known things."""

from __future__ import annotations

import math

import pytest
import torch
from tests.audit.scripted_dual import SCALE, ScriptedDual, named_world

from vlmend.core.dual_edits import AcceptAbove, ScaleLogits
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.metrics.detection import mcm
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.ood_calibration import OodCalibration


def fitted(target: ScriptedDual, data: Dataset, kept: float = 0.95) -> tuple[ScaleLogits, AcceptAbove]:
    scale, accept = OodCalibration(kept).fit(target, data, seed=0).edits
    assert isinstance(scale, ScaleLogits)
    assert isinstance(accept, AcceptAbove)
    return scale, accept


def test_a_temperature_by_hand() -> None:
    """Two names at right angles, three pictures on the right one's axis and one on the other's: the softmax of
    (20 / T, 0) must be 3/4, so T = 20 / ln 3."""
    pictures = [noise_image(4, k) for k in range(4)]
    axes = torch.eye(2)
    target = ScriptedDual(
        {image.digest: axes[0] for image in pictures}, {"a photo of a cat": axes[0], "a photo of a dog": axes[1]}
    )
    names = ("cat", "cat", "cat", "dog")
    rows = [Example(str(k), "", "benign", "", pictures[k], answers=(names[k],)) for k in range(4)]
    scale, accept = fitted(target, Dataset("d", tuple(rows)))
    assert scale.temperature == pytest.approx(SCALE / math.log(3), rel=1e-3)
    assert accept.texts == ("a photo of a cat", "a photo of a dog")
    assert accept.threshold == pytest.approx(math.e / (math.e + 1))


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.95])
def test_the_threshold_keeps_its_share_of_known_pictures_and_never_sees_others(kept: float) -> None:
    target, data = named_world(2.0, 0)
    known = Dataset("known", tuple(e for e in data.examples if e.answers))
    (_, accept), (_, alone) = fitted(target, data, kept), fitted(target, known, kept)
    assert accept == alone
    images = [e.image for e in known.examples if e.image is not None]
    scores = mcm(target.embed_images(images) @ target.embed_texts(accept.texts).T)
    assert int((scores >= accept.threshold).sum()) == kept * len(images)


def test_too_few_names_and_shares_that_are_none_are_refused() -> None:
    target, data = named_world(2.0, 0)
    with pytest.raises(BadData, match="pictures of 1 known things"):
        OodCalibration().fit(target, Dataset("one", data.examples[:1]), seed=0)
    with pytest.raises(BadParameter, match="no share"):
        OodCalibration(1.0)
