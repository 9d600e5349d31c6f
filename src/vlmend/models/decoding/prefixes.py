"""The two extra reads of sample-level CMRM, at the price of the words after the image.

What comes before the user's words is the same in every request: the template's opening and system
text, and for the second read the content-free image. Causal attention makes its keys and values
independent of what follows, so they are read once per model and template and shared by every request
of every batch. Templates that put the words before the image share their opening only, and families
whose positions or attention masks break the assumption (M-RoPE, sliding windows, attention over the whole
prompt, cross-attention) share nothing: on first use of each prefix, shared and plain reads of one request are
compared, and where they differ every request is read in full. `sharing` says which it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.sites import Site
from vlmend.models.decoding.cache import growing, plain_layers
from vlmend.models.reading.reader import Reader
from vlmend.models.reading.states import capturing

__all__ = ["Prefix", "Prefixes", "Rest", "forward_after", "rest_of", "sharing"]

KEPT = 8
"""Prefixes kept at once; the oldest goes."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest relative difference of shared and plain states that is rounding; else `HALF_TOLERANCE`."""
HALF_TOLERANCE = 5e-2


@dataclass(frozen=True, eq=False)
class Prefix:
    """What requests of one shape have in common before the user's words.

    Attributes:
        written: Token ids as the template writes them, one placeholder an image, "token".
        length: Tokens that the model reads for them, image tokens included.
        images: Image tokens among these.
        layers: Keys and values of each layer, "1 head token size"; empty where nothing can be shared.
    """

    written: Int[Tensor, " token"]
    length: int
    images: int
    layers: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, eq=False)
class Rest:
    """What follows the prefix in each row, padded between the two, so that all rows end together.

    Attributes:
        ids: Token ids, "row token".
        real: 1 at tokens, 0 at padding, "row token".
    """

    ids: Int[Tensor, "row token"]
    real: Int[Tensor, "row token"]

    def mask(self, prefix: Prefix) -> Int[Tensor, "row longer"]:
        """What each row may look back at, prefix included."""
        return torch.cat([torch.ones((len(self.real), prefix.length), dtype=torch.long), self.real], dim=1)


@dataclass(eq=False)
class Prefixes:
    """Prefixes of one loaded model, shared by all its views."""

    known: OrderedDict[str, Prefix] = field(default_factory=OrderedDict)

    def of(self, reader: Reader, conversation: Conversation) -> Prefix:
        """The prefix of requests of this shape, read on first use and checked against a plain read."""
        key = conversation.with_words("").digest
        if key not in self.known:
            self.known[key] = _checked(reader, conversation, _read_prefix(reader, conversation))
            while len(self.known) > KEPT:
                self.known.popitem(last=False)
        self.known.move_to_end(key)
        return self.known[key]


@torch.inference_mode()
def sharing(reader: Reader, prefixes: Prefixes, conversation: Conversation) -> str:
    """What requests of this shape share, for people."""
    prefix = prefixes.of(reader, conversation)
    if not prefix.layers:
        return "nothing: every request is read in full"
    return f"{prefix.length} tokens, {prefix.images} of them image tokens"


def rest_of(reader: Reader, prefix: Prefix, batch: Sequence[Conversation]) -> Rest | None:
    """What follows the prefix in each request; None where one does not begin with it, or nothing is shared."""
    rows = reader.written(batch)
    if not prefix.layers or not all(_starts_with(row, prefix) for row in rows):
        return None
    rest = [row[len(prefix.written) :] for row in rows]
    longest = max(len(row) for row in rest)
    ids = torch.full((len(rest), longest), int(rest[0][-1]))
    real = torch.zeros((len(rest), longest), dtype=torch.long)
    for k, row in enumerate(rest):
        ids[k, longest - len(row) :] = row
        real[k, longest - len(row) :] = 1
    return Rest(ids, real)


def forward_after(reader: Reader, prefix: Prefix, rest: Rest) -> Any:
    """Read what follows the prefix in each row; gives the model's output, its cache whole."""
    positions = prefix.length + (rest.real.cumsum(1) - 1).clamp_min(0)
    device = reader.model.device
    size = (len(rest.ids), -1, -1, -1)
    rows = [(keys.expand(size), values.expand(size)) for keys, values in prefix.layers]
    return reader.asked({})(
        input_ids=rest.ids.to(device), attention_mask=rest.mask(prefix).to(device),
        position_ids=positions.to(device), past_key_values=growing(rows), use_cache=True, logits_to_keep=1,
    )  # fmt: skip


def _read_prefix(reader: Reader, conversation: Conversation) -> Prefix:
    """Find what two requests of this shape have in common, and read it once."""
    probes = [conversation.with_words(words) for words in ("A", "Zebras sing")]
    written = _common(*reader.written(probes))
    inputs = [reader.inputs([probe]) for probe in probes]
    ids = inputs[0]["input_ids"][0]
    common = _common(ids, inputs[1]["input_ids"][0])
    token = reader.anatomy.image_token_id
    images = int((common == token).sum())
    whole = images == int((ids == token).sum())
    same_rest = torch.equal(ids[len(common) :].cpu(), reader.written(probes)[0][len(written) :])
    nothing = Prefix(written, len(common), images, ())
    if not (len(common) and whole and same_rest) or len(common) == len(ids):
        return nothing
    cut = {
        key: value[:, : len(common)] if value.shape[:2] == inputs[0]["input_ids"].shape else value
        for key, value in inputs[0].items()
    }
    cache = reader.asked(cut)(**cut, use_cache=True, logits_to_keep=1).past_key_values
    return Prefix(written, len(common), images, tuple(plain_layers(cache)))


def _checked(reader: Reader, conversation: Conversation, prefix: Prefix) -> Prefix:
    """The prefix, or one that shares nothing where a shared read differs from a plain one."""
    nothing = Prefix(prefix.written, prefix.length, prefix.images, ())
    rest = rest_of(reader, prefix, [conversation])
    if rest is None:
        return nothing
    sites = [Site("language", layer) for layer in range(len(reader.anatomy.blocks))]
    plain = reader.states([conversation], sites)
    try:
        with capturing(reader.anatomy, sites) as shared:
            forward_after(reader, prefix, rest)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return nothing  # a family that cannot go on from a cache this way
    close = TOLERANCE.get(reader.model.dtype, HALF_TOLERANCE)
    same = all((shared[site] - plain[site]).norm() <= close * plain[site].norm() for site in sites)  # NaN is not
    return prefix if same else nothing


def _common(first: Int[Tensor, " a"], second: Int[Tensor, " b"]) -> Int[Tensor, " c"]:
    """The beginning that two rows share."""
    length = min(len(first), len(second))
    differs = (first[:length] != second[:length]).nonzero()
    return first[: int(differs[0]) if len(differs) else length]


def _starts_with(row: Int[Tensor, " token"], prefix: Prefix) -> bool:
    """Whether a row begins with the prefix and goes on after it."""
    size = len(prefix.written)
    return len(row) > size and torch.equal(row[:size], prefix.written)
