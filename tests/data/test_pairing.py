"""Requests get the images whose captions are nearest, by an encoder whose vectors stand here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.data.pairing import pair_by_similarity
from vlmend.errors import BadData, BadParameter

WORDS: Mapping[str, Sequence[float]] = {
    "boat": (1.0, 0.0), "a boat": (2.0, 0.0), "cat": (0.0, 1.0), "a cat": (0.0, 3.0), "another cat": (0.0, 1.0),
    "both": (1.0, 0.5),
}  # fmt: skip


def by_words(texts: Sequence[str]) -> torch.Tensor:
    return torch.tensor([WORDS[text] for text in texts])


def captions(folder: Path) -> Path:
    rows = [{"image": f"{k}.png", "caption": words} for k, words in enumerate(["a cat", "a boat", "another cat"])]
    for row in rows:
        (folder / row["image"]).write_bytes(blank_image(8).content)
    file = folder / "captions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_requests_get_the_image_of_the_nearest_caption(tmp_path: Path) -> None:
    data = Dataset("d", tuple(Example(word, word, "benign") for word in ("boat", "cat", "both")))
    paired = pair_by_similarity(data, captions(tmp_path), by_words)
    assert [e.caption for e in paired.examples] == ["a boat", "a cat", "a boat"]
    assert [e.image.name for e in paired.examples if e.image] == [str(tmp_path / f"{k}.png") for k in (1, 0, 1)]
    # cosine of "both" with "a boat": 1 / sqrt(1.25) = 0.894; mean (1 + 1 + 0.894) / 3 = 0.965
    assert paired.notes[-1].startswith("Images by the likeness of captions: 2 images for 3 requests, cosine 0.96")
    assert paired.notes[-1].endswith("0.89 at least.")


def test_captions_in_chunks_give_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset("d", tuple(Example(word, word, "benign") for word in ("boat", "cat", "both")))
    whole = pair_by_similarity(data, captions(tmp_path), by_words)
    monkeypatch.setattr("vlmend.data.pairing.CHUNK", 1)
    assert pair_by_similarity(data, captions(tmp_path), by_words) == whole


def test_jailbreak_llms_is_paired_by_one_line_of_text(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_text("content_policy_name,question\nc,boat\n")
    text = f"jailbreak_llms:{file}:{captions(tmp_path)}"
    assert read_data(text, encode=by_words).examples[0].caption == "a boat"
    with pytest.raises(BadParameter, match="needs a sentence encoder"):
        read_data(text)


def test_captions_whose_images_are_missing_are_refused(tmp_path: Path) -> None:
    file = captions(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(BadData, match="1 of the chosen images are missing"):
        pair_by_similarity(Dataset("d", (Example("1", "boat", "benign"),)), file, by_words)
    file.write_text('{"image": "0.png"}\n')
    with pytest.raises(BadData, match="row 1 has no caption"):
        pair_by_similarity(Dataset("d", (Example("1", "boat", "benign"),)), file, by_words)
