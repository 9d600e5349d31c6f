"""Privacy guard: a small trained head sees that a picture is private, and trained vectors switch the reply.

After Liu et al. 2024, arXiv 2405.13581 (safety head, safety tokens, two stages). Stage one: a probe of the state h at
the last prompt position, of the early layer that tells private pictures from others best. Stage two: a vector for that
layer and each later one, learnt by descent so that the safe reply becomes likely; the model stays as it is.

    weight . h + bias > log(threshold / (1 - threshold)):   h_l <- h_l + v_l from the last prompt token on

Where the head stays silent nothing is added, so such requests are answered bit for bit as before.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vlmend.core.contracts import AbstractMethod
from vlmend.core.edits import AddVector
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import noise_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadData, BadParameter
from vlmend.methods.reading import read_states
from vlmend.methods.safety.cmrm_gated import best_layer, fit_gate
from vlmend.training.batches import Row, chosen, reply_batch
from vlmend.training.loop import LoopSettings, train_at_once
from vlmend.training.losses import reply_loss

__all__ = ["METHOD", "RISK", "PrivacyGuard"]

RISK = "private"
"""The attribute that says whether a picture is private: yes or no."""
NEVER = 1e30
"""Taken off the log-odds where the threshold is 1: nothing exceeds it."""


@dataclass(frozen=True)
class PrivacyGuard(AbstractMethod[ChatWeights]):
    """A head that recognises private pictures, and vectors that then bring about a safe reply.

    Attributes:
        reply: What is to be said beside a private picture.
        threshold: Probability of privacy above which the guard acts, above 0; at 1 it never does.
        layer: Of the head and first vector; unless given, the layer of the first half where the head tells best in
            cross-validation. Later vectors come too late to change a reply that the model is sure of.
        steps: Optimiser steps of the vectors.
        batch: Rows a step.
        rate: Peak learning rate.
    """

    name: ClassVar[str] = "privacy_guard"
    source: ClassVar[str] = "after Liu et al., arXiv 2405.13581"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "none; a product of one state and an addition a layer"
    data: ClassVar[str] = "questions beside pictures that are private and that are not; training"
    quick: ClassVar[Mapping[str, Any]] = {"steps": 3, "batch": 2, "rate": 0.5, "threshold": 0.01}

    reply: str = "I can't tell anything about private documents."
    threshold: float = 0.5
    layer: int | None = None
    steps: int = 60
    batch: int = 16
    rate: float = 5e-2

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Fit the head, then the vectors.

        Raises:
            BadParameter: Numbers out of range, or a layer that the model has not.
            BadData: Fewer than two pictures that are private, or that are not.
        """
        if min(self.steps, self.batch) < 1 or self.rate <= 0 or not 0 < self.threshold <= 1 or not self.reply.strip():
            raise BadParameter(
                f"steps={self.steps}, batch={self.batch}, rate={self.rate}, threshold={self.threshold}, "
                f"reply={self.reply!r} cannot be.",
                "steps and batch are at least 1, rate is above 0, threshold above 0 and at most 1, reply has words.",
            )
        if self.layer is not None and not 0 <= self.layer < target.layers:
            raise BadParameter(
                f"layer={self.layer} does not fit a model of {target.layers} layers.",
                f"They count from 0 to {target.layers - 1}.",
            )
        rows = _rows(data)
        states = read_states(target, rows, lambda row: row.conversation)
        labels = torch.tensor([row.attributes[RISK] == "yes" for row in rows])
        layer = best_layer(states[:, : max(1, target.layers // 2)], labels) if self.layer is None else self.layer
        gate = fit_gate(layer, states[:, layer], labels)
        odds = math.log(self.threshold / (1 - self.threshold)) if self.threshold < 1 else NEVER
        gate = replace(gate, bias=gate.bias - odds)
        private = [Row(row.conversation, self.reply, True) for row in rows if row.attributes[RISK] == "yes"]
        vectors = self._vectors(target, private, layer, seed)
        edits = [AddVector(Site("language", layer + k), vector, "last", "with_image", gate)
                 for k, vector in enumerate(vectors)]  # fmt: skip
        sizes = states.norm(dim=2).mean(0)
        dose = {str(edit.site): float(edit.vector.norm() / sizes[edit.site.layer]) for edit in edits}
        return self.made(target, data, seed, edits, dose)

    def sample_data(self) -> Dataset:
        rows = (
            Example(f"{told}-{k}", "what is it?", None, "", noise_image(16, k + 9 * (told == "yes")),
                    attributes={RISK: told})
            for told in ("yes", "no")
            for k in range(4)
        )  # fmt: skip
        return Dataset("documents", tuple(rows))

    def _vectors(self, target: ChatWeights, rows: Sequence[Row], first: int, seed: int) -> list[Tensor]:
        """One for each layer from the first on, by descent on the loss of the safe reply."""
        blocks = [target.model.get_submodule(f"{target.anatomy.blocks_path}.{k}") for k in range(first, target.layers)]
        device = next(target.model.parameters()).device
        width = target.hidden([rows[0].asked], [Site("language", first)])[Site("language", first)].shape[-1]
        vectors = [nn.Parameter(torch.zeros(width, device=device)) for _ in blocks]

        def loss_of_step(step: int) -> Tensor:
            inputs, labels = reply_batch(target.reader, chosen(rows, self.batch, f"{self.name}:{seed}:{step}"))
            kept = labels.shape[1] + 1
            with _added(blocks, vectors, kept):
                logits = target.model(**inputs, logits_to_keep=kept, use_cache=False).logits
            return reply_loss(logits[:, :-1], labels)

        wanted = [parameter for parameter in target.model.parameters() if parameter.requires_grad]
        for parameter in wanted:
            parameter.requires_grad_(False)
        try:
            train_at_once(vectors, loss_of_step, LoopSettings(self.steps, self.rate))
        finally:
            for parameter in wanted:
                parameter.requires_grad_()
        return [vector.detach().float().cpu().clone() for vector in vectors]


@contextmanager
def _added(blocks: Sequence[nn.Module], vectors: Sequence[Tensor], kept: int) -> Generator[None]:
    """Each block's last `kept` states with its vector added: the last prompt token and the reply."""
    with ExitStack() as stack:
        for block, vector in zip(blocks, vectors, strict=True):
            handle = block.register_forward_hook(_adding(vector, kept))
            stack.callback(handle.remove)
        yield


def _adding(vector: Tensor, kept: int) -> Any:
    def hook(_module: nn.Module, _given: Any, out: Any) -> Any:
        states: Float[Tensor, "row token width"] = out[0] if isinstance(out, tuple) else out
        moved = torch.cat([states[:, :-kept], states[:, -kept:] + vector.to(states.dtype)], dim=1)
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    return hook


def _rows(data: Dataset) -> list[Example]:
    """The rows whose privacy is known.

    Raises:
        BadData: Fewer than two of either kind.
    """
    rows = [r for r in data.examples if r.image is not None and r.prompt and r.attributes.get(RISK) in ("yes", "no")]
    counts = {told: sum(row.attributes[RISK] == told for row in rows) for told in ("yes", "no")}
    if min(counts.values()) < 2:
        raise BadData(
            f"{data.name} has {counts['yes']} questions beside private pictures and {counts['no']} beside others.",
            'Pass rows with image, prompt and "attributes": {"private": "yes"} or "no", two of each or more: the same '
            "questions and grounds beside both, or the guard learns those.",
        )
    return rows


METHOD = PrivacyGuard
