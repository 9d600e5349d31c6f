"""Packs the 128 px glyphs of people and things into one file.

Run by hand when the glyphs change; users never need it. It reads an unpacked `@iconify-json/noto` package
(npm, 1.1.18; vector drawings of Noto Emoji, Apache-2.0), draws them with `resvg_py` (PyPI) and writes `glyphs.zip`:

- `names.tsv`: one row a glyph (id, name, category, profession, gender, tone);
- `ID.webp`: the glyph, lossless, RGBA, 128 x 128;
- `ID.skin.webp`: for each profession and gender, under the id of the default tone, how much of a pixel is skin.

That release has the people of Noto 2.04 (2023). Later ones draw the same astronaut for all genders, and change hair and
clothes of singers with the skin tone. Which things are packed, and what they are called, is `objects.tsv`.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from vlmend.pictures.glyphs import GENDERS, HEADER, SIDE, TONES

__all__ = ["PROFESSIONS", "pack"]

PROFESSIONS = (
    "artist", "astronaut", "construction worker", "cook", "detective", "factory worker", "farmer", "firefighter",
    "guard", "health worker", "judge", "mechanic", "office worker", "pilot", "police officer", "scientist", "singer",
    "student", "teacher", "technologist",
)  # fmt: skip
LIGHT_SKIN = {"#F9DDBD", "#EDC391", "#EDBD82", "#DBA689", "#FFD29C"}
"""Paints of skin and its shades in the drawings of light skin, where nothing else has them."""

PAINT = re.compile(r'(fill|stroke|stop-color)="(#[0-9A-Fa-f]{3,6}|[a-z]+)"')
Row = tuple[str, str, str, str, str, str]


class _Drawings:
    """The drawings of the npm package, by icon name."""

    def __init__(self, package: Path) -> None:
        self._bodies: dict[str, dict[str, Any]] = json.loads((package / "icons.json").read_text())["icons"]
        self._render: Any = importlib.import_module("resvg_py").svg_to_bytes
        code_points: dict[str, str] = json.loads((package / "chars.json").read_text())
        self.ids = {icon: points for points, icon in code_points.items()}

    def glyph(self, icon: str) -> Image.Image:
        return self._drawn(self._bodies[icon]["body"])

    def skin(self, icon: str) -> Image.Image:
        """How much of each pixel is skin, 0 to 255, from the drawing of light skin."""
        drawn = self._drawn(PAINT.sub(_white_where_skin, self._bodies[icon]["body"]))
        seen = drawn.getchannel("A").point([0] + 255 * [255])
        return ImageChops.multiply(drawn.getchannel("R"), seen)

    def _drawn(self, body: str) -> Image.Image:
        box = f'viewBox="0 0 128 128" width="{SIDE}" height="{SIDE}"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{body}</svg>'
        return Image.open(io.BytesIO(bytes(self._render(svg_string=svg, skip_system_fonts=True)))).convert("RGBA")


def pack(package: Path, objects: Path, out: Path) -> int:
    """Write the pack and return how many glyphs it holds.

    Args:
        package: The unpacked npm package.
        objects: The table of things: icon, name, category.
        out: The zip file.
    """
    drawings = _Drawings(package)
    rows: list[Row] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as pack_file:
        for line in objects.read_text().splitlines()[1:]:
            icon, name, category = line.split("\t")
            rows.append((drawings.ids[icon], name, category, "", "", ""))
            _write(pack_file, f"{drawings.ids[icon]}.webp", drawings.glyph(icon))
        for profession in PROFESSIONS:
            for gender in GENDERS:
                rows += _pack_person(pack_file, drawings, profession, gender)
        table = "".join("\t".join(row) + "\n" for row in (HEADER, *rows))
        pack_file.writestr(_entry("names.tsv"), table.encode())
    return len(rows)


def _pack_person(pack_file: zipfile.ZipFile, drawings: _Drawings, profession: str, gender: str) -> Iterator[Row]:
    """The six tones, and the skin they share."""
    icon = profession.replace(" ", "-") if gender == "person" else f"{gender}-{profession.replace(' ', '-')}"
    for tone in TONES:
        toned = icon if tone == "default" else f"{icon}-{tone}-skin-tone"
        _write(pack_file, f"{drawings.ids[toned]}.webp", drawings.glyph(toned))
        yield drawings.ids[toned], profession, "person", profession, gender, tone
    _write(pack_file, f"{drawings.ids[icon]}.skin.webp", drawings.skin(f"{icon}-light-skin-tone"))


def _white_where_skin(paint: re.Match[str]) -> str:
    where, colour = paint.groups()
    if colour == "none":
        return paint.group()
    return f'{where}="{"#fff" if colour.upper() in LIGHT_SKIN else "#000"}"'


def _write(pack_file: zipfile.ZipFile, name: str, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=80, method=4)
    pack_file.writestr(_entry(name), buffer.getvalue())


def _entry(name: str) -> zipfile.ZipInfo:
    """A fixed date, so that the pack is the same bytes each time."""
    return zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0))


if __name__ == "__main__":
    here = Path(__file__).parents[2] / "src" / "vlmend" / "pictures"
    print(pack(Path(sys.argv[1]), here / "objects.tsv", here / "glyphs.zip"))
