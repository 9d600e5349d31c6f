"""privacy/gradient_inversion: a picture comes back whole from its gradient, and worse from noise, sums and adapters."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from vlmend.audit.clients import client_of
from vlmend.audit.suites.privacy import gradient_inversion
from vlmend.audit.suites.privacy.gradient_inversion import ARMS, LEFT_OUT, NO_PATCHES, Arm, GradientInversion, Room
from vlmend.core.contracts import Sample
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.metrics.reconstruction import EXACT, picked_out, psnr
from vlmend.core.targets import Pixels
from vlmend.errors import BadData
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.testing import tiny_clip, tiny_vlm
from vlmend.training.batches import row_of
from vlmend.training.inversion import Shared, inside, matched, noised, rebuilt, summed, words_used
from vlmend.training.replies import loss_of_rows

SUITE = GradientInversion(steps=0)
"""Without matching where a test does not ask for it: on phantom-clip it takes half a minute."""
PAIRS = SUITE.sample_data()
assert PAIRS is not None
ROWS = PAIRS.examples


def mean_of(samples: list[Sample], group: str, name: str = "psnr") -> float:
    found = [sample.values[name] for sample in samples if sample.group == group and name in sample.values]
    return sum(found) / len(found)


def test_two_patches_are_solved_by_hand() -> None:
    """Patches 0.2 and 0.8 of one pixel; W, of width 2, gets d_1 * 0.2 + d_2 * 0.8 = (0.2, 1.6)."""
    places = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    seen = Shared(torch.tensor([[0.2], [1.6]]).double(), places, None, 1.0)
    likely = torch.full((1, 1, 2), 0.5)
    zero = torch.zeros(1, 1, 1, 2)
    pixels = Pixels(zero, zero, zero + 1)
    assert rebuilt(seen, pixels, 1, likely, 0.0).flatten().tolist() == pytest.approx([0.2, 0.8])
    # A pull as strong as the largest eigenvalue, 4: 0.5 + 1 (0.2 - 0.5) / (1 + 4), 0.5 + 4 (0.8 - 0.5) / (4 + 4)
    assert rebuilt(seen, pixels, 1, likely, 1.0).flatten().tolist() == pytest.approx([0.44, 0.65])
    nothing = Shared(0 * seen.patches, 0 * places, None, 0.0)
    assert torch.equal(rebuilt(nothing, pixels, 1, likely, 0.0), likely.double())


def test_the_sum_of_two_through_one_layer_has_rank_two_and_gives_their_mixture() -> None:
    """One patch a picture, d = (1, 0) and (0, 1), x = 0.2 and 0.8: d_1 + d_2 = (1, 1) and W = (0.2, 0.8) give 0.5."""
    values = torch.rand(2, 6).double()
    each = [
        Shared(torch.eye(2).double()[k][:, None] * values[k], torch.eye(2).double()[k : k + 1], None, 1.0)
        for k in range(2)
    ]
    both = summed(each)
    assert torch.linalg.matrix_rank(both.patches) == 2
    zero = torch.zeros(1, 6, 1, 1)
    mixed = rebuilt(both, Pixels(zero, zero, zero + 1), 1, torch.zeros(6, 1, 1), 0.0)
    assert torch.allclose(mixed.flatten(), values.mean(0))


def test_psnr_and_who_is_picked_out_by_hand() -> None:
    """An error of 0.1 everywhere is a mean square of 0.01: 20 dB."""
    true = np.full((1, 2, 2), 0.5)
    assert psnr(true + 0.1, true) == pytest.approx(20.0)
    assert psnr(true, true) == EXACT
    others = np.stack([true + 0.3, true - 0.4])
    assert picked_out(true + 0.1, true, others)
    assert not picked_out(true + 0.2, true, others)


def test_words_are_the_rows_that_noise_cannot_explain() -> None:
    tokens = torch.zeros(5, 4)
    tokens[1], tokens[3] = torch.full((4,), 3.0), torch.full((4,), 0.5)
    seen = Shared(torch.zeros(4, 1), torch.zeros(1, 4), tokens, 1.0)
    assert words_used(seen) == {1, 3}
    assert words_used(seen, noise=0.5) == {1}  # 0.5 (2 + 3) = 2.5, and the rows are 6 and 1 long


def test_noise_is_told_in_lengths_of_the_whole_gradient() -> None:
    seen = Shared(torch.full((200, 200), 4.0).double(), torch.zeros(1, 200).double(), None, 8.0)
    found = noised(seen, 0.1, 0)
    assert float(found.patches.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.patches.std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(found.patches, noised(seen, 0.1, 0).patches)


def test_a_pair_alone_comes_back_to_the_pixel_with_its_words_in_any_encoder_of_patches() -> None:
    base = tiny_clip()
    room = Room(base, PAIRS.examples[4:], 0)
    row = replace(PAIRS.examples[0], caption="zebra 0")
    seen = room.seen(row, Arm("one_pair"))
    assert float((room.picture(seen, 0.0) - room.pixels([row]).values[0]).abs().max()) < 1e-5
    assert words_used(seen) == room.client.tokens(row)


def test_matching_lowers_what_it_is_told_to_lower() -> None:
    """From grey, gradients of the rebuilt pair point more the way of the true ones."""
    base = tiny_clip()
    room = Room(base, PAIRS.examples[4:], 0)
    rows, parameters = PAIRS.examples[:1], room.client.twin.parameters
    pixels, loss = room.pixels(rows), partial(room.client.loss, rows)

    def gradient(at: Pixels) -> torch.Tensor:
        found = torch.autograd.grad(loss(at), parameters, allow_unused=True)
        return torch.cat([one.flatten() for one in found if one is not None])

    given = torch.autograd.grad(loss(pixels), parameters, allow_unused=True)
    start = replace(pixels, values=torch.full_like(pixels.values, 0.5))
    found = matched(loss, parameters, given, start, steps=30, smooth=0.0)
    true = gradient(pixels)
    before, after = (
        float(torch.cosine_similarity(gradient(at), true, dim=0)) for at in (start, replace(pixels, values=found))
    )
    assert 1 - after < (1 - before) / 2
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_phantom_clip_gives_a_pair_away_whole_and_noise_and_sums_take_that_back() -> None:
    clip = load_dual(phantom_clip(), name="phantom-clip")
    samples = SUITE.samples(clip, None, 3, seed=0)
    found = {arm.name: mean_of(samples, arm.name) for arm in ARMS}
    floor = mean_of(samples, "mean_picture")
    assert found["one_pair"] == EXACT
    assert found["one_pair"] > found["noise_0.00001"] > found["noise_0.0001"] > found["noise_0.001"]
    assert found["one_pair"] > found["sum_of_2"] + 20
    assert found["sum_of_8"] < floor + 1.5
    assert found["noise_0.001"] < floor + 1.5
    assert mean_of(samples, "adapters_of_8") == pytest.approx(floor)
    for name in ("picked_out", "words_found", "words_right"):
        assert mean_of(samples, "one_pair", name) == 1.0
    assert mean_of(samples, "sum_of_8", "words_right") < 0.3
    assert math.isclose(mean_of(samples, "mean_picture", "psnr_floor"), floor)
    shown = {sample.group: dict(sample.pictures) for sample in samples}
    assert shown["one_pair"]["rebuilt from one pair"].digest == shown["one_pair"]["as it is"].digest
    assert shown["noise_0.1"]["rebuilt from noise 0.1"].digest != shown["noise_0.1"]["as it is"].digest
    assert set(shown["mean_picture"]) == {"as it is", "mean picture"}


def test_what_cannot_be_attacked_is_unscored_with_its_reason() -> None:
    base, pairs = tiny_clip(), PAIRS
    broken = replace(pairs.examples[0], image=Image(b"no picture", "broken.png"))
    samples = SUITE.samples(base, replace(pairs, examples=(broken, *pairs.examples[1:])), 2, seed=0)
    assert all("broken.png" in s.reason for s in samples if s.id.startswith("0@"))
    few = SUITE.samples(base, Dataset("few", pairs.examples[:14]), 2, seed=0)  # seven are public
    assert {s.group for s in few if "too few" in s.reason} == {"sum_of_8"} == {s.group for s in few if not s.values}
    card = MendCard("m", {}, base.name, base.model_digest, "d", "", 0, {}, {}, "", dict(base.identity))
    mended = base.with_mend(Mend((MapImages(torch.eye(16)),), card))
    assert {s.reason for s in SUITE.samples(mended, pairs, 2, seed=0)} == {LEFT_OUT}
    with pytest.raises(BadData, match="four are needed"):
        SUITE.samples(base, Dataset("three", pairs.examples[:3]), None, seed=0)


def test_a_tower_without_patches_is_told_apart() -> None:
    assert inside(nn.Sequential(nn.Embedding(4, 2)), nn.Sequential(nn.Conv2d(3, 8, 3))) is None
    assert inside(nn.Sequential(nn.Embedding(4, 2)), None) is None


def test_without_patches_the_closed_form_is_unscored_and_matching_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_inversion, "inside", lambda model, vision: None)
    samples = SUITE.samples(tiny_clip(), PAIRS, 1, seed=0)
    assert {s.reason for s in samples if s.group in {arm.name for arm in ARMS}} == {NO_PATCHES}
    assert all(s.values for s in samples if s.group == "adapters_of_8")


def test_a_client_of_a_model_that_answers_gives_its_picture_and_words_away_and_noise_takes_that_back() -> None:
    base, data = tiny_vlm(), Dataset("asked", tuple(replace(r, prompt="?", answers=(str(r.caption),)) for r in ROWS))
    samples = GradientInversion(steps=1).samples(base, data, 3, seed=0)
    found = {arm.name: mean_of(samples, arm.name) for arm in ARMS}
    floor = mean_of(samples, "mean_picture")
    assert found["one_pair"] == EXACT
    assert found["one_pair"] > found["noise_0.0001"] > found["noise_0.001"] > found["noise_0.01"]
    assert found["noise_0.1"] < floor + 1.5
    assert found["one_pair"] > found["sum_of_2"] + 20
    assert found["sum_of_8"] < floor + 1.5
    for name in ("picked_out", "words_found", "words_right"):
        assert mean_of(samples, "one_pair", name) == 1.0


def test_the_gradient_of_a_reply_is_that_of_the_plain_loss_in_the_picture_of_the_row() -> None:
    """A client's loss with its own pixels is `loss_of_rows`, and its tokens are those of request and reply."""
    base = tiny_vlm()
    client = client_of(base, "weights", 0)
    row = Example("0", "which?", image=noise_image(16, 3), answers=("it is",))
    learnt = row_of(row)
    assert learnt is not None
    own = client.loss([row], client.pixels([row]))
    assert torch.allclose(own, loss_of_rows(base, client.twin, [learnt]), atol=1e-6)
    ids = base.processor.tokenizer("[user]which?[assistant]it is<eos>", add_special_tokens=False).input_ids
    assert client.tokens(row) == set(ids)


