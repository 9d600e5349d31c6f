"""PGD against a linear model by hand, against foolbox, and its laws on a tiny CLIP and a tiny VLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vlmend.attacks.robustness.apgd import APGD
from vlmend.attacks.robustness.pgd import PGD
from vlmend.attacks.running import run_attack
from vlmend.core.attack_notes import stood_still
from vlmend.core.attacks import Budget, attributes_of_attack
from vlmend.core.dual_edits import MapImages
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.targets import PairKind, Pixels
from vlmend.errors import BadData, BadParameter, ModelProblem, NeedsAccess, UsageError
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget, tiny_clip

SIDE = 4
WEIGHT = torch.linspace(-1, 1, 3 * SIDE * SIDE)  # no weight is 0: 48 steps from -1 to 1
EIGHT = Budget(8 / 255, 10)
CARD = MendCard("m", {}, "", "", "", "", 0, versions(), {}, "")


def grey(level: int, side: int = SIDE) -> Image:
    return Image.from_pixels(PIL.Image.new("RGB", (side, side), (level,) * 3), f"grey {level}")


def levels(row: Example) -> np.ndarray[Any, Any]:
    assert row.image is not None
    return np.asarray(row.image.decode(), dtype=np.int16)


@dataclass(frozen=True, eq=False)
class Linear:
    """Two classes with logits (w . x, 0): `thing 0` where w . x is above 0. Sees pictures as they are."""

    name: str = "linear"
    kind: str = "dual"
    mends: tuple[Mend, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict[str, str])
    shape: tuple[int, ...] = (3, SIDE, SIDE)

    @property
    def id(self) -> str:
        return self.name

    @property
    def model_digest(self) -> str:
        return self.name

    @property
    def pair_kind(self) -> PairKind:
        return "softmax"

    @property
    def bare(self) -> Linear:
        return replace(self, mends=())

    def with_mend(self, mend: Mend) -> Linear:
        return replace(self, mends=(*self.mends, mend))

    def pixels(self, images: Sequence[Image]) -> Pixels:
        values = torch.stack([
            torch.from_numpy(np.asarray(image.decode(), dtype=np.float32) / 255).permute(2, 0, 1) for image in images
        ])  # fmt: skip
        values = values.reshape(-1, *self.shape)
        return Pixels(values, torch.zeros_like(values), torch.ones_like(values))

    def embed_pixels(self, pixels: Pixels) -> Tensor:
        return pixels.values.flatten(1)

    def embed_images(self, images: Sequence[Image]) -> Tensor:
        return self.embed_pixels(self.pixels(images))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([WEIGHT, torch.zeros_like(WEIGHT)])

    def scored(self, images: Tensor, texts: Tensor) -> Tensor:
        return images @ texts.T

    def logits(self, images: Sequence[Image], texts: Sequence[str]) -> Tensor:
        return self.scored(self.embed_images(images), self.embed_texts(texts))

    def accepts(self, images: Sequence[Image]) -> Tensor:
        return torch.ones(len(images), dtype=torch.bool)

    def retrieve(self, texts: Sequence[str], images: Sequence[Image]) -> list[tuple[int, ...]]:
        raise NotImplementedError

    def hidden(self, batch: object, sites: object) -> Mapping[Any, Tensor]:
        raise NotImplementedError


TWO = Dataset(
    "two",
    (
        Example("a", image=grey(128), answers=("thing 0",), attributes={"cluster": "c"}),
        Example("b", image=grey(120), answers=("thing 1",)),
    ),
)


def pictures(count: int = 24, side: int = 20, classes: int = 4) -> Dataset:
    """Noise with the answers that tiny CLIP gives, so that it is right about it, and a grey picture of each class."""
    target, names = tiny_clip(), [f"thing {k}" for k in range(classes)]
    images = [noise_image(side, k) for k in range(count)]
    first = target.logits(images, [f"a photo of a {name}" for name in names]).argmax(1).tolist()
    rows = tuple(
        Example(str(k), image=image, answers=(names[c],))
        for k, (image, c) in enumerate(zip(images, first, strict=True))
    )
    others = tuple(Example(name, image=grey(9), answers=(name,)) for name in names)
    return Dataset("noise", (*rows, *others))


def share_right(data: Dataset, what: str) -> float:
    told = [attributes_of_attack(row)[what] for row in data.examples]
    return told.count("right") / len(told)


def test_the_margin_of_a_linear_model_falls_by_epsilon_times_the_sum_of_absolute_weights() -> None:
    """w runs from -1 to 1 in 48 steps: the sum of |w| is 24.51, so 8/255 takes 0.769 off w . x."""
    attacked = PGD().run(Linear(), TWO, EIGHT, seed=0)
    for before, after, sign in zip(TWO.examples, attacked.examples, (-1, 1), strict=True):
        moved = torch.tensor((levels(after) - levels(before)).transpose(2, 0, 1).ravel() / 255) @ WEIGHT.double()
        assert float(moved) == pytest.approx(sign * 8 / 255 * float(WEIGHT.abs().sum()), rel=1e-6)
    assert float(WEIGHT.abs().sum()) == pytest.approx(24.51, abs=0.01)


def test_an_empty_budget_gives_the_data_back() -> None:
    assert PGD().run(Linear(), TWO, Budget(0.0), seed=0) is TWO
    assert PGD().run(Linear(), TWO, Budget(0.1, steps=0), seed=0) is TWO


def test_epsilon_below_one_step_of_8_bits_is_refused() -> None:
    with pytest.raises(BadParameter, match="less than one step of 8 bits"):
        PGD().run(Linear(), TWO, Budget(0.003), seed=0)


def test_epsilon_counts_in_whole_steps() -> None:
    """0.0156 is 3.98 steps, so 3; 0.0157 is 4.004, so 4."""
    for epsilon, most in ((0.0156, 3), (0.0157, 4), (4 / 255, 4)):
        attacked = PGD().run(Linear(), TWO, Budget(epsilon, 5), seed=0)
        assert np.abs(levels(attacked.examples[0]) - levels(TWO.examples[0])).max() == most
        assert float(attacked.examples[0].attributes["epsilon"]) == pytest.approx(most / 255, abs=1e-6)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 60), st.integers(0, 255), st.floats(0.001, 0.5), st.integers(0, 9))
def test_saved_pictures_stay_within_epsilon_and_colours(most: int, level: int, alpha: float, seed: int) -> None:
    data = Dataset("d", (Example("a", image=grey(level), answers=("thing 0",)), *TWO.examples[1:]))
    attacked = PGD(alpha=alpha).run(Linear(), data, Budget(most / 255, 3), seed=seed)
    assert np.abs(levels(attacked.examples[0]) - level).max() <= most


def test_the_rows_tell_what_was_done_and_whether_it_worked() -> None:
    """Grey weighs 0 in sum, so the plain margin is about 0 and the attack turns what was right."""
    attacked = PGD().run(Linear(), TWO, EIGHT, seed=0)
    told = attributes_of_attack(attacked.examples[1])
    assert told["attack"] == "pgd"
    assert (told["clean"], told["attacked"]) == ("right" if told["success"] == "true" else told["clean"], "wrong")
    assert (told["forward"], told["backward"], told["dropped"], told["of"]) == ("10", "10", "0", "b")
    assert float(told["largest"]) == pytest.approx(8 / 255, abs=1e-6)
    assert attacked.examples[0].attributes["cluster"] == "c"
    assert "epsilon 8/255, 10 steps, seed 0, 20 forward and 20 backward passes" in attacked.notes[0]
    assert not attributes_of_attack(TWO.examples[0])


def test_a_row_comes_out_alike_in_any_batch() -> None:
    data, target = pictures(6), tiny_clip()
    alone = replace(data, examples=(data.examples[2], *data.examples[-4:]))
    whole, part = (PGD().run(target, one, EIGHT, seed=3) for one in (data, alone))
    first, second = levels(whole.examples[2]), levels(part.examples[0])
    assert (first == second).mean() > 0.99  # signs of gradients near 0 can turn with the batch


def test_more_epsilon_never_gives_more_right_and_random_signs_do_less() -> None:
    data, target = pictures(), tiny_clip()
    runs = [PGD().run(target, data, Budget(k / 255, 10), seed=0) for k in (1, 4, 16, 32)]
    robust = [share_right(run, "attacked") for run in runs]
    assert robust == sorted(robust, reverse=True)
    assert robust[-1] < 0.2 < share_right(runs[-1], "noise")
    assert share_right(runs[0], "clean") == 1.0 or share_right(runs[0], "clean") >= 24 / 28


def test_restarts_keep_the_worst() -> None:
    data, target = pictures(8), tiny_clip()
    once = PGD().run(target, data, Budget(4 / 255, 3), seed=0)
    often = PGD(restarts=4).run(target, data, Budget(4 / 255, 3), seed=0)
    task = PGD().task(target, data)

    def losses(run: Dataset) -> Tensor:
        return task.loss(run.examples, task.pixels(run.examples)).detach()

    assert (losses(often) >= losses(once) - 1e-3).all()
    assert losses(often).sum() > losses(once).sum()
    assert attributes_of_attack(often.examples[0])["forward"] == str(4 * 3 + 4)


def test_it_agrees_with_foolbox() -> None:
    foolbox: Any = pytest.importorskip("foolbox", reason="foolbox 3.3.4 is not installed")
    data, target = pictures(8, side=16), tiny_clip()
    task: Any = PGD().task(target, data)
    rows = task.seen(data.examples)
    pixels = task.pixels(rows)

    class Logits(torch.nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return target.scored(target.embed_pixels(replace(pixels, values=values)), task.texts)

    model = foolbox.PyTorchModel(Logits().eval(), bounds=(0, 1), device="cpu")
    labels = torch.tensor([task.names.index(row.answers[0]) for row in rows])
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=2 / 255, steps=6, random_start=False)
    (_, found, _) = theirs(model, pixels.values, labels, epsilons=8 / 255)
    ours = PGD(alpha=2 / 255, random_start=False).propose(task, rows, Budget(8 / 255, 6), [0] * len(rows))
    stacked = np.stack([one.pixels for one in ours if one.pixels is not None]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(stacked, found.numpy(), atol=1e-6)


def test_the_gradient_goes_through_the_mend() -> None:
    """A map that turns embeddings round turns the margin of two classes round, and with it every signed step."""
    target, data = tiny_clip(), pictures(8, classes=2)
    card = replace(CARD, model=target.name, model_digest=target.model_digest)
    view = target.with_mend(Mend((MapImages(-torch.eye(target.width)),), card))
    runs = [PGD(random_start=False).run(one, data, Budget(8 / 255, 1), seed=0) for one in (target, view)]
    clean = np.stack([levels(row) for row in PGD().task(target, data).seen(data.examples)])
    plain, mended = (np.stack([levels(row) for row in run.examples]) - clean for run in runs)
    inside = (clean >= 8) & (clean <= 247)
    assert (plain[inside] == -mended[inside]).mean() > 0.99
    assert (plain[inside] != 0).mean() > 0.99


def test_a_loss_that_is_no_number_drops_the_step_and_is_counted() -> None:
    class Broken(Linear):
        def scored(self, images: Tensor, texts: Tensor) -> Tensor:
            return images @ texts.T * torch.where(images.mean(1) > 0.6, torch.nan, 1.0)[:, None]

    data = Dataset("d", (Example("bright", image=grey(200), answers=("thing 0",)), *TWO.examples))
    attacked = PGD(random_start=False).run(Broken(), data, EIGHT, seed=0)
    assert [attributes_of_attack(row)["dropped"] for row in attacked.examples] == ["10", "0", "0"]
    assert np.array_equal(levels(attacked.examples[0]), levels(data.examples[0]))
    assert any("10 steps were dropped" in note for note in attacked.notes)


def test_a_row_whose_gradient_is_nought_was_not_attacked_and_is_no_part_of_the_shares() -> None:
    """Of bright pictures the logits are held: right before and after, and nothing is known of their robustness."""

    class Held(Linear):
        def scored(self, images: Tensor, texts: Tensor) -> Tensor:
            return images @ texts.T * torch.where(images.mean(1) > 0.6, 0.0, 1.0)[:, None] + torch.tensor([1e-3, 0.0])

    data = Dataset("d", (Example("bright", image=grey(200), answers=("thing 0",)), *TWO.examples))
    for attack in (PGD(random_start=False), PGD(restarts=2), APGD(random_start=False)):
        found = run_attack(attack, Held(), data, EIGHT)
        assert [stood_still(row) for row in found.data.examples] == [True, False, False]
        assert found.n == 2
        assert any("On 1 of 3 rows no step was made" in note for note in found.data.notes)


def test_a_row_that_fails_alone_is_left_out_by_name() -> None:
    class Picky(Linear):
        def pixels(self, images: Sequence[Image]) -> Pixels:
            if any(image.decode().getpixel((0, 0)) == (7, 7, 7) for image in images):
                raise ValueError("no sevens")
            return super().pixels(images)

    rows = (
        Example("seven", image=grey(7), answers=("thing 0",)),
        Example("gone", image=Image(b"x"), answers=("thing 1",)),
    )
    attacked = PGD().run(Picky(), Dataset("d", (*rows, *TWO.examples)), EIGHT, seed=0)
    assert [row.id for row in attacked.examples] == ["a", "b"]
    assert "2 rows could not be attacked" in attacked.notes[-1]
    assert "seven: ValueError('no sevens')" in attacked.notes[-1]


def test_a_model_that_reads_patches_is_refused() -> None:
    with pytest.raises(ModelProblem, match=r"array of \(2, 48\)"):
        PGD().run(Linear(shape=(48,)), TWO, EIGHT, seed=0)


def test_a_model_through_which_no_gradient_passes_is_refused_at_once() -> None:
    class Rounding(Linear):
        def scored(self, images: Tensor, texts: Tensor) -> Tensor:
            return super().scored(images.detach(), texts)

    with pytest.raises(ModelProblem, match="quantised"):
        PGD().run(Rounding(), TWO, EIGHT, seed=0)


def test_a_processor_that_resizes_its_own_resolution_is_refused() -> None:
    class Zooming(Linear):
        def pixels(self, images: Sequence[Image]) -> Pixels:
            pixels = super().pixels(images)
            return replace(pixels, values=(pixels.values + 0.1).clamp(0, 1))

    with pytest.raises(ModelProblem, match="changes even a picture of its own resolution"):
        PGD().run(Zooming(), TWO, EIGHT, seed=0)


def test_what_cannot_be_attacked_is_refused(tiny: VLM) -> None:
    with pytest.raises(BadData, match="names 1 classes"):
        PGD().run(Linear(), replace(TWO, examples=TWO.examples[:1]), EIGHT, seed=0)
    with pytest.raises(BadData, match="no row that pgd can attack"):
        PGD().run(Linear(), Dataset("d", (Example("x", "hello"),)), EIGHT, seed=0)
    with pytest.raises((NeedsAccess, UsageError)):
        PGD().run(ScriptedTarget(lambda c, mended: ""), TWO, EIGHT, seed=0)  # type: ignore[arg-type]
    with pytest.raises(BadParameter, match="all restarts are alike"):
        PGD(restarts=2, random_start=False)


def test_a_chat_models_reply_gets_less_likely(tiny: VLM) -> None:
    """Mean negative log-likelihood of the right answer, from the saved bytes."""
    rows = tuple(Example(str(k), "what is it", image=noise_image(16, k), answers=("cat",)) for k in range(3))
    attacked = PGD().run(tiny, Dataset("d", rows), Budget(32 / 255, 5), seed=0)
    asked = [row.conversation for row in rows]
    after = [row.conversation for row in attacked.examples]
    plain, worse = (torch.stack([one.mean() for one in tiny.logprobs(batch, ["cat"] * 3)]) for batch in (asked, after))
    assert (worse < plain).all()


def test_a_tiny_clip_is_unchanged() -> None:
    target: DualEncoder = tiny_clip()
    before = target.embed_images([noise_image(16, 5)])
    PGD().run(target, pictures(4), EIGHT, seed=0)
    assert torch.equal(target.embed_images([noise_image(16, 5)]), before)
    assert not any(p.grad is not None for p in target.towers.model.parameters())
