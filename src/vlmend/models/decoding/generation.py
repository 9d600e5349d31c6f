"""What transformers' own loop is told, and which tokens end a reply."""

from __future__ import annotations

from typing import Any, cast

from transformers import GenerationConfig

from vlmend.core.conversation import Sampling

__all__ = ["ends_of", "generation"]


def generation(model: Any, sampling: Sampling) -> GenerationConfig:
    """Decoding as asked; a checkpoint's own sampling settings and penalties do not leak in."""
    own = model.generation_config
    drawn = sampling.temperature > 0
    ends = own.eos_token_id
    first = ends[0] if isinstance(ends, list) and ends else ends
    return GenerationConfig(
        disable_compile=True,  # beside a static cache transformers would compile, and hooks would be passed by
        max_new_tokens=sampling.max_new_tokens,
        min_new_tokens=sampling.least or None,
        do_sample=drawn,
        temperature=sampling.temperature if drawn else None,
        top_k=0 if drawn else None,
        top_p=1.0 if drawn else None,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else first,
    )


def ends_of(model: Any) -> frozenset[int]:
    """Tokens that end a reply."""
    ends = cast("int | list[int] | None", model.generation_config.eos_token_id)
    return frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)
