"""The word-level tokenizer and the processor of phantom-clip.

A token is a word in small letters, a mark, or one digit: numbers are spelt. Words outside the vocabulary are one and
the same token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPImageProcessorPil, CLIPProcessor, PreTrainedTokenizerFast

from vlmend.pictures.views import SIDE

__all__ = ["END", "LONGEST", "processor", "tokenizer", "vocabulary"]

SPECIAL = ("<pad>", "<start>", "<unknown>", "<end>")
END = SPECIAL.index("<end>")
"""Where CLIP reads a text. Not 2: transformers takes that number for a sign of checkpoints with a wrong one."""
LONGEST = 32
"""Of a text in tokens, both ends counted."""

_NORMALIZER = normalizers.Lowercase()
_SPLITTER = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)])


def vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """Every token, its number its place: the special ones, then those of the texts, sorted."""
    found = {word for text in texts for word, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(text))}
    return (*SPECIAL, *sorted(found))


def tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """From a vocabulary."""
    pad, start, unknown, end = SPECIAL
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=unknown))
    inner.normalizer = _NORMALIZER
    inner.pre_tokenizer = _SPLITTER
    inner.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, SPECIAL.index(start)), (end, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=LONGEST, padding_side="right", pad_token=pad, bos_token=start,
        unk_token=unknown, eos_token=end, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def processor(words: Sequence[str]) -> CLIPProcessor:
    """Pictures to [-1, 1] and texts to tokens."""
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(
        size=side, do_center_crop=False, crop_size=side, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip
    return CLIPProcessor(images, tokenizer(words))
