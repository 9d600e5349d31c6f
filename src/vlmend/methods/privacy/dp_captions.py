"""DP-Cap: a model that answers learns captions and replies under differential privacy, row by row.

Sander et al., ICML 2024, arXiv 2403.02506. The loss of captions is a sum over rows, unlike a contrastive one, so
ordinary private training applies (Abadi et al., arXiv 1607.00133): with g_r the gradient of row r and B the expected
number of rows,

    g = (sum over rows of g_r min(1, C / |g_r|) + N(0, (noise C)^2)) / B

A LoRA adapter on every linear module of the decoder learns; the gradients of rows are opacus's (`training.private`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.promises import cautions_of, check_promise, entropy_of, with_notes
from vlmend.training.batches import Row, reply_batch, row_of
from vlmend.training.losses import IGNORED, reply_logprobs
from vlmend.training.private import Ledger, drawn_rows, ledger_for, noisy_mean, rows_apart
from vlmend.training.twin import Twin, twin_of

__all__ = ["METHOD", "DpCaptions", "caption_rows", "private_step", "row_losses"]

AT_ONCE = 32
"""Rows whose gradients are held in memory together."""


@dataclass(frozen=True)
class DpCaptions(AbstractMethod[ChatWeights]):
    """A tuning on captions or replies that promises something for each row.

    Attributes:
        epsilon, delta: The promise for each row; delta should lie below one in the number of rows.
        steps, rate: Of Adam.
        batch: Rows in a step, on average.
        clip: C, the longest gradient of a row.
        rank: Of the adapter; noise grows with the square root of the number of parameters.
        key: File with the secret that batches and noise are drawn from, at least 16 bytes; from the seed unless given.
    """

    name: ClassVar[str] = "dp_captions"
    source: ClassVar[str] = "Sander et al., arXiv 2403.02506, ICML 2024"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; two small products a linear module"
    data: ClassVar[str] = "pictures with captions, or questions with answers; private training"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 2, "batch": 3, "rank": 2, "epsilon": 50.0, "rate": 1e-2}
    changes_text: ClassVar[bool] = True

    epsilon: float = 8.0
    delta: float = 1e-5
    steps: int = 200
    rate: float = 2e-3
    batch: int = 128
    clip: float = 1.0
    rank: int = 2
    key: str = ""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.rate <= 0 or not 0 < self.clip < math.inf:
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, rank={self.rank}, rate={self.rate:g}, clip={self.clip:g} "
                "cannot be.",
                "rate and clip are above 0, clip is finite, the others are at least 1.",
            )
        check_promise(self.epsilon, self.delta, "vlguard or dpo")

    def sample_data(self) -> Dataset:
        rows = (Example(str(k), image=noise_image(16, k), caption=f"noise {k}") for k in range(6))
        return Dataset("captions", tuple(rows))

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Train the adapter on a twin of the model.

        Raises:
            BadData: There are fewer than two rows.
            BadParameter: A promise that cannot be kept.
            UsageError: The key cannot be read, or others may read it.
            MissingExtra: opacus or peft is not installed.
        """
        rows = caption_rows(data)
        ledger = ledger_for(self.epsilon, self.delta, min(1.0, self.batch / len(rows)), self.steps)
        draws = Generator().manual_seed(entropy_of(self.key, seed))
        twin = self.trained(target, rows, ledger.noise, self.clip, ledger.sampling, seed, draws)
        made = self.made(target, data, seed, twin.edits, {})
        return with_notes(made, [_told(ledger, self.clip), *cautions_of(self.key, self.delta, len(rows))])

    def trained(
        self, target: ChatWeights, rows: Sequence[Row], noise: float, clip: float, sampling: float, seed: int,
        draws: Generator,
    ) -> Twin:  # fmt: skip
        """A twin that has learnt the rows; with noise 0 and clip infinite as by ordinary training on the same batches.

        Args:
            sampling: Chance of a row to be in a step.
            draws: Of batches and noise.
        """
        twin = twin_of(target, "decoder", rank=self.rank, seed=seed)
        optimiser = torch.optim.Adam(twin.parameters, lr=self.rate)
        expected = sampling * len(rows)
        with rows_apart(twin.model):
            for _ in range(self.steps):
                batch = [rows[place] for place in drawn_rows(len(rows), sampling, draws)]
                found = private_step(target, twin, batch, expected, clip, noise, draws)
                for parameter, gradient in zip(twin.parameters, found, strict=True):
                    parameter.grad = gradient
                optimiser.step()
        return twin


def private_step(
    target: ChatWeights, twin: Twin, batch: Sequence[Row], expected: float, clip: float, noise: float,
    draws: Generator,
) -> list[Tensor]:  # fmt: skip
    """The noisy mean gradient of a batch, in the shapes of the twin's parameters; while `rows_apart` is open."""
    parts = [batch[k : k + AT_ONCE] for k in range(0, len(batch), AT_ONCE)] or [[]]
    total: list[Tensor] = []
    for last, part in zip([*[False] * (len(parts) - 1), True], parts, strict=True):
        for parameter in twin.parameters:
            parameter.grad = parameter.grad_sample = None  # pyright: ignore[reportAttributeAccessIssue]
        if part:
            row_losses(target, twin.model, part).sum().backward()
        each = noisy_mean(twin.parameters, expected, clip, noise if last else 0.0, draws)
        total = [a + b for a, b in zip(total, each, strict=True)] if total else each
    return total


def row_losses(target: ChatWeights, model: Any, rows: Sequence[Row]) -> Tensor:
    """Mean cross-entropy of each row's reply tokens, " row"; a row's depends on no other row."""
    inputs, labels = reply_batch(target.reader, rows)
    logits = model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]
    return -reply_logprobs(logits, labels) / (labels != IGNORED).sum(1).clamp_min(1)


def caption_rows(data: Dataset) -> list[Row]:
    """Each row with words to learn: its question and first answer, or what the picture shows and the caption.

    Raises:
        BadData: There are fewer than two.
    """
    rows = [learnt for row in data.examples if (learnt := row_of(row)) is not None]
    if len(rows) < 2:
        raise BadData(
            f"{data.name} has {len(rows)} rows to learn.",
            "Pass rows with image and caption, or with prompt and answers.",
        )
    return rows


def _told(ledger: Ledger, clip: float) -> str:
    """The ledger in words."""
    return (
        f"Promised for each row: epsilon {ledger.epsilon:.4g} at delta {ledger.delta:g}, by noise {ledger.noise:.4g} "
        f"times the sensitivity {clip:g}, sampling rate {ledger.sampling:.4g}, {ledger.steps} steps."
    )


METHOD = DpCaptions
