"""HiddenDetect: decline where the hidden states already speak of refusing.

HiddenDetect, arXiv 2502.14744, ACL 2025. With W the output matrix, N the final norm, r the 0/1 vector of
refusal tokens and h_l the state of decoder layer l at the last prompt position:

    F_l = cos(W N(h_l), r),   score = trapezoid area of F over the chosen layers
    decline where score > threshold

The fit chooses the tokens, the layers and the threshold; `vlmend.models.editing.replies` declines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod, Sweep
from vlmend.core.edits import RefuseWhen
from vlmend.core.examples import Dataset
from vlmend.core.images import Corrupt, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.targets import Access, ChatWeights
from vlmend.errors import BadParameter, UsageError
from vlmend.methods.directions import picked_layers, read_classes
from vlmend.methods.reading import BATCH, with_image
from vlmend.models.editing.lens import lens_score

__all__ = ["METHOD", "WORDS", "HiddenDetect", "longest_run", "refusal_tokens", "threshold_of"]

WORDS = (
    "sorry", "cannot", "unable", "unfortunately", "illegal", "apologies", "apologize", "regret", "refuse", "decline",
    "unethical", "immoral", "harmful", "dangerous", "unsafe", "inappropriate", "prohibited", "forbidden", "unlawful",
    "never",
)  # fmt: skip
"""Words that refusals are made of; our own list."""


@dataclass(frozen=True)
class HiddenDetect(AbstractMethod[ChatWeights]):
    """A detector in front of the model, read off its own layers.

    Attributes:
        layers: `auto`: the longest run of layers that tell the anchors apart; or as other methods: `all`,
            `upper` half, `middle`, or like `0-9` or `4,8,20-29`.
        false_alarms: Largest share of the benign anchors beside I' that may be declined, 0 to below 1.
        corrupt: The content-free image I': `white`, `black`, `mean_colour` or `noise` (seeded).
        reply: What is said in the place of an answer.
    """

    name: ClassVar[str] = "hidden_detect"
    source: ClassVar[str] = "HiddenDetect, arXiv 2502.14744, ACL 2025"
    needs: ClassVar[Access] = "weights"
    passes: ClassVar[str] = "1 prefill and an output matrix product a chosen layer"
    data: ClassVar[str] = "harmful and benign requests"
    sweep: ClassVar[Sweep | None] = Sweep("false_alarms", (0.02, 0.05, 0.1, 0.2))

    layers: str = "auto"
    false_alarms: float = 0.05
    corrupt: Corrupt = "white"
    reply: str = "I'm sorry, but I can't help with that."

    def learn(self, target: ChatWeights, data: Dataset, *, seed: int) -> Mend:
        """Choose tokens, layers and threshold on anchors beside I'.

        Raises:
            UsageError: The tokenizer knows no word of refusal.
            BadParameter: `layers` or `false_alarms` is out of range.
            BadData: A label is missing.
        """
        if not 0 <= self.false_alarms < 1:
            raise BadParameter(f"false_alarms={self.false_alarms} is no share.", "Take at least 0 and less than 1.")
        tokens = refusal_tokens(target.reader.processor.tokenizer)
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        # The detector reads the bare model at inference, so it is fitted on the bare model.
        seen = read_classes(target.bare, data, with_image(image))
        harmful, benign = (cosines(target, states, tokens) for states in (seen.harmful, seen.benign))
        if self.layers == "auto":
            layers = longest_run((harmful.mean(0) > benign.mean(0)).tolist())
        else:
            layers = picked_layers(self.layers, target.layers)
        threshold = threshold_of(area(harmful, layers), area(benign, layers), self.false_alarms)
        return self.made(target, data, seed, [RefuseWhen(layers, tokens, threshold, self.reply)], {})


def refusal_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Tokens that are a refusal word, with or without space before and capital; sorted.

    Where no word is one token, the first token of each word stands for it.

    Raises:
        UsageError: The tokenizer knows none of them.
    """
    spelled = [
        tokenizer(space + form, add_special_tokens=False).input_ids
        for word in WORDS
        for form in (word, word.capitalize())
        for space in ("", " ")
    ]
    whole = {ids[0] for ids in spelled if len(ids) == 1}
    first = {tokenizer(word, add_special_tokens=False).input_ids[0] for word in WORDS}
    unknown = {tokenizer.unk_token_id}
    found = (whole - unknown) or (first - unknown)
    if not found:
        raise UsageError("The tokenizer knows no word of refusal.", "Take a method that does not need words.")
    return tuple(sorted(found))


@torch.inference_mode()
def cosines(
    target: ChatWeights, states: Float[Tensor, "anchor layer width"], tokens: Sequence[int]
) -> Float[Tensor, "anchor layer"]:
    """F of every anchor and layer, from states that have been read once; `VLM.lens` would read them a layer."""
    placed = states.to(target.model.device)
    rows = [
        torch.stack([lens_score(target.model, target.anatomy, [layer], tokens) for layer in part.unbind(1)], dim=1)
        for part in placed.split(BATCH)
    ]
    return torch.cat(rows).float().cpu()


def area(found: Float[Tensor, "anchor layer"], layers: Sequence[int]) -> Float[Tensor, " anchor"]:
    """The trapezoid area over the chosen layers; of a single layer, the cosine itself."""
    chosen = found[:, list(layers)]
    return torch.trapezoid(chosen, dim=1) if len(layers) > 1 else chosen[:, 0]


def longest_run(tells: Sequence[bool]) -> tuple[int, ...]:
    """The longest run of neighbouring layers that tell the classes apart, the first of equals; all if none does."""
    runs = [[layer for layer, _ in run] for good, run in groupby(enumerate(tells), key=lambda row: row[1]) if good]
    return tuple(max(runs, key=len)) if runs else tuple(range(len(tells)))


def threshold_of(harmful: Float[Tensor, " harmful"], benign: Float[Tensor, " benign"], false_alarms: float) -> float:
    """The lowest threshold under which at most this share of the benign scores is declined.

    It lies half way to the next score above, harmful or benign, so that rounding moves no anchor across it.
    """
    allowed = int(false_alarms * len(benign) + 1e-9)
    kept = benign.sort().values[len(benign) - 1 - allowed]
    above = torch.cat([harmful, benign])
    above = above[above > kept]
    return float((kept + above.min()) / 2 if len(above) else kept)


METHOD = HiddenDetect
