"""Where a red team looks next: what each search does with what it was told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
from tools.redteam import embedded, hunt, proxy

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.errors import BadData, BadParameter
from vlmend.redteam.novelty import distinct_2
from vlmend.redteam.search import SEARCHES, Search, SearchKind, Weights
from vlmend.redteam.space import Space, Try, carriers_in, read_templates, space_of

WORDS = [f"{a}{b}" for a in ("bo", "da", "fi", "ku", "le", "mi") for b in ("x", "z", "q", "v", "j")]


def letters(texts: Sequence[str]) -> np.ndarray:
    counts = np.array([[text.lower().count(chr(97 + k)) + 0.01 for k in range(26)] for text in texts])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def space(goals: int = 30, forms: int = 4, carriers: str = "text,blank") -> Space:
    rows = tuple(Example(word, f"What is {word}?", group=word) for word in WORDS[:goals])
    return space_of(Dataset("d", rows), read_templates()[:forms], carriers_in(carriers))


def ran(kind: SearchKind, given: Space, budget: int, leaks: set[str], seed: int = 0) -> list[Try]:
    search = Search(kind, given, letters, seed)
    tried: list[Try] = []
    while len(tried) < budget:
        tries = search.propose(8)
        search.learn(tries, [float(given.goals[one.goal].id in leaks) for one in tries])
        tried += tries
    return tried[:budget]


@pytest.mark.parametrize("kind", SEARCHES)
def test_nothing_is_tried_twice_and_everything_in_the_end(kind: SearchKind) -> None:
    given = space(goals=3, forms=2, carriers="text,noise")
    search = Search(kind, given, letters, 0)
    assert given.size == 3 * 2 * (1 + 4)
    tried = search.propose(1000)
    assert len(tried) == len(set(tried)) == given.size
    assert search.propose(1) == []


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_seed_gives_the_same_tries_and_a_resumed_search_goes_on_alike(kind: SearchKind) -> None:
    given = space()
    whole = ran(kind, given, 32, {WORDS[3]})
    assert whole == ran(kind, given, 32, {WORDS[3]})
    again = Search(kind, given, letters, 0)
    again.resume(whole[:16], [float(given.goals[one.goal].id == WORDS[3]) for one in whole[:16]])
    assert again.propose(8) == whole[16:24]
    assert whole != ran(kind, given, 32, {WORDS[3]}, seed=1)


def test_reward_alone_goes_on_with_what_worked_and_novelty_goes_elsewhere() -> None:
    given, leaks = space(), {WORDS[3], WORDS[17]}
    tried = {
        kind: Counter(given.goals[one.goal].id in leaks for one in ran(kind, given, 80, leaks)) for kind in SEARCHES
    }
    assert tried["reward"][True] > tried["novelty"][True]
    assert tried["reward"][True] > tried["random"][True]


def test_novelty_tries_more_goals_than_chance() -> None:
    given = space()
    goals = {kind: len({one.goal for one in ran(kind, given, 30, set())}) for kind in ("novelty", "random")}
    assert goals["novelty"] > goals["random"]


def test_a_mode_that_was_found_is_worth_nothing_again_to_novelty() -> None:
    given = space(goals=2, forms=4, carriers="text")
    search = Search("novelty", given, letters, 0, Weights(0.0, 0.0, 0.01))
    (first,) = search.propose(1)
    search.learn([first], [1.0])
    (second,) = search.propose(1)
    assert second.goal != first.goal


def test_templates_that_work_are_learnt() -> None:
    given = space(carriers="noise")
    search = Search("reward", given, letters, 0)
    rng = random.Random(0)
    for _ in range(10):
        tries = search.propose(8)
        search.learn(tries, [float(one.template == 2 and rng.random() < 0.5) for one in tries])
    assert Counter(one.template for one in search.propose(8)).most_common(1)[0][0] == 2


def test_weights_and_names_are_checked() -> None:
    with pytest.raises(BadParameter, match="entropy"):
        Weights(entropy=0.0)
    with pytest.raises(BadParameter, match="no carrier video"):
        carriers_in("text,video")
    with pytest.raises(BadData, match="None of the 1 rows"):
        space_of(Dataset("d", (Example("a", "x", "benign"),)), read_templates(), carriers_in(""))


def test_goals_without_a_picture_are_not_tried_beside_their_own() -> None:
    rows = (Example("a", "what is a?"), Example("b", "what is b?", image=noise_image(8, 0)))
    given = space_of(Dataset("d", rows), read_templates()[:1], carriers_in("text,own"))
    assert given.size == 3
    assert sorted(Search("random", given, letters, 0).propose(9)) == [
        Try(0, 0, "text"),
        Try(1, 0, "own"),
        Try(1, 0, "text"),
    ]


@pytest.mark.slow
def test_hidden_triggers_by_search() -> None:
    """5 hidden words of 200 at equal budgets, median of ten seeds; the table is in docs/guides/redteam.md."""
    found = {kind: median(hunt(kind, proxy("word", k), 200, k, embedded)[0] for k in range(10)) for kind in SEARCHES}
    assert found["novelty"] >= 4
    assert found["reward"] < found["novelty"]
    assert found["random"] < found["novelty"]
    ways = {k: hunt("novelty", proxy("word", k), 200, k, embedded, verdicts="none")[1] for k in range(2)}
    chance = {k: hunt("random", proxy("word", k), 200, k, embedded)[1] for k in range(2)}
    for k in range(2):
        words = proxy("word", k).space.words
        assert distinct_2([words(one) for one in ways[k]]) > distinct_2([words(one) for one in chance[k]])
