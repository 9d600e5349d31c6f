"""The page over run folders: its numbers, what it hides, and that it works in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from typer.testing import CliRunner

from browsing import axe_faults
from vlmend.audit.judges.rules import RuleJudge
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.cli import app
from vlmend.core.conversation import Conversation
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.metrics.raters import kappa_interval
from vlmend.core.metrics.stats import agreement, wilson
from vlmend.errors import UsageError
from vlmend.report.view import find_runs, view_content, view_summary, write_view
from vlmend.testing import ScriptedTarget

SUITE = "safety/alignment_gap"
UNSAFE = ("compliance", "partial")
RULES, GUARD = "rules-1", "guard-1"
HOSTILE = "</script><img src=x onerror=\"document.title='ran'\"><!-- <script>document.title='ran'</script>"
REPLIES = {
    "compliance": "Sure. First sort the parts, then put them together.",
    "refusal": "I'm sorry, but I can't help with that.",
    "off_topic": "The picture shows a red square on a pale ground.",
}


def sample(k: int, condition: str, label: str, guard: str, **changed: Any) -> dict[str, Any]:
    said = {RULES: (label, "phrase"), GUARD: (guard, "score")}
    return {
        "suite": SUITE, "id": f"request-{k:02d}:{condition}", "condition": condition, "group": "harmful",
        "category": ("tools", "words")[k % 2], "label": label, "reason": "phrase",
        "prompt": f"Stand-in for request number {k}.", "reply": REPLIES[label], "stop": "stop",
        "verdicts": {judge: {"label": given, "reason": why, "scores": {}} for judge, (given, why) in said.items()},
        "image": f"{k % 3}.png" if condition == "original" else None,
    } | changed  # fmt: skip


def measure(rows: Sequence[Mapping[str, Any]], condition: str, judge: str) -> Measure:
    here = [row for row in rows if row["condition"] == condition]
    counted = sum(row["verdicts"][judge]["label"] in UNSAFE for row in here)
    alike = sum((r["verdicts"][RULES]["label"] in UNSAFE) == (r["verdicts"][GUARD]["label"] in UNSAFE) for r in here)
    return Measure(
        "safety", SUITE, "unsafe_rate", condition, *wilson(counted, len(here)), len(here), 0, "lower", UNSAFE, judge,
        alike / len(here), compared="share",
    )  # fmt: skip


def write_run(folder: Path, rows: Sequence[Mapping[str, Any]], mends: Sequence[Mapping[str, Any]] = ()) -> Path:
    table = {judge: tuple(measure(rows, c, judge) for c in ("query", "original")) for judge in (RULES, GUARD)}
    ours, theirs = ([str(row["verdicts"][judge]["label"] in UNSAFE) for row in rows] for judge in (RULES, GUARD))
    kappa = kappa_interval(ours, theirs, seed=0)
    alike = agreement(ours, theirs)[0]
    pair = {"suite": SUITE, "a": RULES, "b": GUARD, "n": len(rows), "agreement": alike, "kappa": kappa.value}
    provenance = {"judges": {SUITE: [RULES, GUARD]}}
    versions = {"vlmend": "0.1.0"}
    Scorecard(
        "stand-in", tuple(map(dict, mends)), 0, versions, table[RULES], provenance, table[GUARD],
        (pair | {"low": kappa.low, "high": kappa.high},), complete=True,
    ).save(folder / "scorecard.json")  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cost = {"requests": len(rows), "requests_per_second": 4.5, "prompt_tokens": 900, "new_tokens": 400}
    (folder / "cost.json").write_text(json.dumps(cost))
    (folder / "images").mkdir()
    for k, colour in enumerate(("firebrick", "seagreen", "steelblue")):
        PIL.Image.new("RGB", (96, 64), colour).save(folder / "images" / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """12 requests in two conditions; the mend turns 10 of 12 answers beside a picture into refusals."""
    folder = tmp_path_factory.mktemp("runs")
    query = [sample(k, "query", "refusal", "refusal") for k in range(12)]
    before = [sample(k, "original", "compliance", "refusal" if k == 3 else "compliance") for k in range(12)]
    after = [sample(k, "original", *(("refusal",) * 2 if k < 10 else ("compliance",) * 2)) for k in range(12)]
    before[5]["reply"] = HOSTILE
    mend = {"method": "cmrm", "parameters": {"alpha": 0.8}}
    return [write_run(folder / "base", [*query, *before]), write_run(folder / "cmrm", [*query, *after], [mend])]


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_view(runs, tmp_path_factory.mktemp("page") / "view.html")


@pytest.mark.parametrize(("count", "place"), [(1, "base/view.html"), (2, "view.html")])
def test_the_page_lies_in_the_run_and_of_several_beside_them(
    runs: list[Path], tmp_path: Path, count: int, place: str
) -> None:
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs[:count]]
    CliRunner().invoke(app, ["view", *map(str, copies), "--no-open"], catch_exceptions=False)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("view.html")] == [place]


def embedded(page: Path) -> dict[str, Any]:
    """What the browser will read: the content of the first data script up to its first end tag."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_differences_are_paired_and_their_p_values_adjusted_together(page: Path) -> None:
    comparison = embedded(page)["comparisons"][0]
    query, original = (row[1] for row in comparison["rows"])
    assert (original["n"], original["fixed"], original["broken"]) == (12, 10, 0)
    assert original["value"] == pytest.approx(-10 / 12)
    assert original["p"] == pytest.approx(2 / 2**10)
    assert query["p"] == 1.0
    assert comparison["tests"] == [0, 2]
    assert original["holm"] == pytest.approx(2 * 2 / 2**10)


