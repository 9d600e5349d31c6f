"""The one torch interpreter of edits of states.

Hooks live for one call inside one `ExitStack`, never on the model: nothing leaks between requests,
and mended and plain rows are one call apart. At one site every gate is read first, then the edits act in
their order, and capture comes last, so a captured state is always the state that the next block reads.

Edits act in place on the block's output: under inference mode nobody else holds it, and a copy of
the whole prompt for the sake of its last token would cost more than all edits together. Where gradients
are wanted they act on a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vlmend.core.shifts import capped
from vlmend.core.sites import Site
from vlmend.core.state_edits import (
    ActivationEdit,
    AddVector,
    AffineMap,
    AnyGate,
    CosineDose,
    Gate,
    MahalanobisGate,
    ModuleEdit,
    NeighbourGate,
    ProjectOut,
    Tokens,
    When,
)
from vlmend.core.steering import Push
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.reading.states import Rows, block, precise, state_of

__all__ = ["STEPS", "Aimed", "Change", "RowShift", "change_of", "chasing", "editing", "gate_of", "score", "steering"]

STEPS = ("last", "all", "reply")
"""Scopes that cover generated tokens."""

Change = Callable[[Float[Tensor, "n width"], Int[Tensor, " n"]], Float[Tensor, "n width"]]
"""New states of n positions, from their states and the rows that they belong to."""


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
            if gate := gate_of(one.edit):
                reader = _gate_reader(gate, one.rows, rows)
                stack.callback(block(anatomy, gate.site).register_forward_hook(reader).remove)
        for one in aimed:
            stack.callback(block(anatomy, one.edit.site).register_forward_hook(_editor(one, rows)).remove)
        yield


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


@contextmanager
def steering(anatomy: Anatomy, sites: Sequence[Site], push: Push, tokens: Tokens, rows: Rows) -> Generator[None]:
    """Add at each site what `push` says to the states that came there, at the prefill."""
    every = torch.ones_like(rows.has_image)

    def at(site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Any) -> None:
            hidden = state_of(output)
            added = push(site, _at_last(hidden, rows).to("cpu", torch.float32, copy=True))
            where = tuple(index.to(hidden.device) for index in _positions(tokens, rows, every, True, hidden.shape[1]))
            hidden[where] += added.to(hidden.device, hidden.dtype)

        return hook

    with ExitStack() as stack:
        for site in sites:
            stack.callback(block(anatomy, site).register_forward_hook(at(site)).remove)
        yield


def gate_of(edit: ActivationEdit | RowShift) -> AnyGate | None:
    """What opens an edit; None where it is always open."""
    return None if isinstance(edit, RowShift) else edit.gate


def score(gate: AnyGate, states: Float[Tensor, "row width"]) -> Float[Tensor, " row"]:
    """What a gate makes of states; it is open where that is positive."""
    match gate:
        case Gate():
            return states.to(gate.weight) @ gate.weight + gate.bias
        case MahalanobisGate():
            z = _projected(gate.project, states)
            benign, harmful = (
                ((z - centre.to(z)) @ spread.to(z).T).norm(dim=-1)
                for centre, spread in (
                    (gate.benign_centre, gate.benign_spread),
                    (gate.harmful_centre, gate.harmful_spread),
                )
            )
            return benign - harmful + gate.bias
        case NeighbourGate():
            z = nn.functional.normalize(_projected(gate.project, states), dim=-1)
            benign, harmful = (
                torch.cdist(z, kept.to(z), compute_mode="donot_use_mm_for_euclid_dist").kthvalue(gate.neighbours).values
                for kept in (gate.benign, gate.harmful)
            )
            return benign - harmful + gate.bias
        case _:
            assert_never(gate)


def _projected(project: Float[Tensor, "rank width"], states: Float[Tensor, "row width"]) -> Float[Tensor, "row rank"]:
    state = precise(states)
    return state @ project.to(state).T


def _editor(aimed: Aimed, rows: Rows) -> Callable[..., Any]:
    edit, open_rows = aimed.edit, aimed.rows
    prefilled = False
    each_step: Tensor | None = None
    touched = torch.zeros_like(open_rows)

    def hook(module: nn.Module, args: object, output: Any) -> Any:
        nonlocal prefilled, each_step, touched
        output = _own(output) if torch.is_grad_enabled() else output
        hidden = state_of(output)
        if prefilled and isinstance(edit, AddVector | RowShift):
            if each_step is None:  # every gate has spoken once the prefill is over
                each_step, touched = _step_vectors(edit, open_rows, hidden)
            if touched.any():
                hidden[:, -1] += each_step
                rows.fire(edit.site, touched)
            return output
        at_prefill, prefilled = not prefilled, True
        if not at_prefill and edit.tokens not in STEPS:
            return output
        if not open_rows.any():
            return output
        if isinstance(edit, AffineMap) and edit.source == "last_prompt":
            change = _from_last(edit, _at_last(hidden, rows))
        else:
            change = change_of(edit)
        where = _positions(edit.tokens, rows, open_rows, at_prefill, hidden.shape[1])
        rows.fire(edit.site, torch.isin(torch.arange(len(open_rows)), where[0]))
        where = tuple(index.to(hidden.device) for index in where)
        hidden[where] = change(hidden[where], where[0]).to(hidden.dtype)
        return output

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
    if rows.after is not None:
        return (_forced(tokens, rows, length) & open_rows[:, None]).nonzero(as_tuple=True)
    if not at_prefill or tokens in ("last", "last_prompt"):
        chosen = open_rows.nonzero()[:, 0]
        return chosen, torch.full_like(chosen, length - 1)
    covered = {"all": rows.real, "prompt": rows.real, "image": rows.image}.get(tokens, torch.zeros_like(rows.real))
    return (covered & open_rows[:, None]).nonzero(as_tuple=True)


def _forced(tokens: Tokens, rows: Rows, length: int) -> Bool[Tensor, "row token"]:
    """The positions of a scope where prompt and given reply are read in one call."""
    place, last = torch.arange(length)[None], rows.last(length)[:, None]
    match tokens:
        case "last_prompt":
            return place == last
        case "last":
            return place >= last
        case "reply":
            return place > last
        case "all":
            return rows.real | (place > last)
        case "prompt":
            return rows.real
        case "image":
            return rows.image
        case _:
            assert_never(tokens)


def _own(output: Any) -> Any:
    """A copy of what a block returns, which may be changed where autograd holds the other."""
    return output.clone() if isinstance(output, Tensor) else (output[0].clone(), *output[1:])


def _at_last(hidden: Float[Tensor, "row token width"], rows: Rows) -> Float[Tensor, "row width"]:
    """The state of each row's last prompt token."""
    if rows.after is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden)), rows.last(hidden.shape[1]).to(hidden.device)]


