"""How many rows are attacked together: what fits, told by the target, or found by halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from tests.attacks.test_pgd import EIGHT, Linear, grey
from torch import Tensor

from vlmend.attacks.robustness.pgd import PGD
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.targets import Pixels
from vlmend.models.decoding.loop import Budget
from vlmend.models.vlm import VLM


def test_a_batch_that_does_not_fit_is_tried_by_halves() -> None:
    """Three rows at once are too many for this device, two are not: of eight, four batches of two are attacked."""
    sizes: list[int] = []

    class Small(Linear):
        def embed_pixels(self, pixels: Pixels) -> Tensor:
            if pixels.values.requires_grad:
                sizes.append(len(pixels.values))
            if pixels.values.requires_grad and len(pixels.values) > 2:
                raise torch.OutOfMemoryError("no room")
            return super().embed_pixels(pixels)

    rows = tuple(Example(str(k), image=grey(10 * k), answers=(f"thing {k % 2}",)) for k in range(8))
    attacked = PGD().run(cast("Any", Small()), Dataset("d", rows), EIGHT, seed=0)
    assert [row.id for row in attacked.examples] == [row.id for row in rows]
    assert sizes[:3] == [8, 4, 2]
    whole = PGD().run(cast("Any", Linear()), Dataset("d", rows), EIGHT, seed=0)
    assert [row.image.digest for row in attacked.examples if row.image] == [
        row.image.digest for row in whole.examples if row.image
    ]


def test_a_target_says_how_many_rows_fit() -> None:
    class Told(Linear):
        def fitting_with_gradients(self, batch: Sequence[Conversation]) -> int:
            return min(3, len(batch))

        def embed_pixels(self, pixels: Pixels) -> Tensor:
            if pixels.values.requires_grad:  # not where it is judged
                sizes.append(len(pixels.values))
            return super().embed_pixels(pixels)

    sizes: list[int] = []
    rows = tuple(Example(str(k), image=grey(10 * k), answers=(f"thing {k % 2}",)) for k in range(8))
    PGD().run(cast("Any", Told()), Dataset("d", rows), EIGHT, seed=0)
    assert sizes == [*[3] * 10, *[3] * 10, *[2] * 10]  # ten steps each


def test_a_chat_model_tells_how_many_fit_by_its_budget(tiny: VLM) -> None:
    batch = [Conversation.ask("what is it", noise_image(16, k)) for k in range(40)]
    fits = [
        replace(tiny, workings=replace(tiny.workings, budget=Budget(tokens))).fitting_with_gradients(batch)
        for tokens in (8, 2000, 4000, 10**6)
    ]
    assert fits[0] == 1 < fits[1] < 40
    assert fits[2] == pytest.approx(2 * fits[1], abs=1)
    assert fits[3] == 40
