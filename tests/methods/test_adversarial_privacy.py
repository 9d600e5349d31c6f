"""adversarial_privacy: without its term it is plain fine-tuning, an adversary that guesses pushes nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.methods.adversary import Guesser, certainty
from vlmend.methods.privacy.adversarial_privacy import TELLTALES, AdversarialPrivacy, telltales
from vlmend.methods.robustness.flyp import Flyp
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat", "dog")
MEMBERS = tuple(Example(str(k), image=noise_image(16, k), answers=(NAMES[k % 4],)) for k in range(8))
ASIDE = tuple(
    Example(f"r{k}", image=noise_image(16, 50 + k), answers=(NAMES[k % 4],), attributes={"member": "reference"})
    for k in range(8)
)
DATA = Dataset("pairs", (*MEMBERS, *ASIDE))
SETTINGS: dict[str, Any] = {"steps": 3, "batch": 4, "rate": 1e-3}


def seen(**told: Any) -> torch.Tensor:
    target = tiny_clip()
    mend = AdversarialPrivacy(**{**SETTINGS, "crowd": 6, **told}).fit(target, DATA, seed=0)
    return target.with_mend(mend).embed_images([row.image for row in MEMBERS if row.image])


def test_without_its_term_it_is_flyp_on_the_members_to_the_bit() -> None:
    target = tiny_clip()
    plain = target.with_mend(Flyp(**SETTINGS).fit(target, Dataset("members", MEMBERS), seed=0))
    images = [row.image for row in MEMBERS if row.image]
    assert torch.equal(seen(hide=0.0), plain.embed_images(images))
    assert not torch.equal(seen(hide=5.0), seen(hide=0.0))
    assert torch.equal(seen(hide=5.0), seen(hide=5.0))


def test_an_adversary_that_guesses_pushes_nothing() -> None:
    h = Guesser(TELLTALES, 2, 0, normed=False)
    for parameter in h.network.parameters():
        torch.nn.init.zeros_(parameter)
    numbers = torch.randn(6, TELLTALES, requires_grad=True)
    known = certainty(h(numbers), torch.tensor([0, 0, 0, 1, 1, 1]))
    (slope,) = torch.autograd.grad(known, numbers)
    assert float(known.detach()) == pytest.approx(0.0, abs=1e-6)
    assert not slope.any()


def test_what_the_adversary_sees_by_hand() -> None:
    """Cosines 1 and 0, scale 2: log e^2 / (e^2 + 1) = -0.1269, over the scale."""
    eye = torch.eye(2)
    surely = (2 - math.log(math.exp(2) + 1)) / 2
    assert telltales(eye, eye, 2.0).tolist() == [pytest.approx([1.0, surely, surely])] * 2


def test_hiding_lowers_what_a_fresh_adversary_tells() -> None:
    """Members are learnt by heart; with the term their cosine stands less above that of pairs kept aside."""

    def gap(hide: float) -> float:
        target = tiny_clip()
        method = AdversarialPrivacy(steps=25, batch=8, rate=5e-3, crowd=8, hide=hide)
        view = target.with_mend(method.fit(target, DATA, seed=0))
        cosine = [
            (view.embed_images([row.image]) * view.embed_texts([f"a photo of a {row.answers[0]}"])).sum()
            for row in DATA.examples
            if row.image
        ]
        return float(torch.stack(cosine[:8]).mean() - torch.stack(cosine[8:]).mean())

    plain = gap(0.0)
    assert plain > 0.05
    assert gap(30.0) < plain


def test_moved_pixels_are_other_training() -> None:
    assert not torch.equal(seen(hide=0.0, epsilon=0.1), seen(hide=0.0))


def test_what_is_kept_aside_is_told_and_never_learnt() -> None:
    target = tiny_clip()
    unnamed = Dataset("unnamed", MEMBERS)
    method = AdversarialPrivacy(**SETTINGS, crowd=2, aside=0.25)
    card = method.fit(target, unnamed, seed=0).card
    assert card.dose == {"members": 6.0, "reference": 2.0}
    assert any("kept aside" in note for note in card.notes)
    assert not method.fit(target, DATA, seed=0).card.notes
    unseen = Example("u", image=noise_image(16, 99), answers=("ant",), attributes={"member": "no"})
    assert method.parted(Dataset("more", (*DATA.examples, unseen)), 0)[:2] == method.parted(DATA, 0)[:2]
    members, aside, _ = method.parted(unnamed, 0)
    assert not set(members.images) & set(aside.images)


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"hide": -1.0}, {"inner": 0}, {"crowd": 1}, {"aside": 1.0}, {"epsilon": 2.0}):
        with pytest.raises(BadParameter, match="cannot be"):
            AdversarialPrivacy(**wrong)
    with pytest.raises(BadData, match="1 pairs to train on and 1 to keep aside"):
        AdversarialPrivacy(**SETTINGS).fit(tiny_clip(), Dataset("two", MEMBERS[:2]), seed=0)
