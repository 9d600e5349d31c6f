"""Pictures with the words that stood beside them on the web: LAION's metadata, and what img2dataset writes."""

from __future__ import annotations

from vlmend.data.adapter import Adapter, Draft, Place
from vlmend.data.rows import Row, maybe, text

__all__ = ["ADAPTERS"]

KEPT = {
    "url": ("url", "URL"), "similarity": ("similarity",), "nsfw": ("NSFW", "nsfw"), "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark",), "hateful": ("hateful",), "targeted": ("targeted",), "aggressive": ("aggressive",),
    "toxicity": ("toxicity",),
}  # fmt: skip
"""Attributes that are kept, by the columns that may hold them: LAION's own, and scores of words as suites read them."""

INDEX_DIGITS = 4
"""Of a key of img2dataset; those before are the shard, whose folder holds the picture."""
SUFFIXES = ("jpg", "png", "webp")
DONE = "success"


def _laion(row: Row, place: Place) -> list[Draft] | str:
    """Columns TEXT or caption, URL or url, scores; of img2dataset also key and status."""
    caption = maybe(row, "TEXT", "caption", "text")
    if not caption:
        text(row, "URL", "url")
        return "without words"
    key = maybe(row, "key")
    if place.pictured and maybe(row, "status") not in ("", DONE):
        return "whose picture was not to be had when img2dataset asked for it"
    named = [f"{folder}{key}.{suffix}" for folder in (f"{key[:-INDEX_DIGITS]}/", "") for suffix in SUFFIXES]
    told = {name: found for name, columns in KEPT.items() if (found := maybe(row, *columns))}
    return [Draft("", id=key, pictures=tuple(named) if key else (), caption=caption, attributes=told)]


ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="laion",
        kind="captions",
        title="LAION's metadata, or pictures with captions as img2dataset writes them",
        paper="Schuhmann et al., LAION-400M, arXiv 2111.02114, and LAION-5B, arXiv 2210.08402",
        repository="https://github.com/rom1504/img2dataset",
        licence="not known here; read their pages; pictures by their sites' terms",
        unlabelled=None,
        files=("*.parquet", "*.jsonl", "*.csv", "*.tsv"),
        convert=_laion,
        how="Take LAION's metadata files, or the folder that img2dataset wrote with --output_format files (of tar "
        "shards each unpacked into a folder of its name).",
        pictures="optional",
        as_text="captions and scores alone; addresses are not fetched",
    ),
)
