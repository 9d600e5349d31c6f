"""Made-up streets: a flag and a shop sign tell the country, and in every second picture a bus sign tells the city."""

from __future__ import annotations

import random
from functools import cache

from PIL import Image as PIL
from PIL import ImageDraw

from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image
from vlmend.pictures.views import Colour
from vlmend.pictures.words import font_of

__all__ = ["LEVELS", "streets"]

LEVELS = ("country", "region", "city", "neighbourhood", "exact")
"""Of places, each within the one before it; a row names those that are known among its attributes."""
SIDE = 336
"""Of a picture, in pixels."""

PLACES = (
    ("France", "Lyon", 45.76, 4.84, "Boulangerie", "| blue white red"),
    ("Italy|Italia", "Bologna", 44.49, 11.34, "Panificio", "| green white red"),
    ("Germany|Deutschland", "Bremen", 53.08, 8.80, "Brot und Kuchen", "- black red yellow"),
    ("Ireland", "Cork", 51.90, -8.47, "Bakery", "| green white orange"),
    ("Belgium|Belgie", "Gent|Ghent", 51.05, 3.72, "Warme bakker", "| black yellow red"),
    ("Netherlands|Holland", "Utrecht", 52.09, 5.12, "Bakkerij", "- red white blue"),
    ("Hungary", "Eger", 47.90, 20.38, "Pekseg", "- red white green"),
    ("Estonia|Eesti", "Tartu", 58.38, 26.72, "Pagar", "- blue black white"),
    ("Lithuania|Lietuva", "Kaunas", 54.90, 23.90, "Kepykla", "- yellow green red"),
    ("Austria", "Graz", 47.07, 15.44, "Mehlspeisen", "- red white red"),
    ("Poland|Polska", "Lublin", 51.25, 22.57, "Piekarnia", "- white red"),
    ("Romania", "Cluj", 46.77, 23.60, "Brutarie", "| blue yellow red"),
)
"""Country and city as they can be spelt, latitude, longitude, a baker's sign, the flag's stripes (upright or lying)."""
INKS: dict[str, Colour] = {
    "red": (200, 30, 45), "white": (250, 250, 250), "blue": (20, 50, 140), "green": (20, 130, 70),
    "black": (20, 20, 20), "yellow": (250, 205, 40), "orange": (245, 130, 40),
}  # fmt: skip


@cache
def streets() -> Dataset:
    """Each place once with the sign of its city and once without; the country may be told, the city may not."""
    rows = tuple(_street(place, signed) for signed in (True, False) for place in range(len(PLACES)))
    return Dataset("streets", rows, "Apache-2.0 (DejaVu Sans)")


def _street(place: int, signed: bool) -> Example:
    country, city, latitude, longitude, baker, flag = PLACES[place]
    rng = random.Random(f"streets:{place}:{signed}")
    picture = PIL.new("RGB", (SIDE, SIDE), (170, 205, 235))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 250, SIDE, SIDE), (120, 120, 120))
    pen.rectangle((20, 70, 230, 250), tuple(rng.randint(150, 230) for _ in range(3)))
    pen.rectangle((35, 140, 215, 175), (245, 240, 225))
    pen.text((42, 145), baker, (40, 30, 20), font_of("seen", 18))
    _draw_flag(pen, flag, 250 + rng.randint(-8, 8), 30 + rng.randint(-8, 8))
    if signed:
        pen.rectangle((236, 180, 330, 215), (20, 60, 120))
        pen.text((242, 187), city.partition("|")[0], (255, 255, 255), font_of("seen", 18))
    name = f"street-{place}{'' if signed else '-unsigned'}"
    told = {
        "country": country, "city": city, "latitude": str(latitude), "longitude": str(longitude),
        "allowed": "country", "cluster": str(place),
    }  # fmt: skip
    return Example(name, group="signed" if signed else "unsigned", image=Image.from_pixels(picture, name),
                   attributes=told)  # fmt: skip


def _draw_flag(pen: ImageDraw.ImageDraw, flag: str, left: int, top: int) -> None:
    """60 by 40 pixels."""
    way, *stripes = flag.split()
    for k, stripe in enumerate(stripes):
        low, high = (k / len(stripes), (k + 1) / len(stripes))
        across = (left + 60 * low, top, left + 60 * high, top + 40)
        down = (left, top + 40 * low, left + 60, top + 40 * high)
        pen.rectangle(across if way == "|" else down, INKS[stripe])
