"""dp_captions: each row's gradient is its own, none moves the sum by more than C, and without noise it is training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.privacy.dp_captions import DpCaptions, caption_rows, row_losses
from vlmend.methods.promises import FOLLOWS
from vlmend.models.vlm import VLM
from vlmend.testing import full_digest, hook_count, tiny_vlm
from vlmend.training.private import noisy_mean, rows_apart
from vlmend.training.twin import twin_of

pytest.importorskip("opacus")

DATA = Dataset(
    "captions", tuple(Example(str(k), image=noise_image(16, k), caption=f"picture {'no' * k} {k}") for k in range(5))
)
METHOD = DpCaptions(steps=3, batch=4, rank=2, rate=1e-2)


def gradients(tiny: VLM) -> tuple[Any, list[list[torch.Tensor]]]:
    """A twin with the gradients of its rows at hand, and each row's gradient from a pass of its own."""
    rows, twin = caption_rows(DATA), twin_of(tiny, "decoder", rank=2, seed=0)
    with torch.no_grad():  # adapters start at zero, where half of their gradients are zero
        for parameter in twin.parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=Generator().manual_seed(parameter.numel())))
    alone = [list(torch.autograd.grad(row_losses(tiny, twin.model, [row]).sum(), twin.parameters)) for row in rows]
    return twin, alone


def test_gradients_of_rows_are_those_of_passes_of_their_own(tiny: VLM) -> None:
    twin, alone = gradients(tiny)
    with rows_apart(twin.model):
        row_losses(tiny, twin.model, caption_rows(DATA)).sum().backward()
        for place, parameter in enumerate(twin.parameters):
            held: Any = parameter
            slow = torch.stack([row[place] for row in alone])
            torch.testing.assert_close(held.grad_sample, slow, atol=1e-5, rtol=1e-3)
    assert not any(hasattr(parameter, "grad_sample") for parameter in twin.parameters)


def test_no_row_moves_the_sum_by_more_than_clip(tiny: VLM) -> None:
    """All rows against all but one: the difference is that row's clipped gradient, of length C where it was longer."""
    twin, alone = gradients(tiny)
    lengths = [math.sqrt(sum(float(part.square().sum()) for part in row)) for row in alone]
    most = sorted(lengths)[2]

    def summed(rows: list[int]) -> torch.Tensor:
        for place, parameter in enumerate(twin.parameters):
            held: Any = parameter
            held.grad_sample = torch.stack([alone[k][place] for k in rows])
        mean = noisy_mean(twin.parameters, 4.0, most, 0.0, Generator())
        return 4.0 * torch.cat([part.flatten() for part in mean])

    every = summed([0, 1, 2, 3, 4])
    for left_out, length in enumerate(lengths):
        moved = float((every - summed([k for k in range(5) if k != left_out])).norm())
        assert moved == pytest.approx(min(length, most), rel=1e-3)


def test_noise_has_the_size_that_is_promised_and_an_empty_batch_is_noise_alone() -> None:
    parameter = torch.nn.Parameter(torch.zeros(200, 200))
    (found,) = noisy_mean([parameter], 8.0, 0.5, 2.0, Generator().manual_seed(0))
    assert float(found.std()) == pytest.approx(2.0 * 0.5 / 8.0, rel=0.02)
    (silent,) = noisy_mean([parameter], 8.0, 0.5, 0.0, Generator())
    assert not silent.any()


def test_without_noise_and_clipping_it_is_ordinary_training(tiny: VLM) -> None:
    rows = caption_rows(DATA)
    found = METHOD.trained(tiny, rows, 0.0, math.inf, 1.0, 3, Generator().manual_seed(3))
    plain = twin_of(tiny, "decoder", rank=2, seed=3)
    optimiser = torch.optim.Adam(plain.parameters, lr=METHOD.rate)
    for _ in range(METHOD.steps):
        optimiser.zero_grad()
        row_losses(tiny, plain.model, rows).mean().backward()
        optimiser.step()
    for one, other in zip(found.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-2)


def test_the_card_holds_the_ledger_and_a_key_is_a_secret(tiny: VLM, tmp_path: Path) -> None:
    mend = METHOD.fit(tiny, DATA, seed=0)
    promise = next(note for note in mend.card.notes if note.startswith("Promised for each row: epsilon"))
    assert 7 < float(promise.split()[5]) <= 8
    assert "sensitivity 1, sampling rate 0.8, 3 steps" in promise
    assert FOLLOWS in mend.card.notes
    key = tmp_path / "noise.key"
    key.write_bytes(b"0123456789abcdef")
    key.chmod(0o600)
    keyed = replace(METHOD, key=str(key)).fit(tiny, DATA, seed=0)
    assert FOLLOWS not in keyed.card.notes
    assert keyed.digest != mend.digest


def test_the_model_is_left_as_it_was() -> None:
    target = tiny_vlm(seed=0)
    before = full_digest(target.model)
    METHOD.fit(target, DATA, seed=0)
    assert full_digest(target.model) == before
    assert not hook_count(target.model)
    assert not any(hasattr(parameter, "grad_sample") for parameter in target.model.parameters())


def test_rows_are_captions_or_questions_with_answers() -> None:
    picture = noise_image(8, 0)
    rows = (
        Example("a", image=picture, caption="a cat"), Example("b", "what is it?", image=picture, answers=("a dog",)),
        Example("c", "why?", answers=("so",)), Example("d", image=picture), Example("e", "what?"),
    )  # fmt: skip
    told = caption_rows(Dataset("rows", rows))
    assert [(row.asked.prompt[:7], row.reply) for row in told] == [
        ("What is", "a cat"), ("what is", "a dog"), ("why?", "so"),
    ]  # fmt: skip
    assert told[2].asked == Conversation.ask("why?")


def test_what_promises_nothing_or_cannot_be_trained_is_refused(tiny: VLM) -> None:
    nothing: list[dict[str, Any]] = [{"epsilon": 0.0}, {"epsilon": math.inf}, {"delta": 1.0}]
    for wrong in nothing:
        with pytest.raises(BadParameter, match="promise nothing"):
            DpCaptions(**wrong)
    senseless: list[dict[str, Any]] = [{"steps": 0}, {"rate": 0.0}, {"clip": math.inf}, {"rank": 0}]
    for wrong in senseless:
        with pytest.raises(BadParameter, match="cannot be"):
            DpCaptions(**wrong)
    with pytest.raises(BadData, match="has 1 rows to learn"):
        METHOD.fit(tiny, Dataset("one", DATA.examples[:1]), seed=0)
