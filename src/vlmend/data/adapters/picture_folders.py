"""Pictures that lie in folders, as robustness sets come: ImageNet and its shifts, OpenOOD's lists, COCO's captions."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, listed_rows, read_text, text
from vlmend.errors import BadData

__all__ = ["ADAPTERS"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

CLEAN = "clean"
"""The folder of pictures without a shift, beside the folders of shifts."""

WORDNET = re.compile(r"n\d{8}")

CLASS_FILES = ("imagenet_class_index.json", "LOC_synset_mapping.txt")
"""Names of ImageNet's classes: Keras's {"0": ["n01440764", "tench"], ...}, or Kaggle's lines "n01440764 tench, …"."""

NAMES_HOW = f"Put {' or '.join(CLASS_FILES)}, which tells the names of the classes, into that folder or one above."

TESTS = "test_*.txt"

LIST = re.compile(r"(.+) (-?\d+)")
"""A line of OpenOOD: a path, then a label, -1 for what is not known."""


def _walked(root: Path) -> list[Row]:
    """Rows of a tree [SHIFT/...]CLASS/picture: of each folder the first, then of each the second, and so on.

    So the first rows show every class, and are those of the same pictures under each shift.
    """
    names = _class_names(root)
    rows: list[tuple[int, Row]] = []
    for folder, below, files in os.walk(root, followlinks=True):
        below.sort()
        *above, name = Path(folder).relative_to(root).parts or ("",)
        pictures = sorted(file for file in files if Path(file).suffix.lower() in SUFFIXES)
        rows += [
            (place, {"above": above, "class": name, "name": names.get(name, name), "file": file})
            for place, file in enumerate(pictures)
        ]
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def _picture(row: Row, place: Place) -> list[Draft]:
    """The last folder is the class; those above it, if any, are the shift."""
    folder, name = str(row["class"]), str(row["name"])
    if not folder:
        raise Lacking("no folder of its class")
    if WORDNET.fullmatch(name):
        raise Lacking(f"the class {name}, a number of WordNet and no name", NAMES_HOW)
    above, path = cast("Sequence[str]", row["above"]), f"{folder}/{row['file']}"
    shift = " ".join(above)
    shifted = {} if shift in ("", CLEAN) else {"shift": shift, "of": path}
    return [
        Draft(
            "", id="/".join([*above, path]) if shifted else path, group=name.replace("_", " "),
            pictures=("/".join([*above, path]),), answers=(name.replace("_", " "),), attributes=shifted,
        )
    ]  # fmt: skip


def _class_names(root: Path) -> Mapping[str, str]:
    """Names by folder and by number, from the first file that tells them in this folder or the two above."""
    for folder in (root, *list(root.resolve().parents)[:2]):
        for file in (folder / name for name in CLASS_FILES):
            if file.is_file():
                return _told(file)
    return {}


def _told(file: Path) -> Mapping[str, str]:
    try:
        if file.suffix == ".json":
            content = cast("Mapping[str, Sequence[str]]", json.loads(read_text(file)))
            pairs = [(key, *pair) for key, pair in content.items()]
        else:
            lines = [line.partition(" ") for line in read_text(file).splitlines() if line.strip()]
            pairs = [(str(number), folder, name) for number, (folder, _, name) in enumerate(lines)]
        named = [(key, folder, name.partition(",")[0].strip()) for key, folder, name in pairs]
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        raise BadData(
            f"{file} cannot be read ({problem}).", "Put there the file as its authors publish it."
        ) from problem
    return {key: name for number, folder, name in named for key in (number, folder)}


def _listed(path: Path) -> list[Row]:
    """Rows of OpenOOD's lists: all test_*.txt of a folder, or one file."""
    files = [path] if path.is_file() else sorted(path.glob(TESTS))
    found = [(file.stem, line) for file in files for line in read_text(file).splitlines() if line.strip()]
    lines = [(stem, LIST.fullmatch(line.strip())) for stem, line in found]
    rows = [(stem, match[1], int(match[2])) for stem, match in lines if match]
    bad = [line for (_, line), (_, match) in zip(found, lines, strict=True) if match is None]
    if bad:
        what = f"{len(bad)} lines are no path and label (first: {bad[0][:60]!r})"
        raise BadData(f"{path} is not {OPENOOD}: {what}.", OPENOOD_HOW)
    names = _class_names(path if path.is_dir() else path.parent) or _by_folder(rows)
    return [
        {"list": stem.removeprefix("test_"), "image": image, "label": label, "name": names.get(str(label), "")}
        for stem, image, label in rows
    ]


