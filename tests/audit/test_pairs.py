"""Pairs side by side: who is paired, what the page gets, which side is whose, and agreement by groups of raters."""

from __future__ import annotations

import json
import random
import socket
import stat
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from tests.audit.test_labelling import written
from typer.testing import CliRunner

from vlmend.audit.labels.agreeing import pair_report
from vlmend.audit.labels.page import label_app
from vlmend.audit.labels.pairs import PairItem, PairRow, counterparts, pair_folder, pair_queue
from vlmend.audit.labels.raters import attributes_of, keep_attributes, rater_file
from vlmend.audit.labels.session import Session, rows_in
from vlmend.cli import app
from vlmend.errors import BadData, BadParameter, UsageError

POLARITY = "fairness/caption_polarity"
TRADES = ("smith", "nurse", "pilot", "clerk")


def person(trade: str, group: str, reply: str, pair: str = "", **more: Any) -> dict[str, Any]:
    row = {
        "suite": POLARITY, "id": f"{trade}-{group}-{pair}", "condition": "original", "group": group, "category": trade,
        "label": "right", "reason": "", "prompt": "Who is this?", "reply": reply, "stop": "stop", "image": None,
        "pair": pair,
    }  # fmt: skip
    return row | more


def people(run: Path, count: int = 24, man: str = "an able", woman: str = "a kind") -> Path:
    """Pairs of a man and a woman, described in words of their own."""
    rows = [
        person(TRADES[k % 4], group, f"{words} {TRADES[k % 4]}, number {k}", f"{k}")
        for k in range(count)
        for group, words in (("woman", woman), ("man", man))
    ]  # fmt: skip
    return written(run, rows)


def say(run: Path, name: str, *labels: str, n: int = 1000) -> None:
    """One label after the other in the rater's queue; "first" and "second" are put on the side that they stand on."""
    file = pair_folder(run) / f"{name}.jsonl"
    session = Session(pair_queue(run, n, 0, name), file, PairRow)
    for index, label in enumerate(labels):
        item = session.queue[index]
        assert isinstance(item, PairItem)
        sides = {"first": "right" if item.swapped else "left", "second": "left" if item.swapped else "right"}
        session.label(index, sides.get(label, label), 1.0)


def test_counterparts_are_rows_of_one_pair_and_two_known_groups(tmp_path: Path) -> None:
    rows = [
        person("smith", "man", "one", "a"), person("smith", "woman", "two", "a"), person("smith", "unknown", "x", "a"),
        person("smith", "man", "three", "b"), person("smith", "woman", "", "b"),  # no words: no pair
        person("nurse", "man", "four"), person("nurse", "woman", "five"), person("nurse", "woman", "six"),
        person("clerk", "man", "other suite", "c", suite="safety/x"),
        person("clerk", "woman", "other suite", "c", suite="safety/x"),
    ]  # fmt: skip
    pairs = counterparts(written(tmp_path, rows))
    assert [(one.names, one.first[0].reply, one.second[0].reply) for one in pairs] == [
        (("man", "woman"), "one", "two"), (("man", "woman"), "four", "five"),
    ]  # fmt: skip


def test_the_built_in_people_of_a_suite_come_in_pairs_that_differ_in_their_group_alone() -> None:
    from vlmend.audit.suites.fairness.caption_polarity import SUITE

    held: dict[str, set[str]] = {}
    for one in SUITE.questions(None, None):
        held.setdefault(f"{one.pair} {one.category}", set()).add(one.group)
    assert len(held) == 40
    assert all(groups == {"man", "woman"} for groups in held.values())


def test_pairs_of_equal_words_are_counted_and_not_asked(tmp_path: Path) -> None:
    run = people(tmp_path, 4, man="a good", woman="a good")
    assert [pair.equal for pair in counterparts(run)] == [True] * 4
    with pytest.raises(UsageError, match="say the same"):
        pair_queue(run, 10, 0, "ann")


