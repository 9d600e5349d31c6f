"""The closed set of edits that mends of chat models are made of, as plain data.

Order of work for one request, whatever the order in the mend: a `RefuseWhen` may decline it, every `ShowNearest` looks
for examples like it, every `RewritePrompt` changes its words, every `ShowExamples` puts turns before it and every
`FilterImage` changes its pictures, weights and activation edits act in each forward pass (at one site in their order in
the mend), `ContrastLogits` mixes the logits, and `ShowReasoned`, `ReviewReply` and `AlignReply` look at what came out.
A kind is added here and in the interpreters (`models/editing`, `export`), where the type checker names each `match`;
what it `touches` it declares itself. The edits of dual encoders are in `core/dual_edits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from vlmend.core.conversation import Conversation
from vlmend.core.dual_edits import DualEdit
from vlmend.core.example_edits import ShowExamples, ShowNearest
from vlmend.core.images import Image, blurred_image
from vlmend.core.state_edits import (
    ActivationEdit,
    AddVector,
    AffineMap,
    AnyGate,
    ContrastShift,
    CosineDose,
    Gate,
    MahalanobisGate,
    ModuleEdit,
    NeighbourGate,
    ProjectOut,
    Tokens,
    Touch,
    When,
    check_layers,
)
from vlmend.core.weight_edits import LoadAdapter, ReplaceWeights, WeightEdit
from vlmend.errors import BadParameter

__all__ = [
    "ActivationEdit", "AddVector", "AffineMap", "AlignReply", "AnyEdit", "AnyGate", "ContrastLogits", "ContrastShift",
    "CosineDose", "Edit", "FilterImage", "Gate", "LoadAdapter", "MahalanobisGate", "ModuleEdit", "NeighbourGate",
    "OtherView", "ProjectOut", "RefuseWhen", "ReplaceWeights", "ReviewReply", "RewritePrompt", "ShowExamples",
    "ShowNearest", "ShowReasoned", "Tokens",
    "Touch", "WeightEdit", "When", "idle",
]  # fmt: skip


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

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"prompt"})

    def scaled(self, factor: float) -> RewritePrompt:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class FilterImage:
    """Every picture of a request through a plain filter before the model's processor sees it.

    `jpeg`: saved as JPEG at quality `amount` (1 to 95). `blur`: Gaussian of radius `amount` pixels. `median`: of a
    square of `amount` pixels (odd). `bits`: colours in 2 ** `amount` steps a channel. Any strength other than 0 is on.
    """

    filter: Literal["jpeg", "blur", "median", "bits"]
    amount: float
    strength: float = 1.0
    when: When = "with_image"

    def __post_init__(self) -> None:
        least, most = {"jpeg": (1, 95), "blur": (0, 1000), "median": (1, 999), "bits": (1, 8)}[self.filter]
        even = self.filter == "median" and round(self.amount) % 2 == 0
        if even or not least <= self.amount <= most:
            raise BadParameter(
                f"The filter {self.filter} cannot take {self.amount}.",
                f"Use {least} to {most}{', odd' * (self.filter == 'median')}.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"image"})

    def scaled(self, factor: float) -> FilterImage:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class OtherView:
    """Another view of a request, whose logits are held against those of the request itself.

    Attributes:
        before: Words put before its last turn's.
        image: `same`; `none`: without its images; or one that stands in the place of each.
        question: False: without the words of the last turn, `before` aside.
        blur: Radius of a Gaussian blur of images that are the same, as a share of the shorter side, 0 to 1.
    """

    before: str = ""
    image: Literal["same", "none"] | Image = "same"
    question: bool = True
    blur: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.blur <= 1:
            raise BadParameter(f"blur={self.blur} is no share of a picture's side.", "Pass a number from 0 to 1.")

    def of(self, conversation: Conversation) -> Conversation:
        """The request seen this way."""
        seen = conversation if self.question else conversation.with_words("")
        match self.image:
            case "same":
                seen = seen.through(partial(blurred_image, share=self.blur)) if self.blur else seen
            case "none":
                seen = seen.without_images()
            case image:
                seen = seen.with_images(image)
        return seen.rewritten(before=self.before) if self.before else seen


@dataclass(frozen=True)
class ContrastLogits:
    """Next-token logits held against those of other views of the same request.

    `towards`: logits <- plain + strength * sum over views of (other - plain). Above 0 it follows the other view (CoCA:
    strength is 1 + alpha of the paper's l_s + alpha (l_s - l_0)), below 0 it moves away from it (counterfactual
    images). `damp` (self-debiasing, arXiv 2103.00453): with p and p_y the probabilities of a token in the request and
    in view y, delta = max(0, max over y of p_y - p), p is multiplied by max(floor, exp(-strength * delta)). `effect`
    (counterfactual inference, arXiv 2006.04315): log p <- log p + strength * (TIE - log p), TIE = log sigma(log p) -
    sum over views of log sigma(log p_y + constant); a token with p below `floor` times the largest is raised by no more
    than the likeliest one.

    Attributes:
        views: The other views, one or more.
        rule: See above.
        floor: Least factor of `damp`, or share of `effect`, above 0.
        constant: Of `effect`: what stands in the place of what a view leaves out.
    """

    views: tuple[OtherView, ...]
    strength: float = 1.0
    rule: Literal["towards", "damp", "effect"] = "towards"
    floor: float = 0.01
    when: When = "with_image"
    constant: float = 0.0

    def __post_init__(self) -> None:
        if not self.views or not 0 < self.floor <= 1:
            raise BadParameter(
                f"Logits cannot be held against {len(self.views)} views with a least factor of {self.floor}.",
                "Use one view or more, and a factor above 0 and up to 1.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"logits"})

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

    def __post_init__(self) -> None:
        check_layers(self.layers)
        if not self.token_ids or min(self.token_ids) < 0:
            raise BadParameter("A refusal score needs tokens that refusals begin with.", "Give their numbers.")

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"reply"})

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

    def __post_init__(self) -> None:
        try:
            self.check.format(prompt="", reply="")
            self.caption.format(prompt="")
            self.again.format(caption="", prompt="")
        except (ValueError, LookupError, AttributeError) as problem:
            raise BadParameter(
                f"The words of a reviewed reply hold a place that nothing goes into ({problem!r}).",
                "check may hold {prompt} and {reply}, caption {prompt}, again {caption} and {prompt}.",
            ) from problem

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"reply"})

    def scaled(self, factor: float) -> ReviewReply:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True)
class ShowReasoned:
    """Of reasoning in the form of `core.reasoning` the reply alone; `failed` where it is not of the form.

    Any strength other than 0 is on.

    Attributes:
        failed: What is shown in the place of broken reasoning.
        tokens: That the reasoning may take on top of what the reply may.
    """

    failed: str
    tokens: int
    strength: float = 1.0
    when: When = "with_image"

    def __post_init__(self) -> None:
        if self.tokens < 1 or not self.failed.strip():
            raise BadParameter(
                f"Reasoning of {self.tokens} tokens, or {self.failed!r} shown where it is broken, cannot be.",
                "Give 1 token or more, and a sentence.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"reply"})

    def scaled(self, factor: float) -> ShowReasoned:
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

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= 1000 or self.temperature < 0:
            raise BadParameter(
                f"{self.candidates} replies cannot be drawn at temperature {self.temperature}.",
                "Draw 1 to 1000, at 0 or above.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset({"reply"})

    def scaled(self, factor: float) -> AlignReply:
        return replace(self, strength=self.strength * factor)


Edit = (
    ActivationEdit | ContrastShift | RewritePrompt | ShowExamples | ShowNearest | FilterImage | ContrastLogits
    | RefuseWhen | ShowReasoned | ReviewReply | AlignReply | WeightEdit
)  # fmt: skip
"""The edits of chat models."""

AnyEdit = Edit | DualEdit


def idle(edit: AnyEdit) -> bool:
    """Whether an edit does nothing at all, as after scaling by 0."""
    return not bool(edit.vector.any()) if isinstance(edit, AddVector) else edit.strength == 0
