"""Disentanglement by an adversary: the group moves into its own vectors, and a fresh probe is not fooled by that."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.metrics.association import told_apart
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.gan_disentangle import GanDisentangle, taken_apart
from vlmend.testing import tiny_clip


def marked(mark: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of six directions with a mark of the group on the last."""
    noise, labels = torch.randn(240, 6, generator=torch.Generator().manual_seed(0)), torch.arange(240) % 2
    noise[:, -1] += mark * (2 * labels - 1)
    return noise, labels


def told(embedded: torch.Tensor, labels: torch.Tensor) -> float:
    """By a fresh linear probe on strata that it did not see."""
    groups, strata = [str(k) for k in labels.tolist()], [str(k // 24) for k in range(len(labels))]
    return float(told_apart(embedded.double().numpy(), groups, strata).mean())


def test_what_the_group_adds_moves_into_its_own_vectors() -> None:
    embedded, labels = marked(1.5)
    encode, own = taken_apart(GanDisentangle(steps=150), embedded, labels, seed=0)
    assert float(encode[5, 5]) < 0.6
    assert float((own[1] - own[0]).abs().argmax()) == 5
    assert float(own[1, 5] - own[0, 5]) > 0.5


def test_a_fresh_probe_reads_what_a_linear_encoder_only_hides() -> None:
    """An encoder that can be turned back loses nothing; this is what the page says of it."""
    embedded, labels = marked(1.5)
    encode, _ = taken_apart(GanDisentangle(steps=150), embedded, labels, seed=0)
    assert told(embedded, labels) > 0.85
    assert told(embedded @ encode.T, labels) > 0.8


def test_without_weight_all_stays_to_the_bit() -> None:
    embedded, labels = marked(1.5)
    still, own = taken_apart(GanDisentangle(hide=0.0, steps=5), embedded, labels, seed=0)
    assert torch.equal(still, torch.eye(6))
    assert torch.equal(own, torch.zeros(2, 6))


def test_it_maps_pictures_alone() -> None:
    rows = tuple(Example(str(k), group="ab"[k % 2], image=noise_image(16, k)) for k in range(6))
    target = tiny_clip()
    (edit,) = GanDisentangle(steps=3).fit(target, Dataset("six", rows), seed=0).edits
    assert isinstance(edit, MapImages)


def test_one_group_and_settings_that_cannot_be_are_refused() -> None:
    rows = tuple(Example(str(k), group="a" if k else "", image=noise_image(16, k)) for k in range(3))
    with pytest.raises(BadData, match=r"1 groups \(2 of a\)"):
        GanDisentangle().fit(tiny_clip(), Dataset("one", rows), seed=0)
    bad: list[dict[str, Any]] = [{"hide": -1.0}, {"inner": 0}, {"steps": 0}, {"rate": 0.0}]
    for wrong in bad:
        with pytest.raises(BadParameter, match="cannot be"):
            GanDisentangle(**wrong)
