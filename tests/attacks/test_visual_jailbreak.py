"""visual_jailbreak: a linear case by hand, one picture for all requests, the corpus, and its controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.attacks.two_words import TwoWords, mended

from vlmend.attacks.safety.visual_jailbreak import CORPUS, VisualJailbreak, read_corpus
from vlmend.core.attacks import Budget
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter, UsageError
from vlmend.testing import tiny_vlm

ROWS = tuple(
    Example(str(k), f"how {k}", "harmful", image=noise_image(16, k), answers=("no",)) for k in range(4)
)  # fmt: skip
DATA = Dataset("d", ROWS)


def corpus(folder: Path, text: str) -> str:
    file = folder / "corpus.txt"
    file.write_text(text)
    return str(file)


def levels(row: Example) -> np.ndarray:
    assert row.image is not None
    return np.asarray(row.image.decode(), dtype=int)


def test_on_a_linear_model_every_pixel_ends_at_epsilon_in_the_direction_of_its_weight(tmp_path: Path) -> None:
    """The loss falls in w . x alone, so the best change is epsilon sign w, and w . x grows by epsilon |w|_1."""
    weight = torch.tensor([0.5, -1.0, 2.0] * 4)
    attack = VisualJailbreak(corpus(tmp_path, "yes"), picture="grey")
    made = attack.run(TwoWords(weight, 0.4), DATA, Budget(16 / 255, 40), seed=0)
    moved = levels(made.examples[0]) - 128
    assert np.array_equal(moved.transpose(2, 0, 1).ravel(), 16 * np.sign(weight.numpy()))


def test_every_request_gets_the_same_picture_and_what_was_asked_stays(tmp_path: Path) -> None:
    attack = VisualJailbreak(corpus(tmp_path, "yes"), picture="grey")
    made = attack.run(TwoWords(torch.tensor([1.0, -1.0] * 6), 0.3), DATA, Budget(16 / 255, 20), seed=0)
    assert len({row.image.digest for row in made.examples if row.image}) == 1
    assert [row.prompt for row in made.examples] == [row.prompt for row in ROWS]
    told = [row.attributes for row in made.examples]
    assert {(one["clean"], one["noise"], one["attacked"]) for one in told} == {("right", "right", "wrong")}
    assert {one["carrier"] for one in told} == {"optimised"}
    assert [one["forward"] for one in told] == ["20", "0", "0", "0"]


def test_for_each_request_a_picture_of_its_own(tmp_path: Path) -> None:
    attack = VisualJailbreak(corpus(tmp_path, "yes"), per_request=True)
    made = attack.run(TwoWords(torch.ones(12), 100.0), DATA, Budget(8 / 255, 3), seed=0)
    assert len({row.image.digest for row in made.examples if row.image}) == 4
    assert {row.attributes["forward"] for row in made.examples} == {"3"}


def test_the_loss_falls_on_a_real_model_and_the_mend_is_part_of_it() -> None:
    base = tiny_vlm(0)
    attack, data = VisualJailbreak(texts=2, alpha=4 / 255), Dataset("d", ROWS[:1])
    for view in (base, mended(base)):
        made = attack.run(view, data, Budget(32 / 255, 8), seed=0)
        before = attack.seen(attack.task(view, data), ROWS[:1])[0]
        losses: list[float] = []
        for row in (before, made.examples[0]):
            asked = [replace(row, prompt="").conversation] * len(CORPUS)
            losses.append(-float(torch.stack([one.mean() for one in view.logprobs(asked, CORPUS)]).mean()))
        assert losses[1] < losses[0]


def test_a_corpus_is_lines_or_rows_with_a_prompt(tmp_path: Path) -> None:
    rows = read_corpus(corpus(tmp_path, 'one\n\n{"prompt": "p", "reply": "two"}\n'))
    assert [(row.prompt, row.attributes["target"]) for row in rows] == [("", "one"), ("p", "two")]
    assert len(read_corpus("")) == len(CORPUS)
    for text in ("", '{"prompt": "p"}', "{"):
        with pytest.raises(UsageError, match="corpus"):
            read_corpus(corpus(tmp_path, text))
    with pytest.raises(UsageError, match="cannot be read"):
        read_corpus(str(tmp_path / "none"))


def test_nothing_harmful_to_ask_is_refused_and_epsilon_0_changes_nothing() -> None:
    model = TwoWords(torch.ones(12), 0.0)
    assert VisualJailbreak().run(model, DATA, Budget(0.0), seed=0) is DATA
    with pytest.raises(BadData, match="has no row that visual_jailbreak can attack"):
        VisualJailbreak().run(model, Dataset("d", (Example("a", "hello", "benign"),)), Budget(8 / 255), seed=0)


@pytest.mark.parametrize("wrong", [{"texts": 0}, {"alpha": 0.0}])
def test_parameters_that_move_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadParameter):
        VisualJailbreak(**wrong)  # pyright: ignore[reportArgumentType]
