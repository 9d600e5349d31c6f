"""The negative control: CMRM's norms, unrelated directions."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.core.sites import Site
from vlmend.errors import BadParameter
from vlmend.methods.safety.cmrm import CMRM, measure_shift
from vlmend.methods.safety.random_vector import RandomVector
from vlmend.models.vlm import VLM
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


def test_a_turned_shift_moves_the_states_as_far_as_cmrms_and_elsewhere(tiny: VLM) -> None:
    data = Dataset("d", DATA.examples[:6])
    image = blank_image(16)
    shift = measure_shift(tiny, data.examples, image).mean
    control = RandomVector(alpha=0.5, match="states")
    asked = [Conversation.ask(row.prompt, image) for row in data.examples]
    sites = [Site("language", layer) for layer in range(tiny.layers)]
    plain, mended = (view.hidden(asked, sites) for view in (tiny, tiny.with_mend(control.fit(tiny, data, seed=0))))
    moved = torch.stack([(mended[site] - plain[site]).mean(0) for site in sites])
    torch.testing.assert_close(moved @ moved.T, 0.25 * shift @ shift.T, rtol=0.02, atol=1e-4)
    assert cosine_similarity(moved, shift, dim=-1).abs().max() < 0.6  # 32 dimensions: deviation 0.18
    other = RandomVector(alpha=0.5, match="states").fit(tiny, data, seed=1)
    assert other.digest != control.fit(tiny, data, seed=0).digest


def test_the_sequential_mode_has_no_shift_to_turn() -> None:
    with pytest.raises(BadParameter, match="no shift"):
        RandomVector(mode="sequential", match="states")
