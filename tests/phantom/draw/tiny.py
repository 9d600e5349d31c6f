"""A phantom-draw of a few thousand weights, built in a second: what it draws is noise."""

from __future__ import annotations

from vlmend.phantom.draw.recipe import DrawRecipe

TINY = DrawRecipe(
    "tiny", objects=4, views=4, duplicated=1, copies=5, packing_steps=2, steps=2, batch=4, widths=(8, 16)
)  # fmt: skip
