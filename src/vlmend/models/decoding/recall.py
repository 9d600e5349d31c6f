"""Prompts that were read before: their keys and values up to the last token, for other views to go on from.

A mend that edits the last prompt token, or the tokens after it, leaves everything before it as it was. So a
request that was read once, under any such mend or none, is read again by its last token alone: a run before
and after, and a sweep over settings, pay for the words and the image once. What was not used for longest goes
first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.models.memory import free_bytes

__all__ = ["ReadPrompt", "Recall"]

MOST_BYTES = 2 * 2**30
SHARE = 8
"""Prompts may take one part in so many of what is free when the first one is kept."""


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """One prompt without its last token.

    Attributes:
        keys, values: "layer head token size".
        last: The last token's id.
        offset: How far its position is from the number of tokens before it (M-RoPE).
    """

    keys: Float[Tensor, "layer head token size"]
    values: Float[Tensor, "layer head token size"]
    last: int
    offset: int = 0

    @property
    def length(self) -> int:
        """Tokens that were read."""
        return self.keys.shape[2]


@dataclass(eq=False)
class Recall:
    """Read prompts by the digest of their request.

    Attributes:
        known: The prompts.
        bytes: Their size.
        reused: Prompts that were gone on from.
        limit: Bytes that they may take; `MOST_BYTES` or a share of the free memory unless given.
    """

    known: OrderedDict[str, ReadPrompt] = field(default_factory=OrderedDict[str, ReadPrompt])
    bytes: int = 0
    reused: int = 0
    limit: int | None = None

    def keep(
        self, digests: Sequence[str], last: Int[Tensor, " row"], layers: Sequence[tuple[Tensor, Tensor]],
        mask: Int[Tensor, "row token"], offsets: Int[Tensor, " row"],
    ) -> None:  # fmt: skip
        """Keep prompts that have just been read, each without its padding and its last token.

        Args:
            digests: Of the requests.
            last: Their last tokens.
            layers: Keys and values of each layer, "row head token size"; nothing is kept where layers differ.
            mask: 1 at real tokens; padding is on the left, or behind a prefix that the rows share.
            offsets: How far positions are from numbers of tokens.
        """
        if self.limit is None:
            self.limit = min(MOST_BYTES, (free_bytes(str(mask.device)) or 0) // SHARE)
        if len({keys.shape for keys, _ in layers} | {values.shape for _, values in layers}) != 1:
            return
        for row, digest in enumerate(digests):
            real = mask[row, :-1].nonzero()[:, 0]
            keys, values = (torch.stack([layer[part][row][:, real] for layer in layers]) for part in (0, 1))
            self._put(digest, ReadPrompt(keys, values, int(last[row]), int(offsets[row])), self.limit)

    def gone_on(self, digests: Sequence[str]) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor, Tensor] | None:
        """Keys and values of known prompts side by side, padded on the left, with mask, last tokens and offsets.

        None where one of them is not known any more. Shape: layers "row head token size", mask "row token" with
        a 1 for the last token, last tokens "row 1", offsets "row".
        """
        if any(digest not in self.known for digest in digests):
            return None
        prompts = [self.known[digest] for digest in digests]
        longest = max(prompt.length for prompt in prompts)
        layers, heads, _, size = prompts[0].keys.shape
        whole = prompts[0].keys.new_zeros((2, layers, len(prompts), heads, longest, size))
        mask = torch.zeros((len(prompts), longest + 1), dtype=torch.long)
        for row, (digest, prompt) in enumerate(zip(digests, prompts, strict=True)):
            self.known.move_to_end(digest)
            whole[0, :, row, :, longest - prompt.length :] = prompt.keys
            whole[1, :, row, :, longest - prompt.length :] = prompt.values
            mask[row, longest - prompt.length :] = 1
        self.reused += len(prompts)
        device = whole.device
        tokens = torch.tensor([[prompt.last] for prompt in prompts], device=device)
        offsets = torch.tensor([prompt.offset for prompt in prompts], device=device)
        return list(zip(whole[0], whole[1], strict=True)), mask.to(device), tokens, offsets

    def _put(self, digest: str, prompt: ReadPrompt, limit: int) -> None:
        size = prompt.keys.nbytes + prompt.values.nbytes
        if digest in self.known or size > limit:
            return
        self.known[digest] = prompt
        self.bytes += size
        while self.bytes > limit:
            oldest = self.known.popitem(last=False)[1]
            self.bytes -= oldest.keys.nbytes + oldest.values.nbytes
