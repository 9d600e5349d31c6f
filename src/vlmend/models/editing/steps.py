"""What edits do to generated tokens, for rows that come and go.

`states.editing` acts on the prefill of some rows; once that is over and every gate has spoken, what is
left of the edits for the tokens that follow is a few numbers a row. They are kept here, cut when rows
are finished and joined when others come, so that rows under different mends share one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.core.sites import Site
from vlmend.core.state_edits import ActivationEdit, AddVector, AffineMap, CosineDose, ModuleEdit, ProjectOut
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.editing.states import STEPS, Aimed, RowShift, change_of
from vlmend.models.reading.states import block, state_of

__all__ = ["Steps", "steps_of"]


@dataclass(frozen=True, eq=False)
class _Act:
    """One thing done at a site in every step.

    Attributes:
        edits: How many edits it stands for in each row, 0 where it is for others, "row".
        what: What is added to each row, zero for the others, "row width"; or an edit that takes the state to tell.
    """

    edits: Int[Tensor, " row"]
    what: Float[Tensor, "row width"] | ActivationEdit


@dataclass(frozen=True, eq=False)
class Steps:
    """The acts of the rows under way, at each site in their order.

    Attributes:
        size: Number of rows.
        acts: By site.
        calls: How often the block of a site was edited in a step: the proof of fire.
    """

    size: int
    acts: dict[Site, list[_Act]]
    calls: Counter[Site]

    def kept(self, rows: Int[Tensor, " kept"]) -> Steps:
        """The acts of these rows."""
        return replace(
            self, size=len(rows), acts={site: [_cut(a, rows) for a in acts] for site, acts in self.acts.items()}
        )

    def joined(self, other: Steps) -> Steps:
        """The acts of both, the other's rows after ours; constant ones stay one addition a site."""
        acts: dict[Site, list[_Act]] = {}
        for site in (*self.acts, *(site for site in other.acts if site not in self.acts)):
            ours = [_spread(act, 0, other.size) for act in self.acts.get(site, [])]
            theirs = [_spread(act, self.size, 0) for act in other.acts.get(site, [])]
            acts[site] = _merged([*ours, *theirs])
        return Steps(self.size + other.size, acts, self.calls)

    def fired(self, row: int, since: Counter[Site]) -> Counter[Site]:
        """Edits of a row's states at each site, in the steps after `since`."""
        edits = {site: sum(int(act.edits[row]) for act in acts) for site, acts in self.acts.items()}
        return Counter({site: count * (self.calls[site] - since[site]) for site, count in edits.items() if count})

    @contextmanager
    def installed(self, anatomy: Anatomy) -> Generator[None]:
        """Act on every forward call inside the block, each of one token a row."""
        with ExitStack() as stack:
            for site, acts in self.acts.items():
                handle = block(anatomy, site).register_forward_hook(_hook(site, acts, self.calls))
                stack.callback(handle.remove)
            yield


def steps_of(aimed: Sequence[Aimed], size: int, width: int, like: Tensor) -> Steps:
    """What is left for generated tokens once the prefill of `size` rows is over; numbers are made `like`."""
    acts: dict[Site, list[_Act]] = {}
    for one in aimed:
        if one.edit.tokens in STEPS and bool(one.rows.any()):
            acts.setdefault(one.edit.site, []).append(_act(one, size, width, like))
    return Steps(size, {site: _merged(found) for site, found in acts.items()}, Counter())


def _act(aimed: Aimed, size: int, width: int, like: Tensor) -> _Act:
    match aimed.edit:
        case AddVector(vector=vector):
            vectors = vector.to(like).expand(size, width)
        case RowShift(vectors=each):
            vectors = each.to(like)
        case (ProjectOut() | CosineDose() | AffineMap() | ModuleEdit()) as edit:
            return _Act(aimed.rows.long(), edit)
        case _:
            assert_never(aimed.edit)
    return _Act(aimed.rows.long(), vectors * aimed.rows.to(like.device)[:, None])


def _merged(acts: list[_Act]) -> list[_Act]:
    """Neighbours that are both constant become one, and one edit for rows here and there is one act."""
    merged: list[_Act] = []
    for act in acts:
        last = merged[-1] if merged else None
        if last is not None and isinstance(last.what, Tensor) and isinstance(act.what, Tensor):
            merged[-1] = _Act(last.edits + act.edits, last.what + act.what)
        elif last is not None and last.what is act.what and not (last.edits * act.edits).any():
            merged[-1] = replace(last, edits=last.edits + act.edits)
        else:
            merged.append(act)
    return merged


def _cut(act: _Act, rows: Int[Tensor, " kept"]) -> _Act:
    what = act.what[rows.to(act.what.device)] if isinstance(act.what, Tensor) else act.what
    return _Act(act.edits[rows], what)


def _spread(act: _Act, before: int, after: int) -> _Act:
    """The act with rows before and after its own that it is not for."""
    edits = torch.nn.functional.pad(act.edits, (before, after))
    what = torch.nn.functional.pad(act.what, (0, 0, before, after)) if isinstance(act.what, Tensor) else act.what
    return _Act(edits, what)


def _hook(site: Site, acts: Sequence[_Act], calls: Counter[Site]) -> Callable[..., None]:
    moves = [_move(act) for act in acts]

    def hook(module: object, args: object, output: Any) -> None:
        hidden = state_of(output)
        calls[site] += 1
        for move in moves:
            move(hidden)

    return hook


def _move(act: _Act) -> Callable[[Tensor], None]:
    """What the act does, in place, to the states "row token width" of a step."""
    if isinstance(vectors := act.what, Tensor):

        def add(hidden: Tensor) -> None:
            hidden[:, -1] += vectors

        return add
    change, rows = change_of(act.what), act.edits.nonzero()[:, 0]

    def chosen(hidden: Tensor) -> None:
        here = rows.to(hidden.device)
        hidden[here, -1] = change(hidden[here, -1], here).to(hidden.dtype)

    return chosen
