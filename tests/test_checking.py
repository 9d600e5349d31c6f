"""In tests annotations of arrays are held to their shapes, over all arguments of a call, and others to their types."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from vlmend.core.dual_edits import MapTexts
from vlmend.core.metrics.exposure import exposure_by_chance
from vlmend.training.losses import contrastive_loss


def test_an_argument_of_another_type_is_refused() -> None:
    wrong: Any = "seven"
    with pytest.raises(BeartypeCallHintViolation):
        exposure_by_chance(wrong)


def test_widths_that_differ_between_arguments_are_refused() -> None:
    with pytest.raises(TypeCheckError):
        contrastive_loss(torch.ones(2, 3), torch.ones(2, 4), 1.0)


def test_a_field_of_another_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        MapTexts(matrix=torch.ones(2, 3))
