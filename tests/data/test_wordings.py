"""More wordings and more requests, for training alone."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from vlmend.core.splits import split_of
from vlmend.data.requests import Kind, Request, builtin_requests
from vlmend.data.wordings import FORMS, HELD_OUT_FORMS, Family, Form, training_requests, worded

SHARED = Path(__file__).parents[3] / "shared" / "data"
KINDS: tuple[Kind, ...] = get_args(Kind)
ASKER = re.compile(r"\s(I|me|my|mine|myself)\b")
NEAR = 0.6
"""Token Jaccard index from which two texts count as copies."""

requests = st.sampled_from([request for kind in KINDS for request in training_requests(kind)])


def more(kind: Kind) -> list[Request]:
    """The rows that are for training alone."""
    return [request for request in training_requests(kind) if "-more-" in request.id]


def intents(kind: Kind) -> list[str]:
    """The verb phrases trained on."""
    return [request.intent for request in training_requests(kind) if request.intent != request.prompt]


def nearest(ours: list[str], theirs: list[str]) -> float:
    """The highest token Jaccard index of two texts, one of each list."""
    count = CountVectorizer(binary=True, token_pattern=r"[a-z0-9]+").fit(ours + theirs)
    a, b = count.transform(ours), count.transform(theirs)
    shared = (a @ b.T).toarray()
    return float((shared / (a.sum(axis=1) + b.sum(axis=1).T - shared)).max())


@pytest.mark.parametrize("form", FORMS + HELD_OUT_FORMS, ids=lambda form: form.text)
def test_a_form_is_one_piece_of_text_with_one_slot(form: Form) -> None:
    assert form.text.count("{}") == 1
    assert form.text[-1] in ".?"
    assert form.text[0].isupper() or form.text.startswith("{}")


def test_every_form_is_another_text_and_every_family_has_some() -> None:
    texts = [form.text for form in FORMS + HELD_OUT_FORMS]
    assert len(set(texts)) == len(texts)
    assert {form.family for form in FORMS} == set(get_args(Family))
    assert len(HELD_OUT_FORMS) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_every_wording_is_clean(kind: Kind) -> None:
    """No doubled word, no double space, a capital first; somebody else has nothing of the asker's."""
    for intent in intents(kind):
        for form in FORMS + HELD_OUT_FORMS:
            if form.fits(intent):
                wording = form.ask(intent)
                assert not re.search(r"\b(\w+) \1\b|  ", wording), wording
                assert wording[0].isupper(), wording
        assert not ASKER.search(Form("plain", "{}.", "other").ask(intent)), intent


def test_wordings_worked_out_by_hand() -> None:
    other = Form("question", "How can someone {}?", "other")
    assert other.ask("hide my cap that I like") == "How can someone hide their cap that they like?"
    assert other.ask("mine coins that are not mine") == "How can someone mine coins that are not theirs?"
    assert other.ask("say that I am by myself") == "How can someone say that they are by themselves?"
    assert Form("plain", "{}.").ask("write to the United Nations") == "Write to the United Nations."


@pytest.mark.parametrize(
    ("family", "intent", "fits"),
    [
        ("order", "write a poem", True),
        ("order", "explain rain", True),
        ("order", "bake bread", False),
        ("terse", "write a poem", True),
        ("terse", "explain rain", False),
        ("plain", "explain rain", True),
    ],
)
def test_a_form_fits_who_can_do_it(family: Family, intent: str, fits: bool) -> None:
    assert {form.fits(intent) for form in FORMS if form.family == family} == {fits}


@given(requests, st.integers())
def test_a_wording_is_drawn_by_the_seed_and_never_in_held_out_words(request: Request, seed: int) -> None:
    wording = worded(request, random.Random(seed))
    assert wording == worded(request, random.Random(seed))
    assert split_of(wording) != "held_out"


def test_forms_give_away_nothing() -> None:
    """Harmful and harmless intents are asked in each family equally often."""
    shares: list[dict[str, float]] = []
    for kind in KINDS:
        rng, drawn = random.Random(0), Counter[str]()
        asked = [request for request in training_requests(kind) if request.intent != request.prompt]
        for request in rng.choices(asked, k=4000):
            families = {form.ask(request.intent).rstrip("."): form.family for form in FORMS}
            drawn[families[worded(request, rng).rstrip(".")]] += 1
        shares.append({family: drawn[family] / 4000 for family in get_args(Family)})
    assert all(max(s[f] for s in shares) - min(s[f] for s in shares) < 0.04 for f in get_args(Family))


def test_questions_that_stand_alone_open_alike() -> None:
    """Harmful and look-alike rows without an intent begin with the same words, about equally often."""
    shares: list[Counter[str]] = []
    for kind in ("harmful", "lookalike"):
        openings = [request.prompt.split()[0] for request in more(kind) if request.intent == request.prompt]
        shares.append(Counter({word: n / len(openings) for word, n in Counter(openings).items()}))
    assert set(shares[0]) == set(shares[1])
    assert all(abs(shares[0][word] - shares[1][word]) < 0.06 for word in shares[0])


def test_counts_and_categories() -> None:
    counts = {kind: len(more(kind)) for kind in KINDS}
    assert counts["harmful"] >= 400
    assert counts["lookalike"] >= 500
    assert counts["ordinary"] >= 250
    assert {r.category for r in more("harmful")} == {r.category for r in more("lookalike")}
    assert {r.category for r in more("harmful")} > {r.category for r in builtin_requests("harmful")}


def test_rows_are_distinct_within_and_across_files() -> None:
    rows = [row for kind in KINDS for row in (*builtin_requests(kind), *more(kind))]
    assert max(Counter(row.intent.lower() for row in rows).values()) == 1
    assert max(Counter(row.id for row in rows).values()) == 1


def test_nothing_trained_on_is_near_a_row_that_is_kept_for_measuring() -> None:
    ours = [row.intent for kind in KINDS for row in more(kind)]
    kept = [row.intent for kind in KINDS for row in builtin_requests(kind) if row.split != "train"]
    assert nearest(ours, kept) < NEAR


@pytest.mark.parametrize(
    "name",
    [
        "xstest/prompts",
        "advbench/harmful_behaviors",
        "strongreject/prompts",
        "jailbreakbench/harmful",
        "catqa/english",
        "figstep/safebench",
        "harmbench/text_behaviors",
        "jailbreak_llms/forbidden_questions",
    ],
)
def test_no_row_is_near_one_of_a_public_set(name: str) -> None:
    file = SHARED / f"{name}.jsonl"
    if not file.exists():
        pytest.skip("shared/data is not beside this checkout")
    theirs = [json.loads(line)["prompt"] for line in file.read_text("utf-8").splitlines()]
    ours = [text for kind in KINDS for row in more(kind) for text in {row.prompt, row.intent}]
    assert nearest(ours, theirs) < NEAR
