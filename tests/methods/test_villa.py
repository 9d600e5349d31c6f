"""VILLA: one round is plain tuning to the bit, what is changed and what never is, and both kinds of models learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.weight_edits import ReplaceWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.answering import asked_rows
from vlmend.methods.robustness.flyp import Flyp
from vlmend.methods.robustness.villa import Villa, chat_door, of_words
from vlmend.testing import full_digest, hook_count, tiny_clip, tiny_vlm
from vlmend.training import nudging
from vlmend.training.batches import chosen, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import reply_loss
from vlmend.training.twin import twin_of

NAMES = ("ant", "bee", "caterpillar")
IMAGES = [noise_image(16, k) for k in range(6)]
DATA = Dataset("named", tuple(Example(str(k), image=image, answers=(NAMES[k % 3],)) for k, image in enumerate(IMAGES)))
ASKED = Dataset(
    "asked", tuple(replace(row, prompt="what is it" if k % 2 else "say") for k, row in enumerate(DATA.examples))
)
SETTINGS: dict[str, Any] = {"steps": 4, "batch": 3, "rate": 1e-3}
QUICK = Villa(**SETTINGS)


def fitted(method: Villa, target: Any, data: Dataset = DATA, seed: int = 0) -> Mend:
    fit: Any = method.fit
    return fit(target, data, seed=seed)


def values(mend: Mend) -> dict[str, torch.Tensor]:
    return {edit.parameter: edit.value for edit in mend.edits if isinstance(edit, ReplaceWeights)}


def same(one: Mend, other: Mend) -> bool:
    first, second = values(one), values(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_round_is_flyp_to_the_bit_and_more_are_not() -> None:
    target = tiny_clip()
    plain = Flyp(**SETTINGS).fit(target, DATA, seed=3)
    assert same(fitted(replace(QUICK, rounds=1), target, seed=3), plain)
    assert not same(fitted(replace(QUICK, rounds=2), target, seed=3), plain)


def test_one_round_of_a_model_that_answers_is_plain_tuning_on_replies_to_the_bit() -> None:
    target = tiny_vlm()
    twin, rows = twin_of(target, "decoder", "weights", seed=3), asked_rows(ASKED)

    def loss(step: int) -> torch.Tensor:
        inputs, labels = reply_batch(target.reader, chosen(rows, 3, f"villa:3:{step}"))
        return reply_loss(twin.model(**inputs, use_cache=False).logits[:, -labels.shape[1] - 1 : -1], labels)

    train_at_once(twin.parameters, loss, LoopSettings(4, 1e-3, decay=1e-4))
    plain = QUICK.made(target, ASKED, 3, twin.edits, {})  # type: ignore[arg-type]
    assert same(fitted(replace(QUICK, rounds=1), target, ASKED, 3), plain)
    assert not same(fitted(QUICK, target, ASKED, 3), plain)


@pytest.mark.parametrize("make", [tiny_clip, tiny_vlm])
def test_the_model_is_as_before_and_another_modality_or_direction_gives_another_mend(make: Any) -> None:
    target, short = make(), replace(QUICK, steps=2, batch=2)
    digest = full_digest(target.towers.model if make is tiny_clip else target.model)
    first = fitted(short, target, ASKED)
    for other in ({"change": "text"}, {"change": "image"}, {"direction": "random"}, {"weight": 0.0}, {"reach": 0.5}):
        assert not same(fitted(replace(short, **other), target, ASKED), first)
    model = target.towers.model if make is tiny_clip else target.model
    assert (full_digest(model), hook_count(model)) == (digest, 0)


def test_modalities_take_turns() -> None:
    assert [QUICK.nudged(step) for step in range(3)] == ["image", "text", "image"]
    assert {replace(QUICK, change="text").nudged(step) for step in range(3)} == {"text"}


def test_pictures_come_nearer_to_their_names_under_the_adversary_too() -> None:
    target = tiny_clip()
    mend = fitted(Villa(steps=12, batch=6, rate=2e-3), target)
    texts, right = [f"a photo of a {name}" for name in NAMES], torch.arange(6) % 3
    before, after = (
        one.logits(IMAGES, texts).log_softmax(1)[range(6), right].mean() for one in (target, target.with_mend(mend))
    )
    assert after > before + 0.1


def test_right_replies_get_likelier() -> None:
    target = tiny_vlm()
    mend = fitted(Villa(steps=8, batch=6, rate=1e-2), target, ASKED)
    asked = [row.conversation for row in ASKED.examples]
    before, after = (
        sum(float(one.sum()) for one in view.logprobs(asked, [row.answers[0] for row in ASKED.examples]))
        for view in (target, target.with_mend(mend))
    )
    assert after > before + 10


def test_padding_pictures_and_replies_of_a_request_are_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes of a batch whose prompts and replies are of unlike length."""
    target, seen = tiny_vlm(), list[tuple[torch.Tensor, torch.Tensor]]()
    climb = nudging.Nudge.climb

    def watched(self: nudging.Nudge, loss: torch.Tensor, how: nudging.Climb) -> None:
        climb(self, loss, how)
        assert self.delta is not None
        assert self.free is not None
        seen.append((self.delta.detach(), self.free))

    monkeypatch.setattr(nudging.Nudge, "climb", watched)
    fitted(Villa(steps=1, batch=6, rate=1e-3, change="text"), target, ASKED)
    inputs, labels = reply_batch(target.reader, chosen(asked_rows(ASKED), 6, "villa:0:0"))
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    words = (
        mask & (ids != target.anatomy.image_token_id) & (torch.arange(ids.shape[1]) < ids.shape[1] - labels.shape[1])
    )
    assert (~mask).any()
    for delta, free in seen:
        assert torch.equal(free[..., 0], words)
        assert not delta[~words].any()
        assert (delta[words].abs().amax(-1) > 0).any()


def test_pictures_are_changed_where_they_enter_the_projector() -> None:
    target = tiny_vlm()
    inputs, labels = reply_batch(target.reader, asked_rows(ASKED))
    door = chat_door(target, target.model, "image", inputs, labels.shape[1])
    assert door.module is target.model.model.multi_modal_projector
    assert (door.entering, door.rows) == (True, 6)


def test_words_are_told_from_padding_with_a_mask_and_without() -> None:
    ids = torch.tensor([[5, 6, 7, 1], [5, 1, 1, 1], [5, 5, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    assert torch.equal(of_words({"input_ids": ids, "attention_mask": mask}), mask.bool())
    assert of_words({"input_ids": ids}).int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]


def test_rows_without_a_prompt_are_asked_what_is_seen_and_others_left_out() -> None:
    rows = asked_rows(Dataset("mixed", (DATA.examples[0], Example("x", "who?"), ASKED.examples[1])))
    assert [(row.asked.prompt, row.reply, row.ends) for row in rows] == [
        ("What is in this picture?", "ant", True), ("what is it", "bee", True)
    ]  # fmt: skip
    assert rows[0].asked == Conversation.ask("What is in this picture?", IMAGES[0])


def test_data_without_answers_and_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(BadData, match="no row with an image and an answer"):
        fitted(QUICK, tiny_vlm(), Dataset("bare", (Example("x", "who?"),)))
    with pytest.raises(BadData, match="1 known things"):
        fitted(QUICK, tiny_clip(), Dataset("one", DATA.examples[:1]))
    wrongs: tuple[dict[str, Any], ...] = (
        {"rounds": 0}, {"reach": 0.0}, {"epsilon": -1.0}, {"weight": -1.0}, {"steps": 0},
    )  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Villa(**wrong)