def _from_last(edit: AffineMap, states: Float[Tensor, "row width"]) -> Change:
    """What a map makes of each row's last prompt token, for every position of the row."""
    moves = _moved(edit, precise(states))
    return lambda h, row: precise(h) + moves[row]


def _moved(edit: AffineMap, state: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
    read, write, bias = (part.to(state) for part in (edit.read, edit.write, edit.bias))
    return edit.strength * (state @ read.T @ write.T + bias)


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
        case AffineMap():

            def mapped(h: Tensor, row: Tensor) -> Tensor:
                state = precise(h)
                return state + _moved(edit, state)

            return mapped
        case ModuleEdit():

            def through(h: Tensor, row: Tensor) -> Tensor:
                state = precise(h)
                hidden = torch.relu(state @ edit.read.to(state).T + edit.read_bias.to(state))
                return state + edit.strength * (hidden @ edit.write.to(state).T + edit.write_bias.to(state))

            return through
        case _:
            assert_never(edit)


def _gate_reader(gate: AnyGate, open_rows: Bool[Tensor, " row"], rows: Rows) -> Callable[..., None]:
    """Close, at prefill, the rows whose gate says so."""
    read = False

    def hook(module: nn.Module, args: object, output: Any) -> None:
        nonlocal read
        if not read:
            open_rows.logical_and_((score(gate, _at_last(state_of(output), rows)) > 0).cpu())
            read = True

    return hook
