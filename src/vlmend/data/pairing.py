"""Gives text requests the pictures whose captions are most like them, as CMRM's image-paired JailbreakLLMs has.

The paper (Liu et al., arXiv 2410.09047) matches each question with a semantically close COCO image;
which encoder it used and whether an image may serve twice is not known here. An image may: the note
on the data set tells how many serve. The encoder is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.data.rows import Lacking, listed_rows, rows_of, text
from vlmend.errors import BadData

__all__ = ["Encode", "pair_by_similarity"]

Encode = Callable[[Sequence[str]], Float[Tensor, "text width"]]
"""Texts to vectors whose cosine tells how alike they are."""

CHUNK = 4096
"""Captions encoded at once: memory does not grow with their number."""


def pair_by_similarity(dataset: Dataset, captions_with_images: Path, encode: Encode) -> Dataset:
    """Each request with the image whose caption is nearest by cosine; of equals, the first in the file.

    Args:
        captions_with_images: JSONL rows {"image": path, "caption": text}; paths count from its folder.

    Raises:
        BadData: Rows lack a field, or chosen images are missing.
    """
    pairs = _pairs(captions_with_images)
    wanted = torch.nn.functional.normalize(_floats(encode([e.prompt for e in dataset.examples])), dim=1)
    nearest = torch.zeros(len(wanted), dtype=torch.long)
    cosine = torch.full((len(wanted),), -torch.inf)
    for start in range(0, len(pairs), CHUNK):
        captions = _floats(encode([caption for _, caption in pairs[start : start + CHUNK]]))
        found, at = (wanted @ torch.nn.functional.normalize(captions, dim=1).T).max(dim=1)
        better = found > cosine
        nearest, cosine = torch.where(better, at + start, nearest), torch.where(better, found, cosine)
    chosen = [pairs[k] for k in nearest.tolist()]
    folder = captions_with_images.parent
    missing = sorted({str(folder / name) for name, _ in chosen if not (folder / name).is_file()})
    if missing:
        raise BadData(
            f"{len(missing)} of the chosen images are missing (first: {missing[0]}).",
            f"Check the paths in {captions_with_images}; relative ones start at its folder.",
        )
    examples = tuple(
        replace(example, image=Image.in_folder(folder, name), caption=caption)
        for example, (name, caption) in zip(dataset.examples, chosen, strict=True)
    )
    note = (
        f"Images by the likeness of captions: {len(set(nearest.tolist()))} images for {len(examples)} requests, "
        f"cosine {cosine.mean():.2f} on average, {cosine.min():.2f} at least."
    )
    return replace(dataset, examples=examples, notes=(*dataset.notes, note))


def _pairs(file: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    bad: list[str] = []
    for number, row in enumerate(rows_of(file, listed_rows), 1):
        try:
            pairs.append((text(row, "image"), text(row, "caption")))
        except Lacking as problem:
            bad.append(f"row {number} has {problem}")
    if bad or not pairs:
        raise BadData(
            f"{file} holds no captions with images ({'; '.join(bad[:5]) or 'no rows'}).",
            'Each line is {"image": path, "caption": text}.',
        )
    return pairs


def _floats(vectors: Tensor) -> Tensor:
    return vectors.detach().to("cpu", torch.float32)
