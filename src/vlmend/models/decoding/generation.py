"""What transformers' own loop is told, and which tokens end a reply."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from vlmend.core.conversation import Sampling
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import check_finite

__all__ = ["Finite", "bare_settings", "ends_of", "generation"]


class Finite(LogitsProcessor):
    """Stops at logits that are not finite, from which any token could be chosen."""

    def __call__(
        self, input_ids: Int[Tensor, "row token"], scores: Float[Tensor, "row vocabulary"]
    ) -> Float[Tensor, "row vocabulary"]:
        check_finite(scores)
        return scores


def generation(reader: Reader, sampling: Sampling) -> GenerationConfig:
    """Decoding as asked; what is left open here must not be filled by a checkpoint (`bare_settings`)."""
    drawn = sampling.temperature > 0
    ends = sorted(ends_of(reader))
    pad = reader.model.generation_config.pad_token_id
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
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else next(iter(ends), None),
    )


@contextmanager
def bare_settings(model: Any) -> Generator[None]:
    """Without a checkpoint's own settings of generation, while the block lasts.

    transformers puts them in the place of all that it is not told: suppressed tokens, forbidden words, n-grams, stop
    strings, a time limit. Some models hand generation to a part that has settings of its own.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel) and part.can_generate()]
    held = [(part, cast("Any", part).generation_config) for part in parts]
    try:
        for part, _ in held:
            cast("Any", part).generation_config = GenerationConfig()
        yield
    finally:
        for part, own in held:
            cast("Any", part).generation_config = own


def ends_of(reader: Reader) -> frozenset[int]:
    """Tokens that end a reply: those of the checkpoint's settings and that of its tokenizer."""
    told = cast("int | list[int] | None", reader.model.generation_config.eos_token_id)
    own = cast("int | None", reader.processor.tokenizer.eos_token_id)
    ends = [told] if isinstance(told, int) else told or []
    return frozenset(ends) | (frozenset() if own is None else frozenset([own]))
