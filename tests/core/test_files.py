"""Files are written whole or not at all, for their owner alone, and read back with what a fault left of them."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmend.core.files import (
    SHARED,
    append,
    held,
    make_folder,
    read_json,
    replacing,
    write_file,
    write_json,
    write_together,
)
from vlmend.errors import RunProblem


@contextmanager
def full(room: int) -> Generator[None]:
    """A disk on which no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_reads_what_is_written(tmp_path: Path) -> None:
    file, lines, shared = tmp_path / "run" / "a.json", tmp_path / "run" / "b.jsonl", tmp_path / "junit.xml"
    write_file(file, "{}")
    append(lines, "{}\n")
    write_file(shared, "<a/>", mode=SHARED)
    os.umask(umask := os.umask(0))
    assert [mode(one) for one in (file, lines, file.parent)] == [0o600, 0o600, 0o700]
    assert mode(shared) == 0o666 & ~umask


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_file(file, "old")
    with pytest.raises(ZeroDivisionError), replacing(file) as out:
        out.write(b"ne" * (1 // 0))
    assert file.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("room", [4, 6])
def test_a_full_disk_leaves_the_old_file_and_the_old_lines(tmp_path: Path, room: int) -> None:
    file, lines = tmp_path / "a", tmp_path / "b"
    append(lines, "one\n")
    write_file(file, "old")
    with full(room), pytest.raises(RunProblem, match=r"b cannot be written \(File too large\)"):
        append(lines, "two\n")
    with full(room), pytest.raises(RunProblem, match=r"a cannot be written \(File too large\)"):
        write_file(file, "new words")
    append(lines, "three\n")
    assert (lines.read_text(), file.read_text()) == ("one\nthree\n", "old")


def test_of_files_that_belong_together_none_is_new_until_all_are_on_the_disk(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_together({first: b"1", second: b"1"})
    with full(3), pytest.raises(RunProblem):
        write_together({first: b"22", second: b"2222"})
    assert (first.read_text(), second.read_text()) == ("1", "1")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["first", "second"]
    write_together({first: b"22", second: b"2222"})
    assert (first.read_text(), second.read_text()) == ("22", "2222")


def test_a_kill_before_the_end_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_file(file, "old")
    killed = (
        "import os, pathlib; from vlmend.core.files import replacing\n"
        f"with replacing(pathlib.Path({str(file)!r})) as out: out.write(b'new'); out.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert file.read_text() == "old"
    write_file(file, "new")  # what the killed process left is in nobody's way
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_links_are_followed_and_pipes_are_written_as_they_are(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "b"
    link.symlink_to(file)
    write_file(link, "through")
    assert link.is_symlink()
    assert file.read_text() == "through"
    read, write = os.pipe()
    write_file(Path(f"/dev/fd/{write}"), "down\n")
    append(Path(f"/dev/fd/{write}"), "the pipe\n")
    assert os.read(read, 99) == b"down\nthe pipe\n"
    os.close(read)
    os.close(write)


def test_a_folder_where_a_file_is_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for attempt in (lambda: make_folder(tmp_path / "a"), lambda: write_file(tmp_path / "a" / "b", "x")):
        with pytest.raises(RunProblem, match="cannot be written"):
            attempt()


def test_json_that_a_fault_left_reads_as_none(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"value": float("nan"), "n": 3})
    assert read_json(file) == {"value": None, "n": 3}
    for left in (b"", b'{"value": nul', b"\xff\xfe", b"[" * 100_000):
        file.write_bytes(left)
        assert read_json(file) is None
    assert read_json(tmp_path / "none") is None


def test_a_folder_is_held_once_and_let_go_of(tmp_path: Path) -> None:
    with (
        held(tmp_path / "run"),
        pytest.raises(RunProblem, match="Another process is working in"),
        held(tmp_path / "run"),
    ):
        pass
    with held(tmp_path / "run"), held(tmp_path / "run", ".ann.jsonl.lock"):
        pass
    assert mode(tmp_path / "run" / ".lock") == 0o600


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text().filter(lambda name: name != "sum"), VALUES, max_size=4), st.data())
def test_a_flipped_bit_never_gives_other_values(content: dict[str, Any], data: st.DataObject) -> None:
    """It is noticed, or it was in the name of the sum or between values."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.json"
        write_json(file, content)
        assert read_json(file) == content
        held = bytearray(file.read_bytes())
        held[data.draw(st.integers(0, len(held) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(held)
        found = read_json(file)
        assert found is None or content.items() <= found.items()


def test_what_was_changed_since_it_was_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_json(tmp_path / "a.json", {"n": 1})
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert read_json(tmp_path / "nowhere.json") is None
    assert caplog.messages == []
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace("1,", "7,"))
    assert read_json(tmp_path / "a.json") is None
    assert "a.json was cut off or changed since it was written" in caplog.messages[0]
