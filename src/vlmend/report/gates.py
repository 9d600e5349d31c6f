"""Gate results where build systems look: a Markdown summary (GitHub's step summary) and JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from vlmend.core.cautions import cautions
from vlmend.core.files import SHARED, append, write_file
from vlmend.core.gates import GateResult
from vlmend.core.measures import Measure, Scorecard
from vlmend.core.printable import printable
from vlmend.errors import VlmendError
from vlmend.report.compare import sentence

__all__ = ["markdown", "write_junit", "write_junit_error", "write_markdown"]


def markdown(card: Scorecard, results: Sequence[GateResult]) -> str:
    """What the run says first of all, the gates, failed ones first, and the whole scorecard below them."""
    failed = [one for one in results if not one.passed]
    lines = [f"## vlmend: {card.model}", "", sentence(card), ""]
    lines += [line for caution in cautions(card) for line in (f"> **Mind:** {caution}", "")]
    if results:
        lines += [f"**{len(failed)} of {len(results)} gates failed.**" if failed else "**Every gate holds.**", ""]
        lines += ["| | gate | found | n | unscored |", "|---|---|---:|---:|---:|"]
        for one in sorted(results, key=lambda result: result.passed):
            mark = "ok" if one.passed else "**FAILED**"
            lines.append(f"| {mark} | `{one.gate.text}` | {said(one)} | {one.row.n} | {one.row.unscored} |")
        lines.append("")
    lines += [
        "| suite | measure | group | value | 95 % interval | by chance | n | unscored | judge | second judge agrees |"
    ]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---|---:|"]
    lines += [_row(row) for row in card]
    return printable("\n".join(lines) + "\n")


def said(result: GateResult) -> str:
    """What was found, as people read it."""
    if math.isnan(result.actual):
        return "not known"
    return f"{result.actual:g}" if result.gate.field in ("n", "unscored") else f"{result.actual:.4g}"


def write_markdown(card: Scorecard, results: Sequence[GateResult], file: Path) -> None:
    """Append the summary to a file, as GitHub's step summary wants it."""
    append(file, markdown(card, results), mode=SHARED)


def write_junit(card: Scorecard, results: Sequence[GateResult], file: Path) -> None:
    """One test case a gate and measure; what must be known before the numbers is the suite's output."""
    failures = sum(not one.passed for one in results)
    suite = ElementTree.Element(
        "testsuite", name=printable(f"vlmend {card.model}"), tests=str(len(results)), failures=str(failures), errors="0"
    )
    for one in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=printable(one.row.suite), name=printable(one.gate.text)
        )
        if not one.passed:
            text = f"{one.gate.field} is {said(one)} (n = {one.row.n}, unscored = {one.row.unscored})"
            ElementTree.SubElement(case, "failure", message=printable(text))
    if told := cautions(card):
        ElementTree.SubElement(suite, "system-out").text = printable("\n".join(f"Mind: {one}" for one in told))
    _write(suite, file)


def write_junit_error(run: Path, problem: VlmendError, file: Path) -> None:
    """One test case in error, of a run that cannot be held to gates: an older file would tell of another run."""
    name = printable(f"vlmend {run}")
    suite = ElementTree.Element("testsuite", name=name, tests="1", failures="0", errors="1")
    case = ElementTree.SubElement(suite, "testcase", classname="vlmend", name="the run can be held to gates")
    ElementTree.SubElement(case, "error", message=printable(f"{problem.message} {problem.hint}"))
    _write(suite, file)


def _write(suite: ElementTree.Element, file: Path) -> None:
    ElementTree.indent(suite)
    write_file(file, ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n", mode=SHARED)


def _row(row: Measure) -> str:
    limits = [row.written(limit, 1) for limit in (row.low, row.high)]
    value, interval = ("", "") if not row.n else (row.written(row.value, 1), " to ".join(filter(None, limits)))
    alike = "" if math.isnan(row.agreement) else f"{row.agreement:.1%}"
    chance = row.written(row.floor, 1)
    cells = (row.suite, row.name, row.group, value, interval, chance, row.n, row.unscored, row.judge, alike)
    return f"| {' | '.join(map(str, cells))} |"