def test_what_a_row_teaches_is_its_answer_or_its_caption() -> None:
    picture = noise_image(16, 0)
    asked = row_of(Example("a", "which?", image=picture, answers=("this",), caption="a thing"))
    told = row_of(Example("b", image=picture, caption="a thing"))
    assert asked is not None
    assert (asked.asked.turns[-1].text, asked.reply) == ("which?", "this")
    assert told is not None
    assert told.reply == "a thing"
    assert row_of(Example("c", image=picture)) is None
    only_asked = Dataset("asked", tuple(replace(row, caption=None, prompt="which?") for row in ROWS))
    assert not SUITE.fits(only_asked, "chat")
    assert SUITE.fits(only_asked, "dual")


def test_pictures_that_are_read_in_several_parts_are_unscored_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_vlm()
    tiles = base.pixels([noise_image(16, k) for k in range(2)])
    monkeypatch.setattr(type(base), "pixels", lambda self, images: tiles)
    samples = SUITE.samples(base, PAIRS, 2, seed=0)
    assert all("one picture as one block" in sample.reason for sample in samples)


def test_a_token_embedding_that_makes_the_logits_too_tells_no_words() -> None:
    words, tower = nn.Embedding(4, 2), nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.Embedding(5, 8))
    head = nn.Linear(2, 4, bias=False)
    apart = inside(nn.Sequential(words, tower, head), tower)
    head.weight = words.weight
    tied = inside(nn.Sequential(words, tower, head), tower)
    assert apart is not None
    assert apart.tokens is words.weight
    assert tied is not None
    assert tied.tokens is None
