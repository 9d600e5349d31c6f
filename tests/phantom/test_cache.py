"""The folders of phantoms: made once, gone on with, and one message where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmend.errors import EnvironmentProblem
from vlmend.phantom.cache import _whole, kept_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLMEND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_is_made_once(cache: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> Path:
        made.append(folder)
        (folder / "weights").write_text("w")
        return folder

    assert kept_folder("one", make, "1 MB") == kept_folder("one", make, "1 MB") == cache / "one"
    assert len(made) == 1
    assert (cache / "one" / "weights").read_text() == "w"
    assert not (cache / "one.building").exists()


def test_what_a_stopped_making_has_left_is_there_when_it_goes_on(cache: Path) -> None:
    def stopped(folder: Path) -> Path:
        (folder / "stage").write_text("half")
        raise KeyboardInterrupt

    def goes_on(folder: Path) -> Path:
        assert (folder / "stage").read_text() == "half"
        (folder / "model").mkdir()
        return folder / "model"

    with pytest.raises(KeyboardInterrupt):
        kept_folder("one", stopped, "1 MB")
    assert not (cache / "one").exists()
    assert kept_folder("one", goes_on, "1 MB").is_dir()


def test_a_full_disk_is_told_with_what_is_needed_and_where() -> None:
    def full(folder: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.raises(EnvironmentProblem, match="No space left") as problem:
        kept_folder("one", full, "600 MB")
    assert "600 MB" in problem.value.hint
    assert "VLMEND_CACHE" in problem.value.hint


def test_a_folder_in_which_a_bit_was_flipped_is_made_again_and_that_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make(folder: Path) -> Path:
        (folder / "weights").write_bytes(b"0123")
        return folder

    folder = kept_folder("one", make, "1 MB")
    (folder / "weights").write_bytes(b"0133")
    _whole.cache_clear()  # as in a new process
    assert (kept_folder("one", make, "1 MB") / "weights").read_bytes() == b"0123"
    assert "was changed since it was put together (weights)" in caplog.messages[0]
    _whole.cache_clear()
    kept_folder("one", lambda folder: pytest.fail("made again"), "1 MB")