def _by_folder(rows: Iterable[tuple[str, str, int]]) -> Mapping[str, str]:
    """Names by number where each number has pictures of one folder, and no folder has two."""
    folders: defaultdict[int, set[str]] = defaultdict(set)
    for _, image, label in rows:
        folders[label].add(Path(image).parent.name)
    folders.pop(-1, None)
    single = {str(label): next(iter(own)) for label, own in folders.items() if len(own) == 1}
    return single if len(set(single.values())) == len(folders) else {}


def _openood(row: Row, place: Place) -> list[Draft]:
    """Fields list, image, label (-1: not known) and name."""
    known, name = int(row["label"]) >= 0, str(row["name"]).replace("_", " ")
    if known and (not name or WORDNET.fullmatch(name)):
        raise Lacking(f"the label {row['label']}, whose name nothing tells", NAMES_HOW)
    image = text(row, "image")
    answers = (name,) if known else ()
    return [Draft("", id=f"{row['list']}/{image}", group=str(row["list"]), pictures=(image,), answers=answers)]


def _images_with_captions(content: Any) -> list[Any]:
    """COCO's {images, annotations} as a row for each image, with its captions in their order."""
    if not isinstance(content, dict):
        return listed_rows(content)
    both = cast("Mapping[str, Sequence[Mapping[str, Any]]]", content)
    told: defaultdict[Any, list[str]] = defaultdict(list)
    for one in both.get("annotations", ()):
        told[one.get("image_id")].append(" ".join(str(one.get("caption") or "").split()))
    return [
        {**image, "captions": [words for words in told[image.get("id")] if words]} for image in both.get("images", ())
    ]


def _coco(row: Row, place: Place) -> list[Draft] | str:
    """Fields id, file_name and captions, of which the first is taken."""
    captions = cast("Sequence[str]", row.get("captions") or ())
    if not captions:
        return "no caption"
    return [Draft("", id=text(row, "id"), pictures=(text(row, "file_name"),), caption=captions[0])]


FOLDER_HOW = (
    "Pass a folder CLASS/picture or SHIFT/CLASS/picture: ImageNet's val sorted by class, ImageNet-R, ImageNet-Sketch, "
    "ImageNet-C (CORRUPTION/SEVERITY/CLASS/picture), several of them side by side; the one called clean is unshifted."
)
OPENOOD = "OpenOOD, known and unknown pictures by list"
OPENOOD_HOW = (
    "Take a folder of benchmark_imglist, and the folder of pictures that its paths start at, from its repository."
)

ADAPTERS = (
    Adapter(
        name="image_folder",
        kind="robustness",
        title="pictures in folders by class, and by shift",
        paper="the layout of Deng et al., ImageNet, CVPR 2009; Hendrycks and Dietterich, ImageNet-C, arXiv 1903.12261",
        repository="https://github.com/hendrycks/robustness",
        licence="that of your pictures",
        files=("*/*",),
        walk=_walked,
        convert=_picture,
        how=FOLDER_HOW,
        pictures="needed",
        unlabelled=None,
    ),
    Adapter(
        name="openood",
        kind="robustness",
        title=OPENOOD,
        paper="Yang et al., OpenOOD, NeurIPS 2022, arXiv 2210.07242",
        repository="https://github.com/Jingkang50/OpenOOD",
        licence="those of the sets it lists",
        files=(TESTS,),
        walk=_listed,
        convert=_openood,
        how=OPENOOD_HOW,
        pictures="needed",
        caution="every test list of the folder is read: near and far sets of unknown pictures count together",
        unlabelled=None,
    ),
    Adapter(
        name="coco_captions",
        kind="robustness",
        title="COCO captions, the first of each picture",
        paper="Chen et al., Microsoft COCO Captions, arXiv 1504.00325",
        repository="https://cocodataset.org",
        licence="CC BY 4.0 (annotations); pictures by Flickr's terms",
        files=("captions_*.json",),
        convert=_coco,
        how="Take annotations/captions_val2017.json and val2017 from its page.",
        pictures="needed",
        unlabelled=None,
        unfold=_images_with_captions,
    ),
)