def test_each_side_holds_the_first_reply_as_often_and_a_larger_draw_adds_to_the_end(tmp_path: Path) -> None:
    run = people(tmp_path)
    queue = pair_queue(run, 24, 3, "ann")
    assert all(sum(item.swapped for item in queue[:even]) == even // 2 for even in range(2, 25, 2))
    assert queue[:10] == pair_queue(run, 10, 3, "ann")
    bob = pair_queue(run, 24, 3, "bob")
    assert [one.pair for one in bob] == [one.pair for one in queue]  # the same pairs in the same order, other sides
    assert [one.swapped for one in bob] != [one.swapped for one in queue]


def test_a_side_is_brought_back_to_whose_it_was_whatever_the_page_showed(tmp_path: Path) -> None:
    run = people(tmp_path, 8)
    say(run, "ann", *(["first"] * 8))
    rows = list(rows_in(pair_folder(run) / "ann.jsonl", PairRow).values())
    assert [row.label for row in rows] == ["first"] * 8
    assert sum(row.swapped for row in rows) == 4
    report = pair_report(run)
    (lean,) = report["leans"]
    assert (lean["first"], lean["second"], lean["counts"]["first"], lean["lean"]["value"]) == ("man", "woman", 8, 1.0)
    assert report["labellers"][0]["left"]["value"] == 0.5  # of a rater without a habit


def test_who_always_takes_the_left_favours_nobody_and_is_told(tmp_path: Path) -> None:
    run = people(tmp_path)
    file = pair_folder(run) / "ann.jsonl"
    session = Session(pair_queue(run, 24, 0, "ann"), file, PairRow)
    for index in range(24):
        session.label(index, "left", 1.0)
    report = pair_report(run)
    assert report["leans"][0]["lean"]["value"] == 0
    assert report["labellers"][0]["left"]["low"] > 0.5


def test_the_page_names_no_group_model_run_or_mend(tmp_path: Path) -> None:
    run, other = people(tmp_path / "phantom-x", man="ok"), people(tmp_path / "mended-run", man="fine")
    for against in (None, other):
        queue = pair_queue(run, 24, 0, "ann", against=against)
        session = Session(queue, pair_folder(run, against) / "ann.jsonl", PairRow)
        page = TestClient(
            label_app(session, run / "images", "t", "models" if against else "people"), base_url="http://127.0.0.1:80"
        )
        assert set(page.get("/next?token=t").json()["item"]) == {"index", "prompt", "sides"}
        shown = page.get("/?token=t").text
        sent: list[str] = [shown]
        for index in range(24):
            sent.append(page.get("/next?token=t").text)
            assert page.post("/label?token=t", json={"index": index, "label": "alike", "seconds": 1}).status_code == 200
        hidden = ("phantom", "mended", "caption_polarity", "original", "swapped", '"first"', "woman", "digest")
        assert not [word for word in hidden if any(word in one for one in sent)]
        for label in ("first", "compliance"):
            bad = page.post("/label?token=t", json={"index": 0, "label": label, "seconds": 1})
            assert bad.status_code == 422


def test_two_runs_stand_side_by_side_with_both_people_of_a_pair(tmp_path: Path) -> None:
    run, other = people(tmp_path / "a", 6), people(tmp_path / "b", 6, man="a kind")
    queue = pair_queue(run, 6, 0, "ann", against=other)
    for item in queue:
        sides = [[one["reply"] for one in side] for side in item.shown(lambda name: name)["sides"]]
        (pair,) = [side for side in sides if any("able" in reply for reply in side)]
        assert (sides[1] == pair) == item.swapped
        number = [reply.rpartition(",")[2] for side in sides for reply in side]
        assert len(set(number)) == 1
        order = [["kind" in reply for reply in side] for side in sides]
        assert order.count([True, True]) == 1  # the other run says the same of both
    people(tmp_path / "c", 2)
    (tmp_path / "c" / "samples.jsonl").write_text((tmp_path / "c" / "samples.jsonl").read_text().replace("smith", "x"))
    with pytest.raises(UsageError, match="share no such pairs"):
        pair_queue(people(tmp_path / "d", 1), 6, 0, "ann", against=tmp_path / "c")


def test_alpha_and_lean_by_hand(tmp_path: Path) -> None:
    """Two raters: first/first, first/second, second/second, second/second.

    8 labels, 3 first, 5 second: alpha 1 - (2/8) / (30/56). Leans of the pairs 1, 0, -1, -1: mean -0.25.
    """
    run = people(tmp_path, 4)
    say(run, "ann", "first", "first", "second", "second")
    say(run, "bob", "first", "second", "second", "second")
    report = pair_report(run)
    assert report["alpha"]["alpha"]["value"] == pytest.approx(1 - (2 / 8) / (30 / 56))
    assert report["leans"][0]["lean"]["value"] == pytest.approx(-0.25)
    assert report["leans"][0]["counts"] == {"first": 3, "alike": 0, "second": 5}
    say(run, "cat", "unscored", "unscored")
    assert pair_report(run)["alpha"]["n"] == 4  # who cannot tell gave no label


def panel(run: Path, *, parts: bool) -> None:
    """Ten raters who slip in one of five; the five of Y see the reverse, or nothing else, of what those of X see."""
    rng = random.Random(5)
    meant = [rng.choice(("first", "second")) for _ in range(24)]
    reverse = {"first": "second", "second": "first"}
    for k in range(10):
        side = "Y" if k % 2 else "X"
        truth = [reverse[label] if parts and side == "Y" else label for label in meant]
        say(run, f"r{k}", *(reverse[label] if rng.random() < 0.2 else label for label in truth))
        keep_attributes(run, f"r{k}", [f"age={side}"])


def test_a_group_of_raters_who_part_is_found_and_a_clean_twin_is_not(tmp_path: Path) -> None:
    found: dict[bool, Any] = {}
    for parts in (True, False):
        run = people(tmp_path / str(parts))
        panel(run, parts=parts)
        found[parts] = pair_report(run, by="age")
    groups = {row["group"]: row for row in found[True]["by"]["groups"]}
    assert all(row["parting"]["p_holm"] <= 0.05 for row in groups.values())
    assert groups["X"]["parting"]["value"] > 0.2
    assert groups["X"]["alpha"]["alpha"]["low"] > found[True]["alpha"]["alpha"]["high"]  # each by itself agrees
    for row in found[False]["by"]["groups"]:
        assert row["parting"]["p_holm"] > 0.05
        assert abs(row["parting"]["value"]) < 0.1


def test_small_groups_of_raters_are_named_and_not_ranked(tmp_path: Path) -> None:
    run = people(tmp_path)
    panel(run, parts=True)
    keep_attributes(run, "r1", ["age=Z"])
    keep_attributes(run, "r3", ["age="])
    by = pair_report(run, by="age")["by"]
    assert [(row["group"], row["raters"], bool(row["note"])) for row in by["groups"]] == [
        ("X", 5, False), ("Y", 3, False), ("Z", 1, True),
    ]  # fmt: skip
    assert by["not_told"] == 1
    (small,) = [row for row in by["groups"] if row["note"]]
    assert (small["alpha"], small["leans"], small["parting"]) == (None, [], None)


def test_what_raters_tell_is_kept_apart_for_their_eyes_alone_and_told_only_when_asked(tmp_path: Path) -> None:
    run = people(tmp_path)
    say(run, "ann", "first", "second")
    keep_attributes(run, "ann", ["origin=Elsewhere", "age=30"])
    file = rater_file(run, "ann")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Elsewhere" not in (pair_folder(run) / "ann.jsonl").read_text()
    assert "Elsewhere" not in json.dumps(pair_report(run))
    asked = json.dumps(pair_report(run, by="origin"))
    assert "Elsewhere" in asked
    assert '"30"' not in asked
    with pytest.raises(BadParameter, match="NAME=VALUE"):
        keep_attributes(run, "ann", ["age=31", "nothing"])
    assert attributes_of(run, "ann") == {"origin": "Elsewhere", "age": "30"}
    keep_attributes(run, "ann", ["origin=", "age=unknown"])
    assert not file.exists()
    with pytest.raises(UsageError, match="None of the 1 raters told origin"):
        pair_report(run, by="origin")
    file.write_text('["a list"]')
    with pytest.raises(BadData, match="no attributes"):
        attributes_of(run, "ann")


def test_the_command_reports_pairs_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    run = people(tmp_path)
    panel(run, parts=True)
    told = CliRunner().invoke(app, ["label", str(run), "--about", "fairness", "--report", "--by", "age"])
    assert told.exit_code == 0, told.output
    assert "parts from the other raters by" in told.output
    plain = CliRunner().invoke(app, ["label", str(run), "--about", "fairness", "--report"])
    assert "age" not in plain.output
    whole = CliRunner().invoke(app, ["label", str(run), "--about", "fairness", "--report", "--json"])
    assert json.loads(whole.stdout)["schema"] == "vlmend/pairs/1"
    for wrong in (["--about", "x"], ["--rater", "age=3"], ["--about", "fairness", "--choose", "uncertainty"]):
        refused = CliRunner().invoke(app, ["label", str(run), *wrong])
        assert isinstance(refused.exception, UsageError)


def test_counts_of_each_label(tmp_path: Path) -> None:
    run = people(tmp_path, 6)
    say(run, "ann", "first", "alike", "unscored", "second", "alike")
    (row,) = pair_report(run)["labellers"]
    assert Counter(row["counts"]) == {"first": 1, "alike": 2, "unscored": 1, "second": 1}
    assert row["decided"] == 2


def test_two_pairs_are_labelled_by_keyboard_in_a_browser(browser: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    run = people(tmp_path, 4)
    session = Session(pair_queue(run, 4, 0, "ann"), pair_folder(run) / "ann.jsonl", PairRow)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        config = uvicorn.Config(label_app(session, run / "images", "t", "people"), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [held]}, daemon=True)
        thread.start()
        page, problems = browser.new_page(), list[str]()
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.goto(f"http://127.0.0.1:{held.getsockname()[1]}/?token=t")
        expect(page.locator("#left")).to_contain_text("number", timeout=60_000)
        page.keyboard.press("1")  # nobody labels what is still blurred
        expect(page.locator("#notice")).to_contain_text("Press B", timeout=60_000)
        page.keyboard.press("b")
        for key, count in (("1", 1), ("2", 2)):
            page.keyboard.press(key)
            expect(page.locator("#count")).to_have_text(f"{count} of 4 labelled", timeout=60_000)
        page.close()
        server.should_exit = True
        thread.join(timeout=10)
    assert not problems
    first = session.queue[0]
    assert isinstance(first, PairItem)
    kept = [row.label for row in rows_in(pair_folder(run) / "ann.jsonl", PairRow).values()]
    assert kept == ["second" if first.swapped else "first", "alike"]
