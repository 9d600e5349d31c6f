"""ETA: where prompt and reply both look unsafe, draw replies that begin safely and keep the best.

Evaluating Then Aligning, Ding et al., arXiv 2410.06625 (ICLR 2025). The paper scores the prompt with
CLIP and the reply with an 8B reward model. Neither is at hand for every model, so here both scorers are
linear probes on the model's own states h at one layer, fitted on the anchors:

    score(h) = w . h + b,   w = m+ - m-,   b = -w . (m+ + m-) / 2        unsafe where score > 0

with m+ and m- the mean states of the two classes. Before: requests beside I', harmful against benign.
After: request and reply as text, the model's own replies to harmful requests beside I' against its
replies to benign ones and refusals of harmful ones. A scorer of another package can replace the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.core.contracts import AbstractMethod
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.edits import AlignReply, Gate
from vlmend.core.examples import Dataset, Example, spread
from vlmend.core.images import Corrupt, Image, corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.targets import Access, ChatStates
from vlmend.errors import BadParameter
from vlmend.methods.directions import picked_layers
from vlmend.methods.reading import anchors_of, as_text, batches, read_states, with_image

__all__ = ["ETA", "METHOD", "probe"]

REPLY_TOKENS = 24
"""Length of the replies that the second probe is fitted on."""
REFUSAL = "I'm sorry, but I can't help with that."
"""The safe reply to a harmful anchor."""


@dataclass(frozen=True)
class ETA(AbstractMethod):
    """Two gates, and best-of-N behind them.

    Attributes:
        lead: How a drawn reply begins.
        candidates: Replies drawn where prompt and reply both look unsafe.
        temperature: Of the draws; our choice.
        layer: Where the probes read: `middle`, or one decoder layer from 0.
        corrupt: The content-free image I' beside the anchors: `white`, `black`, `mean_colour`, `noise`.
        scorer: A scorer registered in `vlmend.scorers` in the place of the second probe, or empty.
        most: Anchors of each class that are read, evenly spread over the data.
    """

    name: ClassVar[str] = "eta"
    source: ClassVar[str] = "Ding et al., arXiv 2410.06625, ICLR 2025"
    needs: ClassVar[Access] = "states"
    passes: ClassVar[str] = "one prefill; one more where it looks unsafe; then N replies and N prefills"
    data: ClassVar[str] = "anchor requests, harmful and benign, and the model's replies to them"

    lead: str = "As an AI assistant, "
    candidates: int = 5
    temperature: float = 0.7
    layer: str = "middle"
    corrupt: Corrupt = "white"
    scorer: str = ""
    most: int = 64

    def learn(self, target: ChatStates, data: Dataset, *, seed: int) -> Mend:
        """Fit both probes.

        Raises:
            BadParameter: Numbers out of range, or a layer that the model does not have.
            BadData: The data holds no harmful or no benign request.
        """
        if self.candidates < 1 or self.most < 1 or self.temperature <= 0:
            raise BadParameter(
                f"candidates={self.candidates}, most={self.most}, temperature={self.temperature} cannot be.",
                "candidates and most are at least 1; temperature is above 0, or all draws are one reply.",
            )
        site = Site("language", self._layer(target.layers))
        harmful, benign = (spread(anchors_of(data, label), self.most) for label in ("harmful", "benign"))
        image = corrupt_image(self.corrupt, target.image_side, seed, target.mean_colour)
        edit = AlignReply(
            before=_before(target, site, harmful, benign, image),
            after=_after(target, site, harmful, benign, image),
            lead=self.lead,
            candidates=self.candidates,
            temperature=self.temperature,
            scorer=self.scorer,
            when="with_image",
        )
        return self.made(target, data, seed, [edit], {})

    def _layer(self, depth: int) -> int:
        layers = picked_layers(self.layer, depth)
        if len(layers) != 1:
            raise BadParameter(f"layer={self.layer!r} names {len(layers)} layers.", "The probes read one.")
        return layers[0]


def probe(site: Site, unsafe: Float[Tensor, "unsafe width"], safe: Float[Tensor, "safe width"]) -> Gate:
    """The mean-difference direction, with its zero half-way between the two means."""
    positive, negative = unsafe.mean(0), safe.mean(0)
    weight = positive - negative
    return Gate(site, weight, -float(weight @ (positive + negative)) / 2)


def _before(
    target: ChatStates, site: Site, harmful: Sequence[Example], benign: Sequence[Example], image: Image
) -> Gate:
    """Requests beside I': harmful against benign."""
    unsafe, safe = (read_states(target, anchors, with_image(image))[:, site.layer] for anchors in (harmful, benign))
    return probe(site, unsafe, safe)


def _after(target: ChatStates, site: Site, harmful: Sequence[Example], benign: Sequence[Example], image: Image) -> Gate:
    """Request and reply as text: own replies to harmful requests against harmless replies and refusals."""
    given = _replied(target, site, harmful, _replies(target, harmful, image))
    harmless = _replied(target, site, benign, _replies(target, benign, image))
    refused = _replied(target, site, harmful, {anchor.id: REFUSAL for anchor in harmful})
    return probe(site, given, torch.cat([harmless, refused]))


def _replies(target: ChatStates, anchors: Sequence[Example], image: Image) -> dict[str, str]:
    """What the model says to each anchor beside I', greedily."""
    asking, said = with_image(image), dict[str, str]()
    for batch in batches(anchors):
        replies = target.generate([asking(anchor) for anchor in batch], Sampling(REPLY_TOKENS))
        said |= {anchor.id: reply.text for anchor, reply in zip(batch, replies, strict=True)}
    return said


def _replied(
    target: ChatStates, site: Site, anchors: Sequence[Example], replies: Mapping[str, str]
) -> Float[Tensor, "anchor width"]:
    """States at the end of each reply, read as text after its request."""

    def asking(anchor: Example) -> Conversation:
        return replace(as_text(anchor), lead=replies[anchor.id])

    return read_states(target, anchors, asking)[:, site.layer]


METHOD = ETA
