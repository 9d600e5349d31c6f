"""CaRot: its terms by hand, the teacher's average by hand, without them plain contrastive fine-tuning."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.carot import Carot, Teacher, not_orthonormal
from vlmend.testing import full_digest, tiny_clip
from vlmend.training.losses import distillation

NAMES = ("ant", "bee", "cat")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
TEXTS = [f"a photo of a {name}" for name in NAMES]
QUICK = Carot(steps=8, batch=3, rate=1e-3)


def test_orthonormal_rows_cost_nothing_and_doubled_ones_three_a_row() -> None:
    """2 rows, each doubled: V V' = 4 I, and the norm of 3 I is 3 sqrt(2)."""
    rows = torch.eye(2, 5)
    assert float(not_orthonormal(rows)) == 0
    assert float(not_orthonormal(2 * rows)) == pytest.approx(3 * math.sqrt(2))


@given(st.integers(0, 1000))
def test_a_student_that_is_its_teacher_gets_the_teachers_entropy_and_no_gradient(seed: int) -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    found = distillation(logits, logits.detach())
    entropies = [-(p * p.log()).sum(1).mean() for p in (logits.softmax(1), logits.T.softmax(1))]
    torch.testing.assert_close(found, (entropies[0] + entropies[1]) / 2)
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient.abs().max() < 1e-6


def test_two_pictures_and_two_texts_by_hand() -> None:
    """A teacher that cannot tell says 1/2 and 1/2; the student's logits 0 and ln 3 give -(ln 1/4 + ln 3/4) / 2."""
    student = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    wanted = -(math.log(1 / 4) + math.log(3 / 4)) / 2
    assert float(distillation(student, torch.zeros(2, 2))) == pytest.approx(wanted, abs=1e-6)


def test_the_teacher_is_refreshed_every_second_step_by_a_momentum_that_rises() -> None:
    """10 steps settle after 2, so the first refresh keeps 0.9: w + 0.1 of the way. 100 steps settle after 20: 0.135."""
    for steps, kept in ((10, 0.9), (100, 0.05 + 0.85 * 2 / 20)):
        target = tiny_clip()
        method = Carot(steps=steps)
        moved = [nn.Parameter(one.detach() + 1) for one in method.twin(target, 0).parameters]
        teacher = Teacher(method, target, moved, 0)
        before = {name: value.clone() for name, value in teacher.model.named_parameters() if value.requires_grad}
        for step, gone in ((0, 0.0), (1, 1 - kept)):
            teacher.after_step(step, moved)
            now = dict(teacher.model.named_parameters())
            for name, value in before.items():
                torch.testing.assert_close(now[name], value + gone, atol=1e-5, rtol=0)


def test_both_towers_learn_and_the_projection_comes_nearer_to_orthonormal() -> None:
    target = tiny_clip()
    digest = full_digest(target.towers.model)
    mend = replace(QUICK, orthogonal=5.0).fit(target, DATA, seed=0)
    moved = {edit.parameter: edit.value for edit in mend.edits if isinstance(edit, ReplaceWeights)}
    assert any(name.startswith("vision_model") for name in moved)
    assert any(name.startswith("text_model") for name in moved)
    name = "visual_projection.weight"
    assert not_orthonormal(moved[name]) < not_orthonormal(target.towers.model.get_parameter(name).detach())
    assert full_digest(target.towers.model) == digest


def test_without_its_terms_it_is_contrastive_fine_tuning_and_the_teacher_is_never_asked() -> None:
    """Each term alone gives other weights than neither; a teacher that is weighed by 0 gives the same however fresh."""
    plain = replace(QUICK, orthogonal=0.0, distil=0.0)
    variants = (plain, replace(plain, refresh=5), replace(plain, orthogonal=0.2), replace(plain, distil=1.5))
    views = [tiny_clip().with_mend(method.fit(tiny_clip(), DATA, seed=0)) for method in variants]
    first, other, held, taught = (view.embed_images(IMAGES) for view in views)
    assert torch.equal(first, other)
    assert not torch.equal(first, held)
    assert not torch.equal(first, taught)


def test_one_name_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="1 known things"):
        Carot().fit(tiny_clip(), Dataset("one", DATA.examples[:1]), seed=0)
    for wrong in ({"orthogonal": -1.0}, {"distil": -1.0}, {"refresh": 0}, {"train": "adapters"}, {"steps": 0}):
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Carot(**wrong)
