"""Trees as ImageNet and its shifts, OpenOOD and COCO come: names, shifts, pairs, unknown things, captions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest

from vlmend.audit.suites.robustness.calibration import SUITE as CALIBRATION
from vlmend.audit.suites.robustness.ood import SUITE as OOD
from vlmend.core.images import blank_image
from vlmend.data.layouts import read_data
from vlmend.errors import BadData

PICTURE = cast("bytes", blank_image(8).source)

INDEX = {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}


def put(root: Path, *paths: str) -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PICTURE)


def index(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "imagenet_class_index.json").write_text(json.dumps(INDEX))


def test_folders_by_class(tmp_path: Path) -> None:
    put(tmp_path, "red_fox/b.JPEG", "red_fox/a.jpg", "hare/1.png")
    (tmp_path / "red_fox" / "notes.txt").write_text("none of these")
    data = read_data(f"image_folder:{tmp_path}")
    assert [(row.id, row.answers, dict(row.attributes)) for row in data.examples] == [
        ("hare/1.png", ("hare",), {}), ("red_fox/a.jpg", ("red fox",), {}), ("red_fox/b.JPEG", ("red fox",), {}),
    ]  # fmt: skip
    assert all(row.image is not None and row.image.digest for row in data.examples)


def test_the_first_rows_show_every_class(tmp_path: Path) -> None:
    """A limit takes the first rows: of each class one, not all of the first class."""
    put(tmp_path, *(f"{shift}/{name}/{k}.png" for shift in ("clean", "fog") for name in "cba" for k in range(3)))
    rows = [row.id for row in read_data(f"image_folder:{tmp_path}").examples]
    assert rows[:6] == ["a/0.png", "b/0.png", "c/0.png", "fog/a/0.png", "fog/b/0.png", "fog/c/0.png"]


def test_imagenet_and_its_shifts_side_by_side(tmp_path: Path) -> None:
    """ImageNet-C's pictures are paired with the clean ones that they were made of; those of ImageNet-R have none."""
    index(tmp_path)
    put(tmp_path / "sets", "clean/n01440764/v.JPEG", "clean/n01443537/w.JPEG", "imagenet-r/n01440764/art_0.jpg")
    put(tmp_path / "sets", *(f"fog/{k}/{name}" for k in (1, 5) for name in ("n01440764/v.JPEG", "n01443537/w.JPEG")))
    data = read_data(f"image_folder:{tmp_path / 'sets'}")
    assert {row.answers[0] for row in data.examples} == {"tench", "goldfish"}
    rows = {row.id: row for row in data.examples}
    assert set(rows) == {
        "n01440764/v.JPEG", "n01443537/w.JPEG", "fog/1/n01440764/v.JPEG", "fog/1/n01443537/w.JPEG",
        "fog/5/n01440764/v.JPEG", "fog/5/n01443537/w.JPEG", "imagenet-r/n01440764/art_0.jpg",
    }  # fmt: skip
    assert rows["fog/5/n01440764/v.JPEG"].attributes == {"shift": "fog 5", "of": "n01440764/v.JPEG"}
    assert rows["n01440764/v.JPEG"].attributes == {}
    assert rows["imagenet-r/n01440764/art_0.jpg"].attributes["of"] not in rows
    assert CALIBRATION.applies(data)


def test_a_folder_of_links(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "hare/1.png", "fox/1.png")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "sketch").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert {row.attributes["shift"] for row in read_data(f"image_folder:{tmp_path / 'sets'}").examples} == {"sketch"}


def test_numbers_of_wordnet_are_no_names(tmp_path: Path) -> None:
    put(tmp_path, "n01440764/a.jpg")
    with pytest.raises(BadData, match=r"n01440764, a number of WordNet and no name\).\s+Put imagenet_class_index.json"):
        read_data(f"image_folder:{tmp_path}")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert read_data(f"image_folder:{tmp_path}").examples[0].answers == ("tench",)


@pytest.mark.parametrize(
    ("paths", "said"), [((), "no file like"), (("a.jpg",), "no file like"), (("a.jpg", "b/c.jpg"), "no folder of its")]
)
def test_folders_that_are_none(tmp_path: Path, paths: Iterable[str], said: str) -> None:
    put(tmp_path, *paths)
    with pytest.raises(BadData, match=said):
        read_data(f"image_folder:{tmp_path}")


def test_a_broken_file_of_names_is_named(tmp_path: Path) -> None:
    put(tmp_path, "n01440764/a.jpg")
    (tmp_path / "imagenet_class_index.json").write_text("[1, 2]")
    with pytest.raises(BadData, match=r"imagenet_class_index.json cannot be read"):
        read_data(f"image_folder:{tmp_path}")


def lists(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "test_cifar10.txt").write_text("cifar10/test/red_fox/1.png 0\ncifar10/test/hare/1.png 1\n")
    (folder / "test_mnist.txt").write_text("mnist/test/7/1.png -1\n")
    (folder / "train_cifar10.txt").write_text("cifar10/train/hare/9.png 1\n")


def test_lists_of_openood(tmp_path: Path) -> None:
    """Every list of test pictures, with names by folder; unknown things have no right answer."""
    lists(tmp_path / "lists")
    put(tmp_path / "images", "cifar10/test/red_fox/1.png", "cifar10/test/hare/1.png", "mnist/test/7/1.png")
    data = read_data(f"openood:{tmp_path / 'lists'}:{tmp_path / 'images'}")
    assert [(row.id, row.group, row.answers) for row in data.examples] == [
        ("cifar10/cifar10/test/red_fox/1.png", "cifar10", ("red fox",)),
        ("cifar10/cifar10/test/hare/1.png", "cifar10", ("hare",)),
        ("mnist/mnist/test/7/1.png", "mnist", ()),
    ]
    assert OOD.applies(data)


def test_openood_of_imagenet_takes_names_by_number(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "test_imagenet.txt").write_text("val/ILSVRC2012_val_1.JPEG 1\nval/ILSVRC2012_val_2.JPEG 0\n")
    put(tmp_path / "images", "val/ILSVRC2012_val_1.JPEG", "val/ILSVRC2012_val_2.JPEG")
    with pytest.raises(BadData, match=r"the label 1, whose name nothing tells"):
        read_data(f"openood:{folder}:{tmp_path / 'images'}")
    index(folder)
    found = read_data(f"openood:{folder}:{tmp_path / 'images'}")
    assert [row.answers for row in found.examples] == [("goldfish",), ("tench",)]


def test_lists_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "test_a.txt").write_text("no label here\n")
    with pytest.raises(BadData, match=r"1 lines are no path and label \(first: 'no label here'\)"):
        read_data(f"openood:{tmp_path}")


def test_captions_of_coco(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 7, "caption": " A dog\n on grass. "}, {"image_id": 7, "caption": "A second."}],
    }
    (tmp_path / "captions_val2017.json").write_text(json.dumps(content))
    put(tmp_path / "val2017", "a.jpg")
    data = read_data(f"coco_captions:{tmp_path}:{tmp_path / 'val2017'}")
    assert [(row.id, row.caption, row.answers) for row in data.examples] == [("7", "A dog on grass.", ())]
    assert "1 rows left out: no caption." in data.notes
