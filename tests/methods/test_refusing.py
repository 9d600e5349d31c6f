"""Which harmful anchors a model declines, and the difference of the states of those that it answers."""

from __future__ import annotations

import pytest
import torch

from vlmend.core.examples import Example
from vlmend.errors import BadData
from vlmend.methods.beside import with_own_pictures
from vlmend.methods.reading import as_text
from vlmend.methods.refusing import answered_minus_refused, declined
from vlmend.testing import ScriptedTarget

ANCHORS = [Example(str(k), f"{'longer ' * (k % 3)}request {k}", "harmful") for k in range(40)]


def test_replies_are_told_apart_in_the_order_of_the_anchors() -> None:
    """Batches are sorted by length; every third request is declined, and only beside a picture."""

    def script(c, mended):
        return (
            "I'm sorry, but I can't help with that." if c.has_image and int(c.prompt.split()[-1]) % 3 == 0 else "Yes."
        )

    target = ScriptedTarget(script)
    assert declined(target, ANCHORS, with_own_pictures(ANCHORS, 0)).tolist() == [k % 3 == 0 for k in range(40)]
    assert not declined(target, ANCHORS, as_text).any()


def test_answered_minus_refused_worked_out_by_hand() -> None:
    """Answered (1, 2) and (3, 4), declined (0, 1) and (2, 9): (2, 3) - (1, 5)."""
    states = torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]], [[3.0, 4.0]], [[2.0, 9.0]]])
    refused = torch.tensor([False, True, False, True])
    torch.testing.assert_close(answered_minus_refused(states, refused, ""), torch.tensor([[1.0, -2.0]]))


@pytest.mark.parametrize("declines", [0, 1, 3, 4])
def test_a_model_that_declines_all_or_none_is_refused_with_the_way_out(declines: int) -> None:
    refused = torch.arange(4) < declines
    with pytest.raises(BadData, match=rf"declines {declines} and answers {4 - declines}") as problem:
        answered_minus_refused(torch.zeros(4, 1, 2), refused, "Say contrast=labels.")
    assert "contrast=labels" in str(problem.value.hint)
