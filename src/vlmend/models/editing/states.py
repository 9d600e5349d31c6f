"""The one torch interpreter of activation edits and adapters, and activation capture.

Hooks live for one call inside one `ExitStack`, never on the model: nothing leaks between requests,
and mended and plain rows are one call apart. At one site a gate is read first, then the edits act in
their order, and capture comes last, so a captured state is always the state that the next block reads.

Edits act in place on the block's output: under inference mode nobody else holds it, and a copy of
the whole prompt for the sake of its last token would cost more than all edits together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vlmend.core.edits import ActivationEdit, AddVector, CosineDose, Gate, LoadAdapter, ProjectOut, Tokens, When
from vlmend.core.shifts import capped
from vlmend.core.sites import Site
from vlmend.errors import BadParameter
from vlmend.models.anatomy.find import Anatomy

__all__ = [
    "STEPS", "Aimed", "Change", "RowShift", "Rows", "adapting", "block", "capturing", "change_of", "chasing", "editing",
    "precise", "score", "state_of",
]  # fmt: skip

STEPS = ("last", "all", "reply")
"""Scopes that cover generated tokens."""

Change = Callable[[Float[Tensor, "n width"], Int[Tensor, " n"]], Float[Tensor, "n width"]]
"""New states of n positions, from their states and the rows that they belong to."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What edits must know of a left-padded batch.

    Attributes:
        real: True at real tokens of the prompt, "row token".
        image: True at image placeholders, "row token".
        has_image: True for rows whose request has an image, "row".
        fired: How often each row's states were edited at a site, "row" by site: the proof of fire.
    """

    real: Bool[Tensor, "row token"]
    image: Bool[Tensor, "row token"]
    has_image: Bool[Tensor, " row"]
    fired: dict[Site, Int[Tensor, " row"]] = field(default_factory=dict[Site, Tensor])

    def fire(self, site: Site, rows: Bool[Tensor, " row"]) -> None:
        """Note that these rows were edited there."""
        self.fired[site] = self.fired.get(site, torch.zeros(len(rows), dtype=torch.long)) + rows.cpu()

    def meant(self, when: When) -> Bool[Tensor, " row"]:
        """Rows that an edit of this kind is for."""
        return torch.ones_like(self.has_image) if when == "always" else self.has_image.clone()


@dataclass(frozen=True, eq=False)
class RowShift:
    """h <- h + vectors[row] at one site: what a `ContrastShift` becomes once its shift is read.

    Shape: vectors "row width".
    """

    site: Site
    vectors: Float[Tensor, "row width"]
    tokens: Tokens
    when: When


@dataclass(frozen=True, eq=False)
class Aimed:
    """An edit and the rows of a batch that it is for, "row"; its gate closes some of them at the prefill."""

    edit: ActivationEdit | RowShift
    rows: Bool[Tensor, " row"]


@contextmanager
def editing(anatomy: Anatomy, aimed: Sequence[Aimed], rows: Rows) -> Generator[None]:
    """Apply edits to every forward call inside the block; the first call is the prefill."""
    with ExitStack() as stack:
        for one in aimed:
            edit = one.edit
            if isinstance(edit, AddVector) and edit.gate is not None:
                gate = block(anatomy, edit.gate.site).register_forward_hook(_gate_reader(edit.gate, one.rows))
                stack.callback(gate.remove)
            stack.callback(block(anatomy, edit.site).register_forward_hook(_editor(one, rows)).remove)
        yield


@contextmanager
def adapting(model: nn.Module, adapters: Sequence[LoadAdapter]) -> Generator[None]:
    """Add low-rank adapters to the linear modules that they name, for every row and token."""
    modules = dict(model.named_modules()) if adapters else {}
    with ExitStack() as stack:
        for adapter in adapters:
            if adapter.module not in modules:
                raise BadParameter(
                    f"This model has no module {adapter.module}.", "Fit the mend again on this very model."
                )
            stack.callback(modules[adapter.module].register_forward_hook(_adapter(adapter)).remove)
        yield


@contextmanager
def capturing(anatomy: Anatomy, sites: Sequence[Site]) -> Generator[dict[Site, Float[Tensor, "row width"]]]:
    """Read the last position at each site, in float32 or better; left padding makes it the last prompt token."""
    states: dict[Site, Tensor] = {}
    with ExitStack() as stack:
        for site in sites:
            for source in _sources(anatomy, site):
                stack.callback(block(anatomy, source).register_forward_hook(_reader(site, states)).remove)
        yield states


@contextmanager
def chasing(
    anatomy: Anatomy, layers: Sequence[int], wanted: Mapping[Site, Tensor], strength: float, cap: float | None
) -> Generator[dict[int, Float[Tensor, "row width"]]]:
    """Take out at each layer what is left between the last position and `wanted`, and keep what was taken.

    This measures a `sequential` shift in one read: each layer's shift under the mend so far.
    """
    taken: dict[int, Tensor] = {}

    def chase(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Any) -> None:
            last = state_of(output)[:, -1]
            left = precise(last) - wanted[Site("language", layer)].to(last.device)
            taken[layer] = capped(strength * left, precise(last).norm(dim=-1), cap)
            last -= taken[layer].to(last)

        return hook

    with ExitStack() as stack:
        for layer in layers:
            module = block(anatomy, Site("language", layer))
            stack.callback(module.register_forward_hook(chase(layer)).remove)
        yield taken


def block(anatomy: Anatomy, site: Site) -> nn.Module:
    """The decoder block of a site.

    Raises:
        BadParameter: This model has no such site.
    """
    if site.stack == "language" and site.point == "resid_post" and site.layer < len(anatomy.blocks):
        return anatomy.blocks[site.layer]
    raise BadParameter(
        f"Site {site} is not in this model.",
        f"It has language.0.resid_post to language.{len(anatomy.blocks) - 1}.resid_post.",
    )


def precise(states: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """In float32, or in float64 where the model runs in that."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def score(gate: Gate, states: Float[Tensor, "row width"]) -> Float[Tensor, " row"]:
    """weight . h + bias; the gate is open where it is positive."""
    return states.to(gate.weight) @ gate.weight + gate.bias


