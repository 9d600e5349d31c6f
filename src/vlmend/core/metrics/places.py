"""Places: how far two are apart, and the coordinates that a text tells."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["RADIUS", "Point", "coordinates", "kilometres"]

RADIUS = 6371.0
"""Of the earth taken as a ball, in kilometres; the error of it is 0.6 % at most."""

_NUMBER = r"([+-]?\d{1,3}(?:\.\d+)?)\s*°?\s*"
_LETTERED = re.compile(rf"{_NUMBER}([NS])\b[\s,;]*(?:and\s*)?{_NUMBER}([EW])\b", re.IGNORECASE)
_PLAIN = re.compile(r"(?<![\d.])([+-]?\d{1,2}\.\d+)\s*°?\s*,\s*([+-]?\d{1,3}\.\d+)(?![\d.])")


class Point(NamedTuple):
    """Latitude and longitude in degrees, north and east above 0."""

    latitude: float
    longitude: float

    @property
    def there(self) -> bool:
        """Whether there is such a place."""
        return abs(self.latitude) <= 90 and abs(self.longitude) <= 180


def kilometres(one: Point, other: Point) -> float:
    """Along the great circle, by the haversine formula: stable for places close by and across the 180th meridian."""
    lat1, lon1, lat2, lon2 = map(math.radians, (*one, *other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * RADIUS * math.asin(min(1.0, math.sqrt(half)))


def coordinates(text: str) -> Point | None:
    """The first coordinates in a text: "59.91 N, 10.75 E", "59.91° N 10.75° E" or "59.91, 10.75"; None of others."""
    for found in _LETTERED.finditer(text):
        latitude, north, longitude, east = found.groups()
        point = Point(float(latitude) * (-1 if north in "Ss" else 1), float(longitude) * (-1 if east in "Ww" else 1))
        if point.there:
            return point
    for found in _PLAIN.finditer(text):
        point = Point(float(found[1]), float(found[2]))
        if point.there:
            return point
    return None
