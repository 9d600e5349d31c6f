"""The closed set of edits that mends are made of, as plain data.

Order of work for one request, whatever the order in the mend: a `RefuseWhen` may decline it, every
`RewritePrompt` changes its words, adapters and activation edits act in each forward pass (at one
site in their order in the mend), `ContrastLogits` mixes the logits, and `ReviewReply` and
`AlignReply` look at what came out. A kind is added here and in the interpreters (`models/editing/replies.py`,
`models/editing/states.py`, `models/vlm.py`); the type checker names the first two.

`DualEdit`s (`core/dual_edits.py`) are for dual encoders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vlmend.core.conversation import Conversation
from vlmend.core.dual_edits import DualEdit
from vlmend.core.images import Image
from vlmend.core.shifts import Mode
from vlmend.core.sites import Site
from vlmend.errors import BadParameter

__all__ = [
    "ActivationEdit", "AddVector", "AlignReply", "ContrastLogits", "ContrastShift", "CosineDose", "Edit", "Gate",
    "LoadAdapter", "ProjectOut", "RefuseWhen", "ReviewReply", "RewritePrompt", "Tokens", "When", "idle",
]  # fmt: skip

Tokens = Literal["last_prompt", "last", "all", "image", "prompt", "reply"]
"""Which positions an edit touches. `last_prompt`: the last prompt token, at prefill only.
`last`: that one and every generated token. `all`: every real token. `image`: image tokens.
`prompt`: every prompt token. `reply`: generated tokens."""

When = Literal["always", "with_image"]
"""Which rows an edit touches: all, or those whose request has an image."""


@dataclass(frozen=True, eq=False)
class Gate:
    """Open for the rows whose state h at the last prompt position has weight . h + bias > 0.

    Read at prefill, before any edit of the gate's own site, and kept for the whole reply.

    Shape: weight "width", float32.
    """

    site: Site
    weight: Float[Tensor, " width"]
    bias: float


@dataclass(frozen=True, eq=False)
class AddVector:
    """h <- h + vector at one site, for the rows whose gate is open.

    Shape: vector "width", float32.
    """

    site: Site
    vector: Float[Tensor, " width"]
    tokens: Tokens = "last"
    when: When = "always"
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if self.gate is not None and self.gate.site > self.site:
            raise BadParameter(
                f"An edit at {self.site} cannot wait for a gate at {self.gate.site}.",
                "A gate must be read at or before the site that it opens.",
            )

    def scaled(self, factor: float) -> AddVector:
        return replace(self, vector=self.vector * factor)


@dataclass(frozen=True, eq=False)
class ProjectOut:
    """h <- h - strength * U U^T h at one site; the rows of U are orthonormal.

    Shape: directions (U) "rank width", float32.
    """

    site: Site
    directions: Float[Tensor, "rank width"]
    strength: float = 1.0
    tokens: Tokens = "last"
    when: When = "always"

    def scaled(self, factor: float) -> ProjectOut:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class CosineDose:
    """h <- h - strength * |h| * clamp(cos(h - reference, direction), 0, 1) * direction (ASTRA's rule).

    Shape: direction (of length 1), reference "width", float32.
    """

    site: Site
    direction: Float[Tensor, " width"]
    reference: Float[Tensor, " width"]
    strength: float = 1.0
    tokens: Tokens = "last"
    when: When = "always"

    def scaled(self, factor: float) -> CosineDose:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class ContrastShift:
    """Take out the shift of this very request, from two extra reads of the unmended model.

    With s_l the state of `seen` and u_l that of `unseen` at the last prompt position, the shift is
    s_l - u_l; `mode` says what each layer takes out of it (`vlmend.core.shifts.steps_of`).

    Attributes:
        layers: Decoder layers, ascending.
        image: The content-free image I'.
        seen: `corrupt`: the request with I' in the place of each image. `original`: as it came.
        unseen: `text`: the request without images. `caption`: the model's own caption, then the request.
        onto: Unit directions; only the part of the shift along them is taken out. "layer width", or None.
        strength: 1 takes out the whole shift.
        mode: See `vlmend.core.shifts.Mode`.
        cap: Largest |edit| / |state| of a layer, or None.
        tokens: `last_prompt` or `last`.
    """

    layers: tuple[int, ...]
    image: Image
    seen: Literal["corrupt", "original"] = "corrupt"
    unseen: Literal["text", "caption"] = "text"
    onto: Float[Tensor, "layer width"] | None = None
    strength: float = 1.0
    mode: Mode = "increment"
    cap: float | None = None
    tokens: Tokens = "last_prompt"
    when: When = "with_image"

    def __post_init__(self) -> None:
        if self.onto is not None and self.mode == "sequential":
            raise BadParameter(
                "A sequential shift cannot be taken out along one direction only.",
                "Use mode full, increment or last_only with it.",
            )

    def scaled(self, factor: float) -> ContrastShift:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class RewritePrompt:
    """Put words before and after the last user turn, and a system turn in front.

    Any strength other than 0 is on: half a sentence is no weaker sentence.
    """

    before: str = ""
    after: str = ""
    system: str = ""
    strength: float = 1.0
    when: When = "always"

    def put(self, conversation: Conversation) -> Conversation:
        """A request in these words, where it is meant."""
        if self.when == "always" or conversation.has_image:
            return conversation.rewritten(self.before, self.after, self.system)
        return conversation

    def scaled(self, factor: float) -> RewritePrompt:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class ContrastLogits:
    """logits <- plain + strength * (guided - plain); guided sees `principle` before the request (CoCA).

    strength is 1 + alpha of the paper's l_s + alpha (l_s - l_0).
    """

    principle: str
    strength: float = 1.0
    when: When = "with_image"

    def scaled(self, factor: float) -> ContrastLogits:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class RefuseWhen:
    """Decline before answering where the refusal score of the prompt is above a threshold (HiddenDetect).

    The score: each layer's state at the last prompt position through the final norm and the output
    matrix, its cosine with the 0/1 vector of `token_ids`, and the trapezoid area over `layers`.
    Any strength other than 0 is on.
    """

    layers: tuple[int, ...]
    token_ids: tuple[int, ...]
    threshold: float
    reply: str
    strength: float = 1.0
    when: When = "with_image"

    def scaled(self, factor: float) -> RefuseWhen:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class ReviewReply:
    """Let the model check its own reply; where it finds harm, answer again from a caption (ECSO).

    `check` holds {prompt} and {reply}; a reply to it that begins with `alarm` asks for the second
    answer. `caption` holds {prompt}; `again` holds {caption} and {prompt} and is asked without image.
    Any strength other than 0 is on.
    """

    check: str
    alarm: str
    caption: str
    again: str
    strength: float = 1.0
    when: When = "with_image"

    def scaled(self, factor: float) -> ReviewReply:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class AlignReply:
    """Where prompt and reply both look unsafe, draw replies that begin safely and keep the best (ETA).

    Attributes:
        before: Scores the prompt with its image; unsafe where the gate is open.
        after: Scores prompt and reply read as text; unsafe where the gate is open, and the reply with
            the smallest score is the best.
        lead: How a drawn reply begins.
        candidates: Replies drawn where both are unsafe.
        temperature: Of the draws.
        scorer: A registered scorer (`vlmend.scorers`) in the place of `after`, or empty.
        strength: Any other than 0 is on.
    """

    before: Gate
    after: Gate
    lead: str
    candidates: int
    temperature: float
    scorer: str = ""
    strength: float = 1.0
    when: When = "with_image"

    def scaled(self, factor: float) -> AlignReply:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class LoadAdapter:
    """y <- y + strength * up (down x) at one linear module, for every token (LoRA).

    Shape: down "rank in", up "out rank", float32; the adapter's own scale is folded into `up`.
    """

    module: str
    down: Float[Tensor, "rank in"]
    up: Float[Tensor, "out rank"]
    strength: float = 1.0
    when: When = "always"

    def scaled(self, factor: float) -> LoadAdapter:
        return replace(self, strength=self.strength * factor)


ActivationEdit = AddVector | ProjectOut | CosineDose
"""Edits of one site that need nothing but the state there."""

Edit = (
    ActivationEdit | ContrastShift | RewritePrompt | ContrastLogits | RefuseWhen | ReviewReply | AlignReply
    | LoadAdapter | DualEdit
)  # fmt: skip


def idle(edit: Edit) -> bool:
    """Whether an edit does nothing at all, as after scaling by 0."""
    return not bool(edit.vector.any()) if isinstance(edit, AddVector) else edit.strength == 0
