"""Edits of states inside a model, as plain data: at one site each, or measured anew in each request.

What each `touches` decides what requests may share: caches of prefixes, of image features, of prompts that were read
before. An edit of prompt positions that another request would read from a cache shares none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vlmend.core.images import Image
from vlmend.core.shifts import Mode
from vlmend.core.sites import Site
from vlmend.errors import BadParameter

__all__ = [
    "ActivationEdit", "AddVector", "AffineMap", "AnyGate", "ContrastShift", "CosineDose", "Gate", "MahalanobisGate",
    "ModuleEdit", "NeighbourGate", "ProjectOut", "Tokens", "Touch", "When", "check_gate", "check_layers", "touched_by",
]  # fmt: skip

Tokens = Literal["last_prompt", "last", "all", "image", "prompt", "reply"]
"""Which positions an edit touches. `last_prompt`: the last prompt token, at prefill only.
`last`: that one and every generated token. `all`: every real token. `image`: image tokens.
`prompt`: every prompt token. `reply`: generated tokens."""

When = Literal["always", "with_image"]
"""Which rows an edit touches: all, or those whose request has an image."""


Touch = Literal["prompt", "image", "image_features", "prompt_states", "states", "logits", "reply", "weights"]
"""What an edit changes. prompt: words. image: pixels before the processor. image_features: what the tower makes of
them. prompt_states: states before the last prompt token. states: states from there on. logits, reply, weights."""


def touched_by(tokens: Tokens) -> frozenset[Touch]:
    """What an edit of states touches by the positions that it covers; a scope that is not known counts as every one."""
    later = tokens in ("last_prompt", "last", "reply")
    return frozenset({"states"} if later else {"states", "prompt_states"})


def check_gate(site: Site, gate: AnyGate | None) -> None:
    """Refuse a gate that is read after the edit that it opens.

    Raises:
        BadParameter: It is.
    """
    if gate is not None and gate.site > site:
        raise BadParameter(
            f"An edit at {site} cannot wait for a gate at {gate.site}.",
            "A gate must be read at or before the site that it opens.",
        )


def check_layers(layers: Sequence[int]) -> None:
    """Refuse layers that are none or not ascending.

    Raises:
        BadParameter: They are.
    """
    if not layers or layers[0] < 0 or list(layers) != sorted(set(layers)):
        raise BadParameter(f"{list(layers)} are no layers.", "Give one or more in ascending order, from 0.")


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
class MahalanobisGate:
    """Open for the rows that are nearer to harmful than to benign states: d_benign(z) - d_harmful(z) + bias > 0.

    z = project h is a learnt projection of the state h at the last prompt position, d(z) = |spread (z - centre)|. With
    spread the inverse root of a class's covariance d is the distance of Mahalanobis. Read as `Gate` is.

    Shape: project "rank width", benign_centre and harmful_centre "rank", benign_spread and harmful_spread "rank rank",
    float32.
    """

    site: Site
    project: Float[Tensor, "rank width"]
    benign_centre: Float[Tensor, " rank"]
    benign_spread: Float[Tensor, "rank rank"]
    harmful_centre: Float[Tensor, " rank"]
    harmful_spread: Float[Tensor, "rank rank"]
    bias: float = 0.0


@dataclass(frozen=True, eq=False)
class NeighbourGate:
    """Open for the rows that are nearer to harmful than to benign states kept aside, by their k-th neighbours.

    With z = project h scaled to length 1, and d(z) the distance of z from the k-th nearest of the kept z of a class:
    d_benign(z) - d_harmful(z) + bias > 0. Read as `Gate` is.

    Shape: project "rank width", benign "kept_benign rank", harmful "kept_harmful rank", float32.
    """

    site: Site
    project: Float[Tensor, "rank width"]
    benign: Float[Tensor, "kept_benign rank"]
    harmful: Float[Tensor, "kept_harmful rank"]
    neighbours: int = 5
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours <= min(len(self.benign), len(self.harmful)):
            raise BadParameter(
                f"There is no neighbour number {self.neighbours} among {len(self.benign)} benign and "
                f"{len(self.harmful)} harmful states.",
                "Keep more states, or look at a nearer neighbour, from 1.",
            )


AnyGate = Gate | MahalanobisGate | NeighbourGate
"""What can open an edit for a row, by its state at one site."""


@dataclass(frozen=True, eq=False)
class AddVector:
    """h <- h + vector at one site, for the rows whose gate is open.

    Shape: vector "width", float32.
    """

    site: Site
    vector: Float[Tensor, " width"]
    tokens: Tokens = "last"
    when: When = "always"
    gate: AnyGate | None = None

    def __post_init__(self) -> None:
        check_gate(self.site, self.gate)

    @property
    def touches(self) -> frozenset[Touch]:
        return touched_by(self.tokens)

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
    gate: AnyGate | None = None

    def __post_init__(self) -> None:
        check_gate(self.site, self.gate)

    @property
    def touches(self) -> frozenset[Touch]:
        return touched_by(self.tokens)

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
    gate: AnyGate | None = None

    def __post_init__(self) -> None:
        check_gate(self.site, self.gate)

    @property
    def touches(self) -> frozenset[Touch]:
        return touched_by(self.tokens)

    def scaled(self, factor: float) -> CosineDose:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """h <- h + strength * (write (read s) + bias), s the state h itself or that of the row's last prompt token.

    Low rank: `read` and `write` hold rank times width numbers each. A constant is a map of rank 0 with a bias, a
    diagonal one a map of rank width.

    Attributes:
        source: `same`: each position is mapped from its own state. `last_prompt`: every position gets what the last
            prompt token's state is mapped to, at the prefill (AlphaSteer).

    Shape: read "rank width", write "width rank", bias "width", float32.
    """

    site: Site
    read: Float[Tensor, "rank width"]
    write: Float[Tensor, "width rank"]
    bias: Float[Tensor, " width"]
    strength: float = 1.0
    source: Literal["same", "last_prompt"] = "same"
    tokens: Tokens = "last"
    when: When = "always"
    gate: AnyGate | None = None

    def __post_init__(self) -> None:
        check_gate(self.site, self.gate)
        if self.source == "last_prompt" and self.tokens in ("last", "reply", "all"):
            raise BadParameter(
                f"A map read from the last prompt token cannot act on tokens={self.tokens!r}.",
                "It is known at the prefill only: use last_prompt, prompt or image.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return touched_by(self.tokens)

    def scaled(self, factor: float) -> AffineMap:
        return replace(self, strength=self.strength * factor)


@dataclass(frozen=True, eq=False)
class ModuleEdit:
    """h <- h + strength * (write relu(read h + read_bias) + write_bias): a small learnt module beside one place.

    In a chat model at a site of the decoder; in a dual encoder at `Site("vision", 0, "embedding")` or
    `Site("text", 0, "embedding")`, before the embedding is brought back to length 1.

    Shape: read "hidden width", read_bias "hidden", write "width hidden", write_bias "width", float32.
    """

    site: Site
    read: Float[Tensor, "hidden width"]
    read_bias: Float[Tensor, " hidden"]
    write: Float[Tensor, "width hidden"]
    write_bias: Float[Tensor, " width"]
    strength: float = 1.0
    tokens: Tokens = "last"
    when: When = "always"
    gate: AnyGate | None = None

    def __post_init__(self) -> None:
        check_gate(self.site, self.gate)

    @property
    def touches(self) -> frozenset[Touch]:
        return touched_by(self.tokens)

    def scaled(self, factor: float) -> ModuleEdit:
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
        onto: Unit directions of all layers from 0; only the part of the shift along them is taken out. "layer width",
            or None.
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
        check_layers(self.layers)
        if self.onto is not None and len(self.onto) <= self.layers[-1]:
            raise BadParameter(
                f"Layer {self.layers[-1]} has none of {len(self.onto)} directions.", "Give one for each layer from 0."
            )
        if self.cap is not None and self.cap < 0:
            raise BadParameter(f"No edit is smaller than a cap of {self.cap}.", "Use a cap of 0 or more, or none.")
        if self.onto is not None and self.mode == "sequential":
            raise BadParameter(
                "A sequential shift cannot be taken out along one direction only.",
                "Use mode full, increment or last_only with it.",
            )

    @property
    def touches(self) -> frozenset[Touch]:
        return touched_by(self.tokens)

    def scaled(self, factor: float) -> ContrastShift:
        return replace(self, strength=self.strength * factor)


ActivationEdit = AddVector | ProjectOut | CosineDose | AffineMap | ModuleEdit
"""Edits of one site that need nothing but the state there."""