def test_the_other_way_round_the_difference_has_the_other_sign(page: Path) -> None:
    other = embedded(page)["comparisons"][1]
    assert other["rows"][1][0]["value"] == pytest.approx(10 / 12)
    assert other["rows"][1][1] is None


def test_requests_that_were_asked_several_times_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs[1], tmp_path / "epochs"))
    rows = [json.loads(line) for line in (copy / "samples.jsonl").read_text().splitlines()]
    asked = [row | {"asked": f"{int(row['id'][8:10]) // 2}:{row['condition']}"} for row in rows]  # each request twice
    (copy / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    assert view_content([runs[0], copy])["comparisons"][0]["tests"] == [0, 0]


def test_samples_that_do_not_give_the_runs_own_number_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs[1], tmp_path / "cut"))
    lines = (copy / "samples.jsonl").read_text().splitlines(keepends=True)
    (copy / "samples.jsonl").write_text("".join(lines[:-1]))  # one of 12 "original" samples is lost
    rows = view_content([runs[0], copy])["comparisons"][0]["rows"]
    assert rows[0][1] is not None
    assert rows[1][1] is None


def test_another_question_under_the_same_id_is_no_pair(runs: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs[1], tmp_path / "other"))
    text = (copy / "samples.jsonl").read_text().replace("request number 7.", "quite another request.")
    (copy / "samples.jsonl").write_text(text)
    found = view_content([runs[0], copy])
    assert found["comparisons"][0]["rows"][1][1]["n"] == 11
    assert len(found["samples"]) == 26  # 24, and request 7 twice more


def test_judges_disagree_where_they_count_a_reply_differently(page: Path) -> None:
    apart = [s["id"] for s in embedded(page)["samples"] if any(r["disagree"] for r in s["replies"])]
    assert apart == ["request-03:original"]


def test_a_hostile_reply_stays_data(page: Path) -> None:
    assert "<img src=x" not in page.read_text()
    replies = [s["replies"][0]["reply"] for s in embedded(page)["samples"]]
    assert replies.count(HOSTILE) == 1


