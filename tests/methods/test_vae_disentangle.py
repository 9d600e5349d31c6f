"""Disentanglement by pairs: the loss by hand, the codes that are emptied, and a planted direction that is found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.fairness import vae_disentangle
from vlmend.methods.fairness.vae_disentangle import VaeDisentangle, code_kl, shared_codes, without_codes
from vlmend.testing import tiny_clip


@given(st.floats(-3, 3), st.floats(-2, 2))
def test_the_kl_of_a_code_is_that_of_two_normal_distributions(mean: float, log_variance: float) -> None:
    found = float(code_kl(torch.tensor([[mean]]), torch.tensor([log_variance])))
    wanted = kl_divergence(Normal(mean, math.exp(log_variance / 2)), Normal(0.0, 1.0))
    assert found == pytest.approx(float(wanted), abs=1e-4)


def test_pairs_that_are_alike_share_all_codes_and_others_all_but_the_far_ones() -> None:
    codes, unsure = torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(3)
    assert shared_codes(codes, codes, unsure).all()
    assert shared_codes(codes, torch.tensor([[1.0, 2.5, 9.0]]), unsure).tolist() == [[True, True, False]]
    # What is far for a code that is sure is near for one that is not.
    assert shared_codes(codes, torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([0.0, 0.0, 3.0])).tolist() == [
        [True, False, True]
    ]


@given(st.integers(0, 1000))
def test_emptied_codes_read_nothing_and_what_the_others_make_stays(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    encode, decode = torch.randn(4, 9, generator=generator), torch.randn(9, 4, generator=generator)
    matrix = without_codes(encode, decode, [1, 3], torch.zeros(9))
    assert torch.allclose(encode[[1, 3]] @ matrix, torch.zeros(2, 9), atol=1e-3)
    unread = decode[:, 0] - decode[:, [1, 3]] @ torch.linalg.solve(
        encode[[1, 3]] @ decode[:, [1, 3]], encode[[1, 3]] @ decode[:, 0]
    )
    assert torch.allclose(matrix @ decode[:, 0], unread, atol=1e-2, rtol=1e-2)


def test_the_mean_of_all_embeddings_is_not_moved() -> None:
    mean = torch.tensor([5.0, 0.0, 0.0])
    matrix = without_codes(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0.0], [1.0], [0.0]]), [0], mean)
    assert torch.allclose(matrix @ mean, mean)
    assert torch.allclose(matrix @ torch.tensor([5.0, 2.0, 1.0]), torch.tensor([5.0, 0.0, 1.0]))


def test_a_planted_direction_is_found_and_emptied_and_the_rest_stays() -> None:
    """Six directions of different size; pairs differ along the fourth, and the map takes out that and little else."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(300, 6, generator=generator) * torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    mark = torch.zeros(6)
    mark[3] = 1.0
    sides = 2 * (torch.arange(300) % 2)[:, None] - 1
    embedded = torch.cat([plain * (1 - mark) + sides * mark, plain * (1 - mark) - sides * mark])
    method = VaeDisentangle(codes=6, steps=400)
    model = vae_disentangle._Autoencoder(6, method, seed=0)  # pyright: ignore[reportPrivateUsage]
    pairs = [(k, 300 + k) for k in range(300)]
    model.learn(embedded / embedded.std(), pairs)
    apart = model.apart(embedded / embedded.std(), pairs)
    protected = [k for k, share in enumerate(apart.tolist()) if share > 0.5]
    assert len(protected) == 1
    matrix = without_codes(model.encode.weight.detach(), model.decode.weight.detach(), protected, torch.zeros(6))
    moved = embedded @ matrix.T
    assert float((moved[:300] - moved[300:]).norm() / (embedded[:300] - embedded[300:]).norm()) < 0.15
    kept = [k for k in range(6) if k != 3]
    assert float((moved - embedded)[:, kept].norm() / embedded[:, kept].norm()) < 0.2


def test_the_card_says_what_was_emptied_and_texts_stay() -> None:
    target = tiny_clip()
    rows = tuple(
        Example(f"{k}", image=noise_image(16, k), attributes={"of": str(k - 4)} if k > 3 else {}) for k in range(8)
    )
    mend = VaeDisentangle(codes=4, steps=40).fit(target, Dataset("pairs", rows), seed=0)
    (edit,) = mend.edits
    assert isinstance(edit, MapImages)
    assert "of 4 codes are emptied; share of 4 pairs" in mend.card.notes[0]
    assert torch.equal(target.with_mend(mend).embed_texts(["a"]), target.embed_texts(["a"]))


def test_data_without_pairs_and_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadData, match="no picture with another person"):
        VaeDisentangle().fit(tiny_clip(), Dataset("one", (Example("a", image=noise_image(16, 0)),)), seed=0)
    bad: list[dict[str, Any]] = [{"codes": 0}, {"steps": 0}, {"beta": -1.0}, {"noise": 0.0}, {"rate": 0.0}]
    for wrong in bad:
        with pytest.raises(BadParameter, match="cannot be"):
            VaeDisentangle(**wrong)
