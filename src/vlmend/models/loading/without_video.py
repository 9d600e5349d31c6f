"""Processors without their video part: transformers builds that of torchvision, and vlmend asks about images only.

Qwen2-VL to Qwen3.5, GLM-4V, InternVL and others have one. Which class stands for a part of a processor, transformers
looks up in two tables; while a processor is loaded, the entries of the video part name `NoVideo`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from transformers import processing_utils
from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["NoVideo", "without_video"]

PART = "video_processor"


class NoVideo(BaseImageProcessor):
    """Stands where the video part of a processor would; nothing calls it, since no request holds a video.

    Attributes:
        merge_size, temporal_patch_size, num_frames, fps: What processors look up even where there is no video.
    """

    merge_size, temporal_patch_size, num_frames, fps = 2, 2, 1, 1

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> NoVideo:
        """The same for every checkpoint."""
        return cls()

    def preprocess(self, *_: object, **__: object) -> Any:
        """Refused.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("vlmend loads processors without their video part")


@contextmanager
def without_video() -> Generator[None]:
    """Inside the block, processors are built with `NoVideo` for their video part."""
    loaders: dict[str, Any] = processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING._MAPPING_NAMES  # pyright: ignore[reportPrivateUsage]
    accepted: dict[str, Any] = processing_utils.MODALITY_TO_BASE_CLASS_MAPPING
    before = loaders[PART], accepted[PART]
    loaders[PART], accepted[PART] = (NoVideo.__module__, NoVideo.__name__), "ImageProcessingMixin"
    try:
        yield
    finally:
        loaders[PART], accepted[PART] = before