def test_the_page_may_load_nothing(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_each_picture_is_on_the_page_once(page: Path) -> None:
    found = embedded(page)
    assert len(found["images"]) == 3  # three colours, in two folders
    assert {s["image"] for s in found["samples"] if s["condition"] == "original"} == {0, 1, 2}


def test_without_text_nothing_that_was_said_or_shown_is_in_the_page(runs: list[Path], tmp_path: Path) -> None:
    page = write_view(runs, tmp_path / "view.html", text=False)
    for told in ("Stand-in for", "Sure. First", "can't help", "phrase", "data:image"):
        assert told not in unescape(page.read_text().replace("\\u0027", "'"))
    assert [s["replies"][0]["label"] for s in embedded(page)["samples"]].count("compliance") == 12


def test_samples_of_older_runs_are_read_with_defaults(tmp_path: Path) -> None:
    rows = [sample(k, c, "refusal", "refusal") for k in range(2) for c in ("query", "original")]
    folder = write_run(tmp_path / "old", rows)
    kept = [{k: v for k, v in row.items() if k not in ("verdicts", "image", "stop", "category")} for row in rows]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    first = view_content([folder])["samples"][0]
    assert (first["image"], first["category"]) == (None, "")
    assert first["replies"][0]["verdicts"] == [{"judge": RULES, "label": "refusal", "reason": "phrase", "score": None}]


def test_a_picture_that_is_lost_is_left_out(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", [sample(k, c, "refusal", "refusal") for k in (0, 1) for c in ("query", "original")]
    )
    (folder / "images" / "0.png").unlink()
    found = view_content([folder])
    assert [s["image"] for s in found["samples"]] == [None, None, None, 0]


def test_every_folder_that_is_no_run_is_named(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one holds no scorecard.*two holds no scorecard"):
        write_view([tmp_path / "one", runs[0], tmp_path / "two"], tmp_path / "view.html")


def test_runs_of_the_same_name_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs[0], tmp_path / "base"))
    names = [run["name"] for run in view_summary([runs[0], copy])["runs"]]
    assert names == [str(runs[0]), str(copy)]


def test_the_summary_counts_samples_and_tells_none(runs: list[Path]) -> None:
    found = view_summary(runs)
    assert found["samples"] == 24
    assert "Stand-in" not in json.dumps(found)


def test_runs_are_found_under_a_folder(runs: list[Path], tmp_path: Path) -> None:
    assert find_runs(runs[0].parent) == runs
    with pytest.raises(UsageError, match="No finished run"):
        find_runs(tmp_path)


def test_the_page_shows_the_numbers_of_a_real_audit(tmp_path: Path) -> None:
    def drops_its_guard(conversation: Conversation, mended: bool) -> str:
        return REPLIES["compliance" if conversation.has_image else "refusal"]

    card = audit(ScriptedTarget(drops_its_guard), Plan((SUITE,), limit=3), tmp_path / "run", judges=[RuleJudge()])
    found = view_content([tmp_path / "run"])
    told = {(row["name"], row["group"]): row["cells"][0] for row in found["measures"]}
    assert {key: cell["value"] for key, cell in told.items()} == {(r.name, r.group): r.value for r in card}
    assert told["unsafe_rate", "original"]["value"] == 1.0
    assert len(found["samples"]) == 15
    assert asdict(card)["model"] == found["runs"][0]["model"]


@pytest.fixture
def tab(browser: Any, page: Path) -> Iterator[Any]:
    """The page, offline; whatever it writes to the console or asks of the network fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    context.set_default_timeout(5_000)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda problem: wrong.append(str(problem)))
    opened.on(
        "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
    )
    opened.goto(page.as_uri())
    yield opened
    context.close()
    assert wrong == []


def test_axe_finds_nothing_wrong_with_it(browser: Any, page: Path) -> None:
    assert axe_faults(browser, page) == []


def blurred(tab: Any, place: int) -> bool:
    return "blur" in tab.locator("article").nth(place).locator("p.veil").first.evaluate(
        "e => getComputedStyle(e).filter"
    )


def kept(tab: Any, folder: Path, name: str, **options: Any) -> None:
    """A screenshot for the test's folder, and for VLMEND_PICTURES where that is given."""
    tab.screenshot(path=folder / name, **options)
    assert (folder / name).stat().st_size > 0
    if os.environ.get("VLMEND_PICTURES"):
        shutil.copy(folder / name, Path(os.environ["VLMEND_PICTURES"]) / name)


def test_text_is_blurred_until_one_sample_is_asked_for(tab: Any) -> None:
    assert all(blurred(tab, place) for place in range(24))
    assert tab.locator("article").first.locator("p.veil").first.get_attribute("aria-hidden") == "true"
    tab.locator("article").nth(1).get_by_role("button", name="Show text").click()
    tab.wait_for_timeout(50)
    assert (blurred(tab, 0), blurred(tab, 1)) == (True, False)


def test_one_switch_shows_all_text(tab: Any) -> None:
    tab.get_by_role("button", name="Show all text").click()
    assert not any(blurred(tab, place) for place in range(24))
    tab.get_by_role("button", name="Blur all text").click()
    assert all(blurred(tab, place) for place in range(24))


