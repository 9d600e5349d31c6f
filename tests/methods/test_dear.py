"""DeAR: the residual begins at nothing, leaves the classifier unsure, and a fresh probe is what counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness.dear import Dear, residual
from vlmend.testing import tiny_clip


def marked(rows: int = 80, width: int = 8, mark: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a mark of the group on the last axis."""
    noise = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(rows) % 2
    noise[:, -1] += mark * (2 * labels - 1)
    return normalize(noise, dim=1), labels


def moved(method: Dear, embedded: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return normalize(embedded + embedded @ residual(method, embedded, labels).T, dim=1)


def gap(embedded: torch.Tensor, labels: torch.Tensor) -> float:
    """Distance of the means of the groups."""
    return float((embedded[labels == 0].mean(0) - embedded[labels == 1].mean(0)).norm())


def test_without_weight_the_residual_is_zero_and_the_mend_leaves_every_picture() -> None:
    target, images = tiny_clip(), [noise_image(16, k) for k in range(4)]
    data = Dataset("d", tuple(Example(str(k), group="ab"[k % 2], image=image) for k, image in enumerate(images)))
    (edit,) = Dear(hide=0.0).fit(target, data, seed=0).edits
    assert isinstance(edit, MapImages)
    assert torch.equal(edit.matrix, torch.eye(target.width))


def test_the_groups_come_together_the_more_it_weighs_and_embeddings_move_the_more() -> None:
    embedded, labels = marked()
    found = [moved(Dear(hide=hide, rounds=3), embedded, labels) for hide in (0.0, 0.3, 3.0)]
    gaps = [gap(each, labels) for each in found]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[2] < 0.5 * gaps[0]
    kept = [float((each * embedded).sum(1).mean()) for each in found]
    assert kept == sorted(kept, reverse=True)


def test_where_groups_do_not_differ_little_is_moved() -> None:
    embedded, labels = marked(400, mark=0.0)
    marked_too, same_labels = marked(400)
    still, turned = (
        float((moved(Dear(rounds=3), e, y) * e).sum(1).mean())
        for e, y in ((embedded, labels), (marked_too, same_labels))
    )
    assert 1 - still < 0.25 * (1 - turned)


def test_groups_of_one_and_settings_that_cannot_be_are_refused() -> None:
    rows = tuple(Example(str(k), group="abb"[k], image=noise_image(16, k)) for k in range(3))
    with pytest.raises(BadData, match=r"2 groups \(1 of a, 2 of b\)"):
        Dear().fit(tiny_clip(), Dataset("d", rows), seed=0)
    with pytest.raises(BadData, match=r"0 groups \(none\)"):
        Dear().fit(tiny_clip(), Dataset("d", (Example("x", group="a"),)), seed=0)
    with pytest.raises(BadParameter, match="hide=-1"):
        Dear(hide=-1.0)
