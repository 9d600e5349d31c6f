"""StreetHazards: drawn streets with things in them that no class is called by, and a label for each pixel."""

from __future__ import annotations

import numpy as np
import PIL.Image

from vlmend.core.images import Image
from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Lacking, Row, text

__all__ = ["ADAPTERS"]

KNOWN = (
    "building", "fence", "pedestrian", "pole", "road line", "road", "sidewalk", "vegetation", "car", "wall",
    "traffic sign",
)  # fmt: skip
"""Names of the known classes; a further one is called "other", which names nothing."""

CLASSES = range(2, 14)
"""Labels of the known classes, "other" among them; 1 is unlabelled."""

UNKNOWN = 14
"""The label of the unknown things."""

WHITE, GREY, BLACK = 255, 128, 0


def _street_hazards(row: Row, place: Place) -> list[Draft]:
    """Fields fpath_img and fpath_segm, from the folder of test.odgt; the town is a group."""
    picture, labels = text(row, "fpath_img"), text(row, "fpath_segm")
    town = picture.rpartition("/")[0].rpartition("/")[2]
    return [
        Draft(
            prompt="",
            id=picture,
            group=town,
            pictures=(picture,),
            answers=KNOWN,
            further=(_mask(place, labels),),
        )
    ]


def _mask(place: Place, labels: str) -> bytes:
    """A picture of labels as a mask: white where the unknown thing is, black where a class is, grey elsewhere."""
    try:
        with PIL.Image.open(place.file.parent / labels) as opened:
            found = np.asarray(opened)
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as problem:
        raise Lacking(f"labels {labels} that cannot be read ({problem})") from None
    if found.ndim != 2:
        raise Lacking(f"labels {labels} with {found.ndim} axes, of which there must be two")
    mask = np.where(found == UNKNOWN, WHITE, np.where(np.isin(found, CLASSES), BLACK, GREY)).astype(np.uint8)
    return Image.from_pixels(PIL.Image.fromarray(mask), labels).content


ADAPTERS = (
    Adapter(
        name="street_hazards",
        kind="robustness",
        title="StreetHazards, test part",
        paper="Hendrycks et al., Scaling Out-of-Distribution Detection, ICML 2022, arXiv 1911.11132",
        repository="https://github.com/hendrycks/anomaly-seg",
        licence="not known here; read its repository",
        files=("test.odgt", "test/test.odgt"),
        convert=_street_hazards,
        how="Take streethazards_test.tar, which its repository links, and pass the folder that holds test.odgt.",
        pictures="needed",
        caution='the class "other" counts as known and has no name; scores are means over pictures',
        unlabelled=None,
    ),
)
