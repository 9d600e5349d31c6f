"""What a page must be in a browser, light and dark, on a desk and on a phone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["CHROMIUM", "axe_faults", "faults", "opened_page", "started_browser"]

CHROMIUM = Path("/usr/bin/chromium")
DESK, PHONE = 1280, 400
"""Widths in pixels."""

AXE = Path(os.environ.get("VLMEND_AXE", "node_modules/axe-core/axe.min.js"))
"""axe-core from npm (`npm install --no-save axe-core`), which is not part of this repository."""

LEAST_SCALE = 0.84
"""Of the words in figures, whose size is meant for the figure's own width."""

LOOK = """() => {
  const of = name => getComputedStyle(document.body)[name];
  const figures = [...document.querySelectorAll('svg')];
  const scale = figure => figure.getBoundingClientRect().width / (parseFloat(figure.getAttribute('width')) * 96 / 72);
  return {
    wide: document.documentElement.scrollWidth, ink: of('color'), ground: of('backgroundColor'),
    headings: [...document.querySelectorAll('h1')].map(heading => heading.textContent.trim()),
    untitled: figures.filter(f => f.getAttribute('role') !== 'img' || !f.querySelector(':scope > title')).length,
    scale: Math.min(1, ...figures.filter(f => f.getClientRects().length).map(scale)),
  };
}"""


@contextmanager
def started_browser() -> Iterator[Any]:
    """Headless Chromium; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )  # fmt: skip
        yield started
        started.close()


@contextmanager
def opened_page(browser: Any, page: Path, width: int, scheme: str, told: list[str]) -> Iterator[Any]:
    """A tab with the page, offline; what it writes to the console is added to `told`."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, bypass_csp=True
    )
    tab = context.new_page()
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda problem: told.append(str(problem)))
    tab.goto(page.as_uri())
    yield tab
    context.close()


def faults(browser: Any, page: Path) -> list[str]:
    """What is wrong with a page, by what was looked at; empty where nothing is."""
    found: list[str] = []
    colours: dict[str, tuple[str, str]] = {}
    for width, scheme in ((DESK, "light"), (PHONE, "light"), (PHONE, "dark")):
        with opened_page(browser, page, width, scheme, found) as tab:
            seen = tab.evaluate(LOOK)
        colours[scheme] = seen["ink"], seen["ground"]
        if seen["wide"] > width:
            found.append(f"at {width} pixels it is {seen['wide']} wide")
        if seen["scale"] < LEAST_SCALE:
            found.append(f"at {width} pixels the words in a figure have {seen['scale']:.0%} of their size")
        if len(seen["headings"]) != 1 or not seen["headings"][0]:
            found.append(f"its headings of the first level are {seen['headings']}")
        if seen["untitled"]:
            found.append(f"{seen['untitled']} figures have no title or no role")
    if any(light == dark for light, dark in zip(colours["light"], colours["dark"], strict=True)):
        found.append("in the dark it has the ink or the ground of the light")
    return list(dict.fromkeys(found))


def axe_faults(browser: Any, page: Path) -> list[str]:
    """The rules of axe-core that a page breaks, light and dark; the test is skipped where axe-core is not there."""
    if not AXE.exists():
        pytest.skip(f"{AXE} is not there: npm install --no-save axe-core, or VLMEND_AXE=FILE")
    found: list[str] = []
    for width, scheme in ((DESK, "light"), (PHONE, "dark")):
        with opened_page(browser, page, width, scheme, []) as tab:
            tab.evaluate(AXE.read_text("utf-8"))
            broken = tab.evaluate("axe.run({exclude: [['.veil']]})")["violations"]  # blurred on purpose
        found += [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in broken]
    return list(dict.fromkeys(found))
