"""The interpreter of `InsertTokens`: places in what a tower reads, and hooks on its blocks that fill them.

Behind the first token of a text its tokenizer's inputs get places, behind the last patch of a picture the first block
does. Where the tokens of texts are several sets, a text stands in a batch once for each (each combination, if several
edits have sets), in one run of rows. What is installed lives for one `with` block.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vlmend.core.dual_edits import InsertTokens
from vlmend.errors import BadParameter, ModelProblem

__all__ = ["folded", "installed_tokens", "places_in_texts", "with_places", "without_words"]

Stack = Literal["vision", "text"]
Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def places_in_texts(edits: Sequence[InsertTokens]) -> int:
    """How many places the edits need in each text."""
    return sum(edit.tokens.shape[1] // edit.sets for edit in edits if edit.tower == "text")


def without_words(texts: Sequence[str], edits: Sequence[InsertTokens]) -> list[str]:
    """The texts without the words in whose place tokens stand; case does not count."""
    kept = list(texts)
    for words in (edit.instead for edit in edits if edit.tower == "text" and edit.instead):
        kept = [
            text[len(words) :].lstrip() if text[: len(words)].casefold() == words.casefold() else text for text in kept
        ]
    return kept


def with_places(inputs: Mapping[str, Tensor], edits: Sequence[InsertTokens]) -> dict[str, Tensor]:
    """Inputs of texts, "text position" each, with the places, copies of the first, behind it; a row for each set."""
    count, rows = places_in_texts(edits), _readings(edits)
    return {
        key: torch.cat([value[:, :1].expand(-1, count), value], dim=1).repeat_interleave(rows, 0)
        for key, value in inputs.items()
    }


def folded(rows: Tensor, edits: Sequence[InsertTokens], *, unit: bool = True) -> Tensor:
    """What came out for each text, "text width": where there are several sets the mean, of rows of length 1 if `unit`.

    Args:
        rows: Those of `with_places`, "row width".
        edits: The edits that made them.
        unit: Whether rows are brought to length 1 before.
    """
    count = _readings(edits)
    if count == 1:
        return rows
    return (normalize(rows, dim=1) if unit else rows).unflatten(0, (-1, count)).mean(1)


@contextmanager
def installed_tokens(blocks: Callable[[Stack], nn.ModuleList], edits: Sequence[InsertTokens]) -> Generator[None]:
    """The tokens at work inside the block, for every row; those of several edits of one tower stand in their order.

    Raises:
        BadParameter: There are more tokens than blocks, or, once a tower runs, they are of another width.
        ModelProblem: Once the vision tower runs: it reads no plain sequence.
    """
    with ExitStack() as stack:
        for tower in get_args(Stack):
            chosen = [edit for edit in edits if edit.tower == tower]
            for place, edit in enumerate(chosen):
                homes = blocks(tower)
                if len(edit.tokens) > len(homes):
                    raise BadParameter(
                        f"InsertTokens has tokens for {len(edit.tokens)} blocks, and the {tower} tower has "
                        f"{len(homes)}.",
                        "Fit the mend again on this very model.",
                    )
                before, after = (
                    sum(other.tokens.shape[1] // other.sets for other in part)
                    for part in (chosen[:place], chosen[place + 1 :])
                )
                inner = prod(other.sets for other in chosen[place + 1 :])
                for k, (home, tokens) in enumerate(zip(homes, edit.tokens, strict=False)):
                    sets = tokens.unflatten(0, (edit.sets, -1)).repeat_interleave(inner, 0)
                    hook = _filling(sets, 1 + before) if tower == "text" else _following(tokens, after, new=k == 0)
                    stack.callback(home.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _readings(edits: Sequence[InsertTokens]) -> int:
    """How often a text is read."""
    return prod(edit.sets for edit in edits if edit.tower == "text")


def _filling(sets: Tensor, start: int) -> Hook:
    """Tokens, "set token width", in the place of what a block would read from `start` on; rows take sets in turn."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states, *others = args
        rows = _rows(sets, states)
        return (torch.cat([states[:, :start], rows, states[:, start + sets.shape[1] :]], dim=1), *others), kwargs

    return hook


def _following(tokens: Tensor, after: int, *, new: bool) -> Hook:
    """Tokens behind what a block reads, or in the place of the last ones; those of `after` other edits come last."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        states, *others = args
        if states.ndim != 3 or any(other is not None for other in (*others, kwargs.get("attention_mask"))):
            raise ModelProblem(
                f"{type(module).__name__} reads no plain sequence of patches, so learnt tokens have no place in it.",
                "Learn tokens of the text tower alone (visual=false), or take a model of the CLIP kind.",
            )
        rows, end = _rows(tokens[None], states), states.shape[1] - (0 if new else after)
        kept = states[:, :end] if new else states[:, : end - len(tokens)]
        return (torch.cat([kept, rows, states[:, end:]], dim=1), *others), kwargs

    return hook


def _rows(sets: Tensor, states: Tensor) -> Tensor:
    """The tokens for each row of a batch."""
    if sets.shape[2] != states.shape[2]:
        raise BadParameter(
            f"InsertTokens is {sets.shape[2]} numbers wide, and this tower's states are {states.shape[2]}.",
            "Fit the mend again on this very model.",
        )
    return sets.to(states).repeat(len(states) // len(sets), 1, 1)
