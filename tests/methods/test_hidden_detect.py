"""HiddenDetect: tokens, layers and threshold by hand, and what is declined on a running model."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import RefuseWhen
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.errors import BadParameter, NeedsAccess, UsageError
from vlmend.methods.reading import read_states, with_image
from vlmend.methods.safety.cmrm import CMRM
from vlmend.methods.safety.hidden_detect import (
    WORDS,
    HiddenDetect,
    area,
    cosines,
    longest_run,
    refusal_tokens,
    threshold_of,
)
from vlmend.models.vlm import VLM
from vlmend.testing import ScriptedTarget

DATA = Dataset("d", tuple(Example(str(k), f"request {k * k}", "harmful" if k % 2 else "benign") for k in range(8)))


def only_edit(mend: Mend) -> RefuseWhen:
    (edit,) = mend.edits
    assert isinstance(edit, RefuseWhen)
    return edit


def asked(label: str) -> list[Conversation]:
    return [Conversation.ask(e.prompt, blank_image(16)) for e in DATA.examples if e.label == label]


@pytest.mark.parametrize(
    ("tells", "wanted"),
    [
        ([False, True, True, False, True], (1, 2)),
        ([True, False, True, True, True], (2, 3, 4)),
        ([True, False, False, True], (0,)),
        ([False, False, False], (0, 1, 2)),
    ],
)
def test_the_longest_run_of_layers_worked_out_by_hand(tells: list[bool], wanted: tuple[int, ...]) -> None:
    assert longest_run(tells) == wanted


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(0.0, 0.55), (0.24, 0.55), (0.25, 0.35), (0.5, 0.25), (0.75, 0.125)],
)
def test_the_threshold_worked_out_by_hand(share: float, wanted: float) -> None:
    """Benign 0.1, 0.2, 0.3, 0.4 and harmful 0.15, 0.7: half way from the last one kept to the next above."""
    benign, harmful = torch.tensor([0.3, 0.1, 0.4, 0.2]), torch.tensor([0.7, 0.15])
    found = threshold_of(harmful, benign, share)
    assert found == pytest.approx(wanted)
    assert int((benign > found).sum()) == int(share * 4)


def test_the_threshold_is_the_highest_score_where_nothing_lies_above() -> None:
    assert threshold_of(torch.tensor([0.1]), torch.tensor([0.5, 0.25]), 0.0) == 0.5


def test_the_area_worked_out_by_hand() -> None:
    """0.5 (0.2 + 0.4) + 0.5 (0.4 + 0.1) = 0.55; a single layer is the cosine itself."""
    found = torch.tensor([[0.9, 0.2, 0.4, 0.1]])
    assert area(found, (1, 2, 3)).tolist() == pytest.approx([0.55])
    assert area(found, (0,)).tolist() == pytest.approx([0.9])


def test_scores_read_at_once_are_those_of_the_interpreter(tiny: VLM) -> None:
    tokens = refusal_tokens(tiny.processor.tokenizer)
    states = read_states(tiny, DATA.labelled("benign"), with_image(blank_image(16)))
    once = cosines(tiny, states, tokens)
    for layer in range(tiny.layers):
        torch.testing.assert_close(once[:, layer], tiny.lens(asked("benign"), [layer], tokens), atol=1e-5, rtol=0)
    torch.testing.assert_close(area(once, (1, 2, 3)), tiny.lens(asked("benign"), (1, 2, 3), tokens), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 1), (0.5, 2)])
def test_the_share_of_benign_anchors_is_declined_and_no_more(tiny: VLM, share: float, count: int) -> None:
    mend = HiddenDetect(false_alarms=share, reply="No.").fit(tiny, DATA, seed=0)
    replies = tiny.with_mend(mend).generate(asked("benign"), Sampling(max_new_tokens=4))
    assert sum(reply.text == "No." for reply in replies) == count


def test_what_scores_above_the_threshold_is_declined(tiny: VLM) -> None:
    mend = HiddenDetect(false_alarms=0.5, layers="1-3").fit(tiny, DATA, seed=0)
    edit = only_edit(mend)
    assert edit.layers == (1, 2, 3)
    batch = asked("harmful") + asked("benign")
    above = (tiny.lens(batch, edit.layers, edit.token_ids) > edit.threshold).tolist()
    replies = tiny.with_mend(mend).generate(batch, Sampling(max_new_tokens=4))
    assert [reply.text == edit.reply for reply in replies] == above
    assert {True, False} == set(above)


def test_chosen_layers_tell_the_anchors_apart(tiny: VLM) -> None:
    edit = only_edit(HiddenDetect().fit(tiny, DATA, seed=0))
    means = {
        label: [float(tiny.lens(asked(label), [layer], edit.token_ids).mean()) for layer in range(tiny.layers)]
        for label in ("harmful", "benign")
    }
    tells = [harmful > benign for harmful, benign in zip(means["harmful"], means["benign"], strict=True)]
    assert any(tells)
    assert edit.layers == longest_run(tells)


def test_first_letters_stand_for_words_where_tokens_are_letters(tiny: VLM) -> None:
    tokens = refusal_tokens(tiny.processor.tokenizer)
    assert {tiny.processor.tokenizer.decode([token]) for token in tokens} == {word[0] for word in WORDS}


def words_only(*words: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_whole_words_are_taken_once_and_unknown_ones_dropped() -> None:
    """sorry is 2, Sorry 3, Unable 4; the other words are unknown."""
    assert refusal_tokens(words_only("table", "sorry", "Sorry", "Unable")) == (2, 3, 4)


def test_a_tokenizer_without_any_of_the_words_is_refused() -> None:
    with pytest.raises(UsageError, match="no word of refusal"):
        refusal_tokens(words_only("table"))


def test_a_target_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(NeedsAccess, match="needs the weights of scripted, of which only replies, states can be had"):
        HiddenDetect().fit(ScriptedTarget(lambda c, mended: ""), DATA, seed=0)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(tiny: VLM, share: float) -> None:
    with pytest.raises(BadParameter, match="false_alarms"):
        HiddenDetect(false_alarms=share).fit(tiny, DATA, seed=0)


def test_mends_of_the_target_do_not_change_the_fit(tiny: VLM) -> None:
    """The detector reads the bare model at inference, whatever other mends are on."""
    mended = tiny.with_mend(CMRM(alpha=3.0, mode="full").fit(tiny, DATA, seed=0))
    assert HiddenDetect().fit(mended, DATA, seed=0).digest == HiddenDetect().fit(tiny, DATA, seed=0).digest