def test_a_verdict_change_filters_the_samples(tab: Any) -> None:
    tab.get_by_label("verdict change").select_option("compliance → refusal")
    assert tab.locator("#count").inner_text().startswith("10 of 24 samples")
    assert tab.locator("article").count() == 10
    tab.get_by_label("change from").select_option(label="cmrm")
    tab.get_by_label("to", exact=True).select_option(label="base")
    tab.get_by_label("verdict change").select_option("refusal → compliance")
    assert tab.locator("article").count() == 10


@pytest.mark.parametrize(
    ("label", "value", "count"),
    [
        ("condition", "query", 12),
        ("category", "tools", 12),
        ("verdict", "1:compliance", 2),
        ("verdict", "any:refusal", 22),
    ],
)
def test_filters_keep_what_fits(tab: Any, label: str, value: str, count: int) -> None:
    tab.get_by_label(label, exact=True).select_option(value)
    assert tab.locator("article").count() == count
    tab.get_by_role("button", name="Clear").click()
    tab.wait_for_timeout(50)
    assert tab.locator("article").count() == 24


def test_words_and_disagreement_filter_too(tab: Any) -> None:
    tab.get_by_label("judges disagree").check()
    assert tab.locator("article h3").all_inner_texts() == ["request-03:original"]
    tab.get_by_label("judges disagree").uncheck()
    tab.get_by_label("words").fill("NUMBER 11.")
    assert tab.locator("article h3").all_inner_texts() == ["request-11:query", "request-11:original"]


def test_the_keyboard_walks_and_unblurs(tab: Any) -> None:
    for key in ("j", "j", "j", "k"):
        tab.keyboard.press(key)
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "sample request-01:query"
    tab.keyboard.press("b")
    assert (blurred(tab, 0), blurred(tab, 1)) == (True, False)
    tab.keyboard.press("Shift+B")
    assert not blurred(tab, 0)
    tab.get_by_label("words").press("b")
    assert not blurred(tab, 1)  # typing in a field is no command


def test_without_text_there_is_nothing_to_unblur(browser: Any, runs: list[Path], tmp_path: Path) -> None:
    tab = browser.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda problem: wrong.append(str(problem)))
    tab.goto(write_view(runs, tmp_path / "view.html", text=False).as_uri())
    tab.keyboard.press("j")
    tab.keyboard.press("b")
    assert tab.locator("article").count() == 24
    assert tab.locator(".veil, button.show, #all").count() == 0
    assert wrong == []
    tab.close()


def test_hostile_text_is_shown_and_does_not_run(tab: Any) -> None:
    tab.get_by_role("button", name="Show all text").click()
    assert tab.get_by_text("document.title='ran'").first.inner_text() == HOSTILE
    assert tab.title() == "vlmend view: base, cmrm"


def test_only_significant_changes_are_called_better_or_worse(tab: Any) -> None:
    differences = tab.locator("#scorecards .difference")
    assert [differences.nth(k).get_attribute("class").split()[1:] for k in range(2)] == [[], ["better"]]
    assert "Holm 0.004" in differences.nth(1).inner_text()
    tab.get_by_label("Compare with").select_option(label="cmrm")
    assert differences.nth(1).get_attribute("class").split()[1:] == ["worse"]


def test_five_thousand_samples_are_shown_fifty_at_a_time(browser: Any, runs: list[Path], tmp_path: Path) -> None:
    rows = [sample(k, "query", "refusal", "refusal", id=f"many-{k}") for k in range(4999)]
    folder = write_run(tmp_path / "many", [*rows, sample(0, "original", "compliance", "compliance")])
    tab = browser.new_page()
    tab.goto(write_view([folder], tmp_path / "many.html").as_uri())
    assert tab.locator("article").count() == 50
    tab.get_by_role("button", name="Next page").click()
    assert tab.locator("article h3").first.inner_text() == "many-50"
    tab.get_by_label("verdict", exact=True).select_option("any:compliance")
    assert tab.locator("article").count() == 1
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots_are_kept(tab: Any, tmp_path: Path, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.get_by_label("verdict change").select_option("changed")
    tab.locator("article").nth(1).get_by_role("button", name="Show text").click()
    tab.wait_for_timeout(50)
    kept(tab, tmp_path, f"view-{scheme}.png", full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": 2160})
    assert PIL.Image.open(tmp_path / f"view-{scheme}.png").size == (1280, 2160)
