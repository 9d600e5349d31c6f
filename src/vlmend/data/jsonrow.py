"""One row of a data file in our own layout: what it may hold, what is wrong with it, and both ways to an `Example`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from vlmend.core.conversation import Turn
from vlmend.core.examples import Example, Label
from vlmend.core.images import Image
from vlmend.errors import BadImage

__all__ = ["JsonRow", "JsonTurn", "Problem", "example_of", "problems_of", "row_of"]

DATA_URI = "data:"

MISNAMED = {
    "image", "images", "imagepath", "imagepaths", "imagefile", "imagefiles", "imagename", "imagefilename", "imageurl",
    "imageuri", "imagebytes", "img", "imgs", "imgpath", "imgfile", "imgurl", "picture", "pictures", "picturepath",
    "pic", "photo", "photos", "photopath",
}  # fmt: skip
"""Names that people give to pictures, in small letters alone."""

NEAR = 0.8
"""How like a field's name must be to `image` to be taken for a slip: `iamge` is 0.8, `imge` 0.89, `usage` 0.6."""

PICTURE = re.compile(r"(?i)^data:image/|\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif|heic)$")
"""What a path of a picture, or a picture as text, looks like."""


ADDRESS = re.compile(r"(?i)[a-z][a-z0-9+.-]*://")
"""What an address begins with; of a drive's letter it is told by the second slash."""


class JsonTurn(BaseModel):
    """A message before the prompt."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    text: str = ""
    images: tuple[str, ...] = ()


class JsonRow(BaseModel):
    """A row of JSONL. Images are paths or data URIs; `image` comes before `images`."""

    model_config = ConfigDict(extra="allow")

    prompt: str | None = None
    label: Label | None = None
    image: str | None = None
    images: tuple[str, ...] | None = None
    id: str | int | None = None
    category: str = ""
    caption: str | None = None
    answers: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    turns: tuple[JsonTurn, ...] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """Every picture of the last turn, in order."""
        return (*(() if self.image is None else (self.image,)), *(self.images or ()))


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row, and what to do about it where that is no matter of course."""

    what: str
    hint: str = ""


def problems_of(failed: ValidationError) -> list[Problem]:
    """The first thing that a row fails by, with the field's name."""
    first = failed.errors()[0]
    field = ".".join(map(str, first["loc"])) or "row"
    hints = {
        "image": 'One picture is "image": path; several are "images": [path, ...].',
        "images": 'Several pictures are "images": [path, ...].',
        "attributes": '"attributes" are texts by name, numbers in quotation marks.',
    }
    return [Problem(f"{field}: {first['msg']}", hints.get(field.partition(".")[0], ""))]


def example_of(row: JsonRow, name: str, folder: Path) -> tuple[Example | None, list[Problem]]:
    """The example that a row stands for, or what is wrong with it.

    Args:
        name: Its id, where it has none.
        folder: Where paths start.
    """
    found = [*_misnamed(row), *_lacking(row)]
    if found:
        return None, found
    own = name if row.id is None else str(row.id)
    try:
        first, *more = [_image(text, own, folder) for text in row.pictures] or [None]
        turns = tuple(
            Turn(turn.role, turn.text, tuple(_image(text, own, folder) for text in turn.images)) for turn in row.turns
        )
    except BadImage as problem:
        return None, [Problem(problem.message, problem.hint)]
    example = Example(
        own, row.prompt or "", row.label, row.category, first, row.caption, row.answers, row.attributes,
        tuple(image for image in more if image is not None), turns,
    )  # fmt: skip
    return example, []


def row_of(example: Example, path: Callable[[Image], str]) -> JsonRow:
    """The row that `example_of` makes this example of.

    Args:
        path: Puts an image away and gives what a row says for it.
    """
    paths = [path(image) for image in example.images]
    turns = tuple(
        JsonTurn(role=turn.role, text=turn.text, images=tuple(path(image) for image in turn.images))
        for turn in example.turns
    )
    return JsonRow(
        id=example.id, prompt=example.prompt, label=example.label, category=example.group,
        image=paths[0] if len(paths) == 1 else None, images=tuple(paths) if len(paths) > 1 else None,
        caption=example.caption, answers=example.answers, attributes=dict(example.attributes), turns=turns,
    )  # fmt: skip


def _misnamed(row: JsonRow) -> list[Problem]:
    """A picture under a name that nobody reads: it would be left out without a word."""
    if row.pictures or any(turn.images for turn in row.turns):
        return []
    extra = cast("Mapping[str, Any]", row.model_extra or {})
    names = [name for name, value in extra.items() if value and _holds_picture(name, value)]
    return [
        Problem(f"{name}: a picture under this name is not read", f'Rename "{name}" to "image" (several: "images").')
        for name in names
    ]


def _holds_picture(name: str, value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_picture(name, one) for one in cast("list[Any]", value))
    if isinstance(value, dict):
        inner = cast("Mapping[str, Any]", value)
        return _means_picture(name) or any(_holds_picture(key, one) for key, one in inner.items())
    return isinstance(value, str) and bool(value) and (_means_picture(name) or bool(PICTURE.search(value)))


def _means_picture(name: str) -> bool:
    """Whether a field is called as people call pictures, one letter wrong or two in the wrong order included."""
    plain = re.sub(r"[\W_\d]+", "", name).lower()
    near = get_close_matches(plain, ("image", "images", "picture"), cutoff=NEAR)
    return plain in MISNAMED or any(abs(len(plain) - len(one)) < 2 for one in near)


def _lacking(row: JsonRow) -> list[Problem]:
    """What a row does not say: nothing can be asked without words or a picture, and nothing said of an empty row."""
    shown = (*row.pictures, *(text for turn in row.turns for text in turn.images))
    if any(ADDRESS.match(text) for text in shown):
        return [Problem("image: addresses are not fetched", "Fetch the pictures yourself and name their files.")]
    if any(not text.strip() for text in shown):
        return [Problem('image: "" is no path', "Leave the field out, or write null, where there is no picture.")]
    if (row.prompt or "").strip():
        return []
    if row.label is not None and row.prompt is None:
        return [Problem("prompt: missing", 'A row with a label says what is asked; "" where the picture asks.')]
    if row.label is not None and not row.pictures:
        return [Problem("prompt: empty, and there is no image", "Write what is asked, or take the row out.")]
    if row.pictures or row.turns or (row.caption or "").strip() or row.attributes:
        return []
    return [Problem("row: no prompt, image, caption, turns or attributes", "")]


def _image(text: str, name: str, folder: Path) -> Image:
    return Image.from_data_uri(text, name) if text.lower().startswith(DATA_URI) else Image.in_folder(folder, text)
