"""Sets from the hub, by a download function that fetches nothing: rows, snapshot, and what is said when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

from vlmend.core.images import blank_image
from vlmend.data.hub import HubFiles
from vlmend.data.layouts import read_data
from vlmend.errors import BadData, EnvironmentProblem


def put(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_a_name_alone_comes_from_the_hub(tmp_path: Path) -> None:
    asked: list[HubFiles] = []

    def fetch(hub: HubFiles) -> Path:
        asked.append(hub)
        put(tmp_path / "data" / "harmful-behaviors.csv", "Index,Goal,Category\n0,g,c\n")
        put(tmp_path / "data" / "benign-behaviors.csv", "Index,Goal,Category\n0,h,c\n")
        return tmp_path

    data = read_data("jailbreakbench", fetch=fetch)
    assert [hub.id for hub in asked] == ["JailbreakBench/JBB-Behaviors"]
    assert sorted((e.prompt, e.label) for e in data.examples) == [("g", "harmful"), ("h", "benign")]
    assert data.notes[0] == f"From the hub: JailbreakBench/JBB-Behaviors, snapshot {tmp_path.name}."


def test_rows_of_the_hub_take_pictures_from_here(tmp_path: Path) -> None:
    def fetch(hub: HubFiles) -> Path:
        put(tmp_path / "snapshot" / "VLSafe" / "harmlessness_examine.jsonl", '{"image_id": 7, "query": "q"}')
        return tmp_path / "snapshot"

    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "000000000007.jpg").write_bytes(blank_image(8).content)
    assert read_data(f"vlsafe::{tmp_path / 'coco'}", fetch=fetch).examples[0].image is not None
    with pytest.raises(BadData, match="VLSafe needs the pictures that its rows name"):
        read_data("vlsafe", fetch=fetch)


def test_a_set_that_is_not_on_the_hub_says_how_to_get_it() -> None:
    with pytest.raises(BadData, match="needs a path") as problem:
        read_data("xstest", fetch=lambda hub: Path())
    assert "Take xstest_prompts.csv" in problem.value.hint


def test_a_gated_set_says_where_to_accept_its_terms() -> None:
    def fetch(hub: HubFiles) -> Path:
        raise GatedRepoError.__new__(GatedRepoError)  # its constructor wants the hub's HTTP response

    with pytest.raises(EnvironmentProblem, match="until its terms are accepted") as problem:
        read_data("vlguard", fetch=fetch)
    assert "https://huggingface.co/datasets/ys-zong/VLGuard" in problem.value.hint
    assert "HF_TOKEN" in problem.value.hint


def test_no_network_says_how_to_bring_the_files() -> None:
    def fetch(hub: HubFiles) -> Path:
        raise OfflineModeIsEnabled("offline")

    with pytest.raises(EnvironmentProblem, match="OfflineModeIsEnabled") as problem:
        read_data("catqa", fetch=fetch)
    assert "HF_HUB_OFFLINE" in problem.value.hint
    assert "catqa:PATH" in problem.value.hint


def test_files_that_left_the_hub_are_missed(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no longer has the files RedTeam_2K.csv"):
        read_data("redteam_2k", fetch=lambda hub: tmp_path)
