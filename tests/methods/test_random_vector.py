"""The negative control: CMRM's norms, unrelated directions."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity

from vlmend.core.examples import Dataset, Example
from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.random_vector import RandomVector
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k}", "harmful") for k in range(12)))
TARGET = ScriptedTarget(lambda c, mended: "", layers=3, width=512)


def test_each_norm_is_cmrms_and_each_direction_is_not() -> None:
    """In 512 dimensions the cosine of a random direction with a fixed one has deviation 1 / sqrt(512) = 0.044."""
    real, random = (method.fit(TARGET, DATA, seed=0) for method in (CMRM(), RandomVector()))
    for a, b in zip(real.edits, random.edits, strict=True):
        assert (a.site, a.tokens, a.when) == (b.site, b.tokens, b.when)
        torch.testing.assert_close(a.vector.norm(), b.vector.norm())
        assert cosine_similarity(a.vector, b.vector, dim=0).abs() < 0.2
    assert random.card.dose == real.card.dose


def test_the_seed_draws_the_directions() -> None:
    assert RandomVector().fit(TARGET, DATA, seed=0).digest != RandomVector().fit(TARGET, DATA, seed=1).digest
