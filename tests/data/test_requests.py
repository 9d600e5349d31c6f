"""The built-in requests and the readers of data files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from vlmend.core.splits import SPLITS, word_fraction
from vlmend.data.requests import FRAMES, builtin_requests
from vlmend.data.sources import builtin_dataset, read_jsonl
from vlmend.errors import BadData

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_counts_and_categories() -> None:
    harmful, lookalike = builtin_requests("harmful"), builtin_requests("lookalike")
    assert len(harmful) >= 300
    assert len(lookalike) >= 300
    assert len({r.category for r in harmful}) >= 10
    assert {r.category for r in harmful} == {r.category for r in lookalike}


def test_every_request_is_one_short_sentence_or_two() -> None:
    for kind in ("harmful", "lookalike", "ordinary"):
        assert max(len(r.prompt.split()) for r in builtin_requests(kind)) <= 24


def test_intents_are_distinct_within_and_across_kinds() -> None:
    intents = [r.intent.lower() for kind in ("harmful", "lookalike", "ordinary") for r in builtin_requests(kind)]
    assert max(Counter(intents).values()) == 1


def test_no_wording_of_a_held_out_intent_is_trained_on() -> None:
    from vlmend.phantom.chat.recipe import RECIPES
    from vlmend.phantom.chat.rows import draw_rows, prompts_to_distil

    recipe = RECIPES["phantom"]
    replies = dict.fromkeys(prompts_to_distil(recipe), "reply")
    trained = {row.prompt for step in range(60) for row in draw_rows(recipe, recipe.beside, "beside", step, replies)}
    kept = {
        wording
        for kind in ("harmful", "lookalike", "ordinary")
        for split in ("held_out", "validation", "anchor")
        for request in builtin_requests(kind, split)
        for wording in request.wordings()
    }
    assert len(trained) > 300
    assert not trained & kept


def test_frames_give_away_nothing() -> None:
    """Harmful and look-alike rows share their wordings: no frame tells them apart."""
    shares = []
    for kind in ("harmful", "lookalike"):
        rows = builtin_requests(kind)
        counts = Counter(next(k for k, f in enumerate(FRAMES) if f.format(r.intent) == r.prompt) for r in rows)
        shares.append([counts[k] / len(rows) for k in range(len(FRAMES))])
    assert all(abs(a - b) < 0.06 for a, b in zip(*shares, strict=True))


def test_the_splits_have_their_shares() -> None:
    rows = [r for kind in ("harmful", "lookalike", "ordinary") for r in builtin_requests(kind)]
    held = sum(r.split == "held_out" for r in rows) / len(rows)
    assert abs(held - SPLITS["held_out"]) < 0.03
    assert all(r.split == "held_out" for r in rows if word_fraction(r.intent) < 0.30)


def test_bad_rows_are_all_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "label": "harmful"}\n{"prompt": ""}\nnot json\n{"prompt": 3, "label": "odd"}\n')
    with pytest.raises(BadData) as problem:
        read_jsonl(file)
    assert all(f"line {n}" in problem.value.message for n in (2, 3, 4))
    assert "line 1:" not in problem.value.message


def test_image_paths_count_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "a", "label": "benign", "image": "pictures/a.png"}) + "\n")
    image = read_jsonl(file).examples[0].image
    assert image is not None
    assert image.source == tmp_path / "pictures" / "a.png"


def test_anchors_are_the_anchor_split() -> None:
    anchors = builtin_dataset(("harmful", "lookalike"), "anchor")
    assert len(anchors.labelled("harmful")) == len(builtin_requests("harmful", "anchor"))


@pytest.mark.parametrize(
    ("name", "rows"),
    [("strongreject/prompts.jsonl", 214), ("catqa/english.jsonl", 360), ("advbench/harmful_behaviors.jsonl", 376)],
)
def test_public_sets_need_only_a_label(name: str, rows: int, tmp_path: Path) -> None:
    if not (SHARED / name).exists():
        pytest.skip("shared/data is not beside this checkout")
    given = [json.loads(line) for line in (SHARED / name).read_text().splitlines()]
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row | {"label": "harmful"}) + "\n" for row in given))
    assert len(read_jsonl(file).examples) == rows
