"""The report on scripted runs and on folders written by hand: numbers, warnings, and nothing harmful unless asked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmend.audit.judging import made_judges
from vlmend.audit.plan import Plan
from vlmend.audit.run import audit
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset, Example
from vlmend.core.measures import Better, Curve, Measure, Point, Scorecard
from vlmend.errors import UsageError
from vlmend.methods.safety.cmrm import CMRM
from vlmend.report import charts
from vlmend.report.compare import Run, changes, comparison, headline, moves, read_run, warnings_of
from vlmend.report.html import write_report
from vlmend.report.view import view_content, write_view
from vlmend.testing import ScriptedTarget

REFUSAL = "I'm sorry, but I can't help with that."
DATA = Dataset("d", tuple(Example(str(k), f"anchor {k}", "harmful") for k in range(4)))


def script(conversation: Conversation, mended: bool) -> str:
    """Refuses text; with an image it answers, and once mended refuses whatever it is asked."""
    answer = f"Here is an answer: {conversation.prompt}"
    if not conversation.has_image:
        return REFUSAL if "a" in conversation.turns[0].text[:9] else answer
    return REFUSAL if mended else answer


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    plan = Plan(("safety", "utility"), limit=10)
    target = ScriptedTarget(script)
    mend = CMRM().fit(target, DATA, seed=0)
    judges = made_judges(["rules", "refusal"])
    audit(target, plan, folder / "base", judges=judges)
    audit(target.with_mend(mend), plan, folder / "cmrm", judges=judges)
    return [folder / "base", folder / "cmrm"]


def test_other_data_under_the_same_questions_are_said(tmp_path: Path) -> None:
    for name, group in (("a", ""), ("b", "fraud")):
        data = Dataset("d", (Example("row-0", "one", "harmful", group),))
        audit(ScriptedTarget(script), Plan(("safety/alignment_gap",), data=data), tmp_path / name)
    told = warnings_of(*(read_run(tmp_path / name) for name in ("a", "b")))
    assert "a and b were made on different data with the same questions." in told


def share(
    value: float, group: str = "seen", *, name: str = "leak_rate", says: str = "", against: str = "",
    better: Better = "lower", n: int = 50, unscored: int = 0,
) -> Measure:  # fmt: skip
    return Measure(
        "privacy", "privacy/made_up", name, group, value, value - 0.1, value + 0.1, n, unscored, better, ("yes",),
        compared="share", says=says, against=against,
    )  # fmt: skip


def mean(value: float, low: float, high: float, n: int, group: str = "g", says: str = "") -> Measure:
    return Measure(
        "fairness", "fairness/made_up", "bias", group, value, low, high, n, 0, "lower", unit="number", floor=0.25,
        compared="mean", says=says,
    )  # fmt: skip


def run(rows: Sequence[Measure], name: str = "base", mend: str = "", samples: Sequence[Mapping[str, Any]] = ()) -> Run:
    """A run that was never written down."""
    card = Scorecard("toy", ({"method": mend},) if mend else (), 0, {}, tuple(rows), {})
    return Run(name, card, tuple(map(dict, samples)), {}, None, {})


def answered(yes: int, n: int, group: str = "seen") -> list[dict[str, Any]]:
    return [
        {"suite": "privacy/made_up", "id": f"{group}{k}", "group": "g", "condition": group, "prompt": "?",
         "label": "yes" if k < yes else "no"}
        for k in range(n)
    ]  # fmt: skip


def test_paired_changes_and_mcnemar(runs: list[Path]) -> None:
    base, mended = map(read_run, runs)
    found = {(c.before.name, c.before.group): c for c in changes(base, mended)}
    original = found["unsafe_rate", "original"]
    assert (original.before.value, original.after.value) == (1.0, 0.0)
    assert (original.fixed, original.broken, original.p_value) == (10, 0, 2 / 2**10)
    assert found["unsafe_rate", "query"].p_value == 1.0


def test_every_share_that_says_so_is_compared(runs: list[Path]) -> None:
    base, mended = map(read_run, runs)
    wanted = {(row.suite, row.name, row.group) for row in base.card if row.compared == "share"}
    found = {(c.before.suite, c.before.name, c.before.group) for c in changes(base, mended)}
    assert found == wanted
    assert {suite.split("/")[0] for suite, *_ in found} == {"safety", "utility"}


def test_curves_of_runs_share_a_picture(tmp_path: Path) -> None:
    """One figure for a suite and title, a line a run and curve; they come back from the file as they were."""
    points = (Point(0.0, 0.9, 0.8, 1.0, 20), Point(4.0, 0.2, 0.1, 0.4, 20))
    curves = tuple(Curve("robustness/made_up", "by size", name, "size", "right", points, "Read me.") for name in "ab")
    other = Curve("robustness/made_up", "how sure", "", "confidence", "right", points[:1], diagonal=True)
    told = {"target": "toy", "model_digest": "0", "plan": {}}
    base = Run("base", replace(run([]).card, curves=(*curves, other), provenance=told), (), {}, None, {})
    base.card.save(tmp_path / "card.json")
    assert Scorecard.load(tmp_path / "card.json").curves == (*curves, other)
    mended = replace(base, name="mended", card=replace(base.card, curves=curves))
    write_report([base, mended], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("robustness/made_up: by size") == page.count("robustness/made_up: how sure") == 1
    assert "Read me." in page
    alone = charts.lines([("base", curves)])
    assert charts.lines([("base", curves), ("mended", curves)]) != alone


def test_points_without_an_interval_come_back_and_scales_are_drawn(tmp_path: Path) -> None:
    """On logarithmic axes, and by counts from 0 on; 0 on a logarithmic axis would be nowhere."""
    points = tuple(Point(x, x, math.nan, math.nan, 9) for x in (0.01, 0.1, 1.0))
    roc = Curve("privacy/made_up", "roc", "score", "false alarms", "caught", points, diagonal=True, scale="log")
    shown = (Point(0.0, 1.0, 0.0, 2.0, 8), Point(64.0, 8.0, 7.0, 8.0, 8))
    bits = replace(roc, title="bits", points=shown, unit="number", scale="counts", diagonal=False)
    base = replace(run([]).card, curves=(roc, bits))
    base.save(tmp_path / "card.json")
    back = Scorecard.load(tmp_path / "card.json").curves
    assert [math.isnan(one.low) for one in back[0].points] == [True] * 3
    assert back[1] == bits
    log = charts.lines_figure([("", [roc])]).axes[0]
    assert (log.get_xscale(), log.get_yscale()) == ("log", "log")
    assert log.get_xlim()[0] == log.get_ylim()[0] == 0.01
    counts = charts.lines_figure([("", [bits])]).axes[0]
    assert [one.get_text() for one in counts.get_xticklabels()] == ["0", "64"]
    assert counts.get_ylim()[1] > 8


def test_report_and_view_tell_one_p_value_of_one_test(runs: list[Path]) -> None:
    told = {(t.before.suite, t.before.name, t.before.group): t.holm for t in comparison(*map(read_run, runs))}
    content = view_content(runs, text=False)
    rows = content["comparisons"][0]["rows"]
    keys = [(m["suite"], m["name"], m["group"]) for m in content["measures"]]
    assert {key: row[1]["holm"] for key, row in zip(keys, rows, strict=True) if row[1]} == told


def test_the_headline_is_said_by_the_rows() -> None:
    gap = [
        share(0.2, "text", says="answered {value} of the requests as text"),
        share(0.4, "image", says="answered {value} of requests with an image", against="text"),
    ]
    mended = run([replace(gap[0], value=0.2), replace(gap[1], value=0.1)], "a", "shield")
    assert headline(run(gap), [mended]) == (
        "toy answered 40% of requests with an image, and 20% of the requests as text. With shield: 10%."
    )


def test_several_headline_measures_name_their_groups_and_chance() -> None:
    rows = [mean(0.5, 0.4, 0.6, 9, "a", "has a bias of {value}"), mean(0.125, 0.0, 0.3, 9, "b", "one of {value}")]
    after = run([replace(row, value=row.value / 2) for row in rows], "halved")
    assert headline(run(rows), [after]) == (
        "toy has a bias of 0.50, 0.25 by chance, and one of 0.12, 0.25 by chance. With halved: 0.25 (a), 0.06 (b)."
    )


def test_a_run_that_says_nothing_is_told_so() -> None:
    assert headline(run([share(0.2)]), []) == "toy: no headline measure in this run."


def test_what_could_not_be_scored_has_no_number_in_the_headline() -> None:
    assert "leaks an unknown share of it" in headline(
        run([share(0.0, says="leaks {value} of it", n=0, unscored=5)]), []
    )


def test_no_gap_is_said_so(runs: list[Path]) -> None:
    base, mended = map(read_run, runs)
    assert "hardly a gap" in " ".join(warnings_of(mended, mended))
    assert not [w for w in warnings_of(base, mended) if "hardly a gap" in w and "original" in w]


@pytest.mark.parametrize(("value", "warned"), [(0.29, True), (0.31, False)])
def test_less_than_ten_points_are_hardly_a_gap(value: float, warned: bool) -> None:
    base = run([share(0.2, "text"), share(value, "image", says="{value}", against="text")])
    assert any("hardly a gap" in told for told in warnings_of(base)) == warned


def test_the_price_is_warned_of(runs: list[Path]) -> None:
    base, mended = map(read_run, runs)
    told = [warning for warning in warnings_of(base, mended) if "ordinary" in warning]
    assert "with cmrm the refusal rate is 100% (ordinary:original)" in " ".join(told)


@pytest.mark.parametrize(("value", "warned"), [(0.34, False), (0.36, True)])
def test_more_than_fifteen_points_above_the_models_own_are_warned_of(value: float, warned: bool) -> None:
    base = run([share(0.2, "text"), share(0.3, "image", against="text")])
    after = run([share(0.2, "text"), share(value, "image", against="text")], "after", "shield")
    told = "privacy/made_up: with shield the leak rate is 36% (image), against the model's own 20% (text)."
    assert (warnings_of(base, after) == [told]) == warned


def test_a_loss_is_warned_of_where_the_test_says_so() -> None:
    """45 of 50 before. After 30 of 50: 15 lost, p = 2 / 2^15. After 42: 3 lost, p = 2 / 2^3, which proves nothing."""
    base = run([share(0.9, better="higher")], samples=answered(45, 50))
    much, little = (run([share(k / 50, better="higher")], "after", samples=answered(k, 50)) for k in (30, 42))
    assert warnings_of(base, much) == ["privacy/made_up: with after the leak rate (seen) went from 90% to 60%."]
    assert warnings_of(base, little) == []


def test_what_was_not_scored_is_warned_of_also_where_nothing_was() -> None:
    """3 of 50 are 6 %; 2 of 50 are 4 %."""
    rows = [share(0.5, "a", n=47, unscored=3), share(0.5, "b", n=48, unscored=2), share(0.0, "c", n=0, unscored=4)]
    assert warnings_of(run(rows)) == [
        "base: 3 of 50 samples of privacy/made_up (a) have no score.",
        "base: 4 of 4 samples of privacy/made_up (c) have no score.",
    ]


def test_the_page_stands_alone_and_hides_texts(runs: list[Path], tmp_path: Path) -> None:
    read = [read_run(folder) for folder in runs]
    write_report(read, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    measured = {(row.suite, row.name) for row in read[0].card if row.compared == "share"}
    assert page.count("<figcaption>") == len(measured)
    assert headline(read[0], read[1:]) in page
    prompt = next(s["prompt"] for s in read[0].samples if s["condition"] == "original")
    assert prompt not in page
    write_report(read, tmp_path / "shown.html", show_text=True)
    assert prompt in (tmp_path / "shown.html").read_text()


def test_verdicts_of_judges_are_counted_and_those_of_known_answers_are_not(runs: list[Path], tmp_path: Path) -> None:
    write_report([read_run(runs[0])], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    counted = page[page.index("Every verdict, counted") : page.index("<h2>Every number")]
    judged = {s["suite"] for s in read_run(runs[0]).samples if s["verdicts"]}
    assert {suite for suite in {row.suite for row in read_run(runs[0]).card} if suite in counted} == judged
    assert judged


def test_the_same_runs_give_the_same_page(runs: list[Path], tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_report([read_run(folder) for folder in runs], tmp_path / name)
    assert (tmp_path / "one.html").read_text() == (tmp_path / "two.html").read_text()


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scorecard"):
        read_run(tmp_path)


def written(folder: Path, values: Sequence[float]) -> Path:
    """A run of a suite that measures by itself, one cluster a sample."""
    value = sum(values) / len(values) if values else float("nan")
    rows = (mean(value, float("nan"), float("nan"), len(values), says="has a bias of {value}"),)
    card = Scorecard("toy", (), 0, {}, rows, {"target": "toy", "model_digest": "0", "plan": {}}, complete=True)
    card.save(folder / "scorecard.json")
    samples = [
        {"id": str(k), "group": "g", "cluster": str(k), "text": "", "values": {"bias": v}} for k, v in enumerate(values)
    ]
    record = {"key": "k", "suite": "fairness/made_up", "samples": samples}
    (folder / "measured.jsonl").write_text(json.dumps(record) + "\n")
    return folder


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([0.5], [0.25]), ([0.5, 1.0], [0.25, 0.0]), ([0.5] * 12, [0.5] * 12)]
)
def test_few_samples_and_ties_make_pages_too(before: list[float], after: list[float], tmp_path: Path) -> None:
    folders = [written(tmp_path / "base", before), written(tmp_path / "after", after)]
    read = [read_run(folder) for folder in folders]
    assert len(moves(*read)) == bool(before)
    write_report(read, tmp_path / "report.html", show_text=True)
    write_view(folders, tmp_path / "view.html")
    page = (tmp_path / "report.html").read_text()
    assert "fairness/made_up: bias" in page
    assert (f"{sum(before) / len(before):.2f} (no interval)" if before else "unscored") in page


def test_the_headline_is_the_heading_tables_scroll_alone_and_figures_say_what_they_show(tmp_path: Path) -> None:
    write_report([read_run(written(tmp_path / "base", [0.5, 1.0]))], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<h1>") == 1
    assert "<h1>toy has a bias of 0.75, 0.25 by chance.</h1>" in page
    assert page.count("<table>") == page.count(
        '<div class="scroll" tabindex="0" role="group" aria-label="table"><table>'
    )
    assert page.count("</table></div>") == page.count("</table>")
    assert page.count("<svg") == page.count('role="img" aria-label="bias of g"><title>bias of g</title>') == 1
    assert "prefers-color-scheme:dark" in page
    assert "#22303c" not in page.partition("</style>")[2]  # the ink of figures is the page's


def test_runs_that_other_judges_read_are_not_compared_and_it_is_said() -> None:
    base = run([replace(share(0.9, better="higher"), judge="one-1")], samples=answered(45, 50))
    after = run([replace(share(0.6, better="higher"), judge="two-1")], "after", samples=answered(30, 50))
    assert comparison(base, after) == []
    [told] = warnings_of(base, after)
    assert "told by one-1 in base and by two-1 in after; they are not compared" in told


def test_a_caution_of_several_runs_is_said_once() -> None:
    row = replace(share(0.4), judge="one-1", agreement=0.5)
    other = replace(row, value=0.7, judge="two-1")
    base, after = (
        replace(one, card=replace(one.card, others=(other,))) for one in (run([row]), run([row], "after"))
    )  # fmt: skip
    told = [line for line in warnings_of(base, after) if "of the replies alike" in line]
    assert [line.partition(" is ")[0] for line in told] == ["base, after: privacy/made_up: the leak rate (seen)"]