def _editor(aimed: Aimed, rows: Rows) -> Callable[..., None]:
    edit, open_rows = aimed.edit, aimed.rows
    change = change_of(edit)
    prefilled = False
    each_step: Tensor | None = None
    touched = torch.zeros_like(open_rows)

    def hook(module: nn.Module, args: object, output: Any) -> None:
        nonlocal prefilled, each_step, touched
        hidden = state_of(output)
        if prefilled and isinstance(edit, AddVector | RowShift):
            if each_step is None:  # every gate has spoken once the prefill is over
                each_step, touched = _step_vectors(edit, open_rows, hidden)
            if touched.any():
                hidden[:, -1] += each_step
                rows.fire(edit.site, touched)
            return
        at_prefill, prefilled = not prefilled, True
        if not at_prefill and edit.tokens not in STEPS:
            return
        if not open_rows.any():
            return
        where = _positions(edit.tokens, rows, open_rows, at_prefill, hidden.shape[1])
        rows.fire(edit.site, torch.isin(torch.arange(len(open_rows)), where[0]))
        where = tuple(index.to(hidden.device) for index in where)
        hidden[where] = change(hidden[where], where[0]).to(hidden.dtype)

    return hook


def _step_vectors(
    edit: AddVector | RowShift, open_rows: Bool[Tensor, " row"], hidden: Float[Tensor, "row token width"]
) -> tuple[Float[Tensor, "row width"], Bool[Tensor, " row"]]:
    """What a constant edit adds to the last token of each row in every step, and the rows that it touches.

    Made once a call: with 30 blocks a step has 30 such edits, and one addition each is all they may cost.
    """
    vectors = edit.vectors if isinstance(edit, RowShift) else edit.vector
    opened = open_rows if edit.tokens in STEPS else torch.zeros_like(open_rows)
    return vectors.to(hidden.device, hidden.dtype) * opened.to(hidden.device)[:, None], opened


def _positions(
    tokens: Tokens, rows: Rows, open_rows: Bool[Tensor, " row"], at_prefill: bool, length: int
) -> tuple[Tensor, ...]:
    """Row and position indices that a scope covers in this forward call."""
    if not at_prefill or tokens in ("last", "last_prompt"):
        chosen = open_rows.nonzero()[:, 0]
        return chosen, torch.full_like(chosen, length - 1)
    covered = {"all": rows.real, "prompt": rows.real, "image": rows.image}.get(tokens, torch.zeros_like(rows.real))
    return (covered & open_rows[:, None]).nonzero(as_tuple=True)


def change_of(edit: ActivationEdit | RowShift) -> Change:
    """The rule of an edit, for some positions at its site."""
    match edit:
        case AddVector():
            return lambda h, row: h + edit.vector.to(h.device, h.dtype)
        case RowShift():
            return lambda h, row: h + edit.vectors.to(h.device, h.dtype)[row]
        case ProjectOut():

            def project(h: Tensor, row: Tensor) -> Tensor:
                state = precise(h)
                directions = edit.directions.to(state)
                return state - edit.strength * (state @ directions.T) @ directions

            return project
        case CosineDose():

            def dose(h: Tensor, row: Tensor) -> Tensor:
                state = precise(h)
                direction = edit.direction.to(state)
                off = nn.functional.normalize(state - edit.reference.to(state), dim=-1)
                cosine = (off @ direction).clamp(0, 1)
                return state - (edit.strength * state.norm(dim=-1) * cosine)[:, None] * direction

            return dose


def _gate_reader(gate: Gate, open_rows: Bool[Tensor, " row"]) -> Callable[..., None]:
    """Close, at prefill, the rows whose gate says so."""
    read = False

    def hook(module: nn.Module, args: object, output: Any) -> None:
        nonlocal read
        if not read:
            open_rows.logical_and_((score(gate, state_of(output)[:, -1]) > 0).cpu())
            read = True

    return hook


def _adapter(adapter: LoadAdapter) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        down, up = adapter.down.to(output), adapter.up.to(output)
        return output + adapter.strength * (args[0] @ down.T @ up.T)

    return hook


def _reader(site: Site, states: dict[Site, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: Any) -> None:
        states[site] = precise(state_of(output)[:, -1]).clone()

    return hook


def _sources(anatomy: Anatomy, site: Site) -> list[Site]:
    """The site itself; before a layer that text-only requests skip, the one whose state then passes through it."""
    before = site.layer
    while before in anatomy.crossing:
        before -= 1
    return [site] if before in (site.layer, -1) else [replace(site, layer=before), site]


def state_of(output: Any) -> Float[Tensor, "row token width"]:
    """What a block returns: blocks return a bare tensor in transformers 5 and a tuple in some families."""
    return output if isinstance(output, Tensor) else output[0]
