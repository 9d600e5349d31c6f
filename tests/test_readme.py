"""The README's commands are the ones that CI runs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_the_demo_needs_the_lean_lock_only() -> None:
    rules = (ROOT / "Makefile").read_text()
    assert "demo: .venv/lean\n" in rules
    assert "test: .venv/ready\n" in rules
    assert "requirements-dev.lock" not in rules.partition(".venv/lean:")[2].partition("touch")[0]


def test_every_verb_in_the_readme_and_guides_exists() -> None:
    import re

    from vlmend.cli import app

    verbs = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    verbs |= {group.name or "" for group in app.registered_groups}
    pages = [ROOT / "README.md", *(ROOT / "docs" / "guides").glob("*.md")]
    used = {verb for page in pages for verb in re.findall(r"^    vlmend (\w+)", page.read_text(), re.MULTILINE)}
    assert used
    assert used <= verbs


def test_the_readme_is_short_and_begins_with_a_picture_and_its_limit() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 90
    first = "\n".join(lines[: lines.index("## Quick start")])
    assert first.count("![") == 1
    assert "no real VLM has been measured" in first
