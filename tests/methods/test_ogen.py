"""OGEN: what the generator makes and can learn, which things are near, and that without its terms it is CoOp."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmend.core.dual_edits import InsertTokens
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.errors import BadData, BadParameter
from vlmend.methods.robustness.maple import Maple
from vlmend.methods.robustness.ogen import Generator, Known, Ogen, nearest
from vlmend.testing import tiny_clip

NAMES = ("ant", "bee", "cat", "dog")
SEEN = [Example(str(k), image=noise_image(16, k), answers=(NAMES[k % 4],)) for k in range(8)]
TOLD = [Example(name, answers=(name,)) for name in ("elk", "fox", "gnu", "ant")]
DATA = Dataset("named", (*SEEN, *TOLD))
QUICK = Ogen(steps=3, batch=4, rate=0.05, generator_steps=3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def words_of(mend: Mend) -> Tensor:
    (edit,) = (edit for edit in mend.edits if isinstance(edit, InsertTokens))
    return edit.tokens


def test_without_made_up_pictures_it_is_coop_bit_for_bit_and_with_them_it_is_not() -> None:
    target = tiny_clip()
    coop = words_of(Maple(depth=1, visual=False, steps=3, batch=4, rate=0.05).fit(target, DATA, seed=0))
    assert torch.equal(words_of(replace(QUICK, synthetic=0.0).fit(target, DATA, seed=0)), coop)
    assert not torch.equal(words_of(QUICK.fit(target, DATA, seed=0)), coop)


def test_what_it_makes_has_length_1() -> None:
    made = Generator(8, 0)(drawn(5, 8), drawn(5, 3, 8, seed=1), drawn(5, 3, 8, seed=2))
    torch.testing.assert_close(made.norm(dim=1), torch.ones(5))


def test_the_nearest_are_the_best_first_and_never_the_thing_itself() -> None:
    """Cosines of the first with the others: 0.8, 0.6 and 0."""
    rows = torch.tensor([[1.0, 0], [0.8, 0.6], [0.6, -0.8], [0, 1.0]])
    assert nearest(rows, rows, 2, others=True)[0].tolist() == [1, 2]
    assert nearest(rows[:1], rows, 2).tolist() == [[0, 1]]
    found = nearest(drawn(20, 4), drawn(20, 4), 5, others=True)
    assert all(place not in row for place, row in enumerate(found.tolist()))


def test_statistics_of_things_by_hand() -> None:
    """Pictures (0, 1) and (2, 1) of the first thing: mean (1, 1), spread (1, 0); one picture has no spread."""
    images = torch.tensor([[0.0, 1], [3, 3], [2, 1], [5, 0]])
    known = Known(drawn(3, 2), drawn(1, 2, seed=1), images, torch.tensor([0, 1, 0, 2]), 1, 0)
    assert known.means.tolist() == [[1, 1], [3, 3], [5, 0]]
    assert known.spreads.tolist() == [[1, 0], [0, 0], [0, 0]]


def test_made_up_pictures_come_with_the_text_that_is_right_for_them() -> None:
    """Two rows, of things 0 and 2, with 2 neighbours: each makes itself once, 2 known things and 2 new ones."""
    known = Known(drawn(4, 8), drawn(3, 8, seed=1), drawn(4, 8, seed=2), torch.arange(4), 2, 0)
    (own, own_right), (near, near_right), (new, new_right) = known.of(drawn(2, 8), torch.tensor([0, 2]), 0)
    assert own_right.tolist() == [0, 2]
    assert near_right.tolist() == [*known.near[0].tolist(), *known.near[2].tolist()]
    assert new_right.tolist() == [4 + place for row in (0, 2) for place in known.near_new[row].tolist()]
    assert [len(part) for part in (own, near, new)] == [2, 4, 4]


def test_where_pictures_are_a_linear_map_of_texts_new_things_are_made_as_they_would_look() -> None:
    """200 things learnt, 50 never seen, each from its 3 nearest: cosine 0.95 or more on average."""
    width = 16
    turn, _ = torch.linalg.qr(drawn(width, width, seed=5))
    texts = normalize(drawn(250, width), dim=1)
    images = texts @ turn.T
    known = Known(texts[:200], texts[200:], images[:200], torch.arange(200), 3, 0)
    known.learn(150)
    near = nearest(texts[200:], texts[:200], 3)
    made = known.generator(texts[200:], texts[near], images[near])
    assert float((made * images[200:]).sum(1).mean()) >= 0.95


def test_too_few_names_and_parameters_out_of_range_are_refused() -> None:
    target = tiny_clip()
    with pytest.raises(BadData, match="pictures of 4 things and names of 0 others"):
        QUICK.fit(target, Dataset("no names", tuple(SEEN)), seed=0)
    with pytest.raises(BadData, match="pictures of 3 things"):
        QUICK.fit(target, Dataset("few", (*SEEN[:3], *TOLD)), seed=0)
    wrongs = ({"synthetic": 1.5}, {"neighbours": 0}, {"generator_steps": 0}, {"rate": 0.0})
    for wrong in wrongs:
        with pytest.raises(BadParameter, match=next(iter(wrong))):
            Ogen(**wrong)
