"""Views: how a glyph, a word or a scene comes to be a small picture, and the distribution shifts.

An ordinary view has a plain ground in a random colour. Each named shift changes one thing about it. What a phantom was
trained on is in its recipe; no recipe trains on a shifted view unless it says so.
"""

from __future__ import annotations

import random
from typing import Literal, get_args

from PIL import Image, ImageChops, ImageFilter, ImageOps

__all__ = ["SHIFTS", "SIDE", "Colour", "Shift", "fitted_turn", "large_angle", "plain_colour", "shown", "view"]

SIDE = 72
"""Side of a view, in pixels."""

Colour = tuple[int, int, int]

Shift = Literal["ground", "rotation", "blur", "style", "font"]
"""What differs from an ordinary view.

ground: light and shade in many sizes around the plain colour. rotation: by 20 to 45 degrees either way (words and
scenes get smaller to fit). blur: Gaussian, of 1.5 to 2.5 pixels. style: eight shades of grey. font: the second font, of
words only.
"""
SHIFTS: tuple[Shift, ...] = get_args(Shift)

SMALL_ANGLE = 10.0


def view(glyph: Image.Image, rng: random.Random, shift: Shift | None = None) -> Image.Image:
    """A glyph on a ground, at a random place and in a random size, turned by up to 10 degrees.

    Args:
        glyph: RGBA, square.
        rng: What is random comes from here.
        shift: What to change; "font" changes nothing here.

    Returns:
        RGB, 72 x 72.
    """
    ground = plain_colour(rng)
    side = rng.randint(48, 66)
    room = SIDE - side
    small = glyph.resize((side, side), Image.Resampling.LANCZOS)
    angle = large_angle(rng) if shift == "rotation" else rng.uniform(-SMALL_ANGLE, SMALL_ANGLE)
    turned = small.rotate(angle, Image.Resampling.BICUBIC, expand=shift == "rotation")
    corners = (turned.width - side) // 2
    layer = Image.new("RGBA", (SIDE, SIDE))
    layer.paste(turned, (rng.randint(0, room) - corners, rng.randint(0, room) - corners))
    return shown(layer, ground, rng, shift)


def shown(layer: Image.Image, ground: Colour, rng: random.Random, shift: Shift | None = None) -> Image.Image:
    """A drawn layer (RGBA, 72 x 72) on its ground, RGB, with the shift if that is of ground, blur or style."""
    picture = _texture(ground, rng) if shift == "ground" else Image.new("RGB", layer.size, ground)
    picture.paste(layer, mask=layer)
    if shift == "blur":
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 2.5)))
    if shift == "style":
        return ImageOps.posterize(picture.convert("L"), 3).convert("RGB")
    return picture


def fitted_turn(layer: Image.Image, rng: random.Random) -> Image.Image:
    """A layer turned by the shift "rotation" and made smaller, so that nothing is cut off."""
    whole = layer.rotate(large_angle(rng), Image.Resampling.BICUBIC, expand=True)
    return whole.resize(layer.size, Image.Resampling.LANCZOS)


def large_angle(rng: random.Random) -> float:
    """An angle of the shift "rotation", in degrees."""
    return rng.choice((-1, 1)) * rng.uniform(20, 45)


def plain_colour(rng: random.Random) -> Colour:
    """A colour of the ground, from white over pastels to dark."""
    base, spread = rng.choice(((255, 0), (225, 30), (225, 30), (150, 60), (60, 40)))
    red, green, blue = (max(0, min(255, base + rng.randint(-spread, spread))) for _ in range(3))
    return red, green, blue


def _texture(ground: Colour, rng: random.Random) -> Image.Image:
    """Light and shade in four sizes around one colour, finer is fainter, as behind the subject of a photograph."""
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    for cells, strength in ((3, 64), (6, 32), (12, 16), (36, 8)):
        noise = Image.frombytes("L", (cells, cells), bytes(rng.randint(0, 2 * strength) for _ in range(cells**2)))
        shade = noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture = ImageChops.add(picture, Image.merge("RGB", (shade,) * 3), offset=-strength)
    return picture
