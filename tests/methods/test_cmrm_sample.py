"""cmrm_sample: one edit that is measured anew in each request, with CMRM's dose on its card."""

from __future__ import annotations

import pytest

from vlmend.core.edits import ContrastShift
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.errors import BadParameter
from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.cmrm_sample import CMRMSample
from vlmend.models.vlm import VLM

DATA = Dataset("d", tuple(Example(str(k), text, "harmful") for k, text in enumerate(("hello", "how are you"))))


def test_the_mend_is_one_contrast_of_the_request_with_its_text(tiny: VLM) -> None:
    """Four layers; I' is white, 16 pixels a side as the tower reads."""
    (edit,) = CMRMSample(alpha=0.5).fit(tiny, DATA, seed=0).edits
    assert isinstance(edit, ContrastShift)
    assert (edit.layers, edit.strength, edit.tokens) == ((0, 1, 2, 3), 0.5, "last_prompt")
    assert (edit.seen, edit.unseen, edit.image.digest) == ("corrupt", "text", blank_image(16).digest)


def test_the_scope_says_which_tokens_are_edited(tiny: VLM) -> None:
    (edit,) = CMRMSample(scope="every_step", layers="1,3").fit(tiny, DATA, seed=0).edits
    assert isinstance(edit, ContrastShift)
    assert (edit.layers, edit.tokens) == ((1, 3), "last")


def test_the_dose_is_that_of_the_mean_shift(tiny: VLM) -> None:
    assert CMRMSample().fit(tiny, DATA, seed=0).card.dose == CMRM(mode="increment").fit(tiny, DATA, seed=0).card.dose


def test_layers_that_are_not_there_are_refused(tiny: VLM) -> None:
    with pytest.raises(BadParameter):
        CMRMSample(layers="9").fit(tiny, DATA, seed=0)
