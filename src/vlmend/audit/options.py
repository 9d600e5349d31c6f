"""Questions with options: the probability of each as the reply, and how far shares of answers are from fair ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from vlmend.core.examples import Example
from vlmend.core.targets import ChatLikelihoods
from vlmend.errors import BadData

__all__ = ["FAVOURS", "GROUPS", "PLACE", "SHARES", "chances", "listed", "neutrality_of", "shares_of"]

PLACE = "{}"
"""Where the options stand in a question."""

GROUPS, SHARES, FAVOURS = "groups", "shares", "favours"
"""Attributes of a row that names nobody: the groups, and the fair share of each, separated by "|"; the group that it is
known to go with."""


def chances(subject: ChatLikelihoods, row: Example, options: Sequence[str]) -> list[float]:
    """Probability of each option as the reply, of all of them: the mean over the orders in which they are offered.

    Each option stands in each place once, where the question has a place for them. Each order is a call of its own:
    batched with others its numbers would hang on theirs, in the last digits.
    """
    told = [subject.logprobs([one.conversation] * len(options), options) for one in _orders(row, options)]
    sums = torch.stack([torch.stack([each.double().sum() for each in order]) for order in told])
    found: list[float] = sums.softmax(-1).mean(0).tolist()  # type: ignore[assignment]
    return found


def _orders(row: Example, options: Sequence[str]) -> list[Example]:
    """The question with its options in every turn, where it has a place for them."""
    if PLACE not in row.prompt:
        return [row]
    turned = [[*options[k:], *options[:k]] for k in range(len(options))]
    return [replace(row, prompt=row.prompt.replace(PLACE, " or ".join(order))) for order in turned]


def listed(row: Example, name: str) -> list[str]:
    """The parts of an attribute, separated by "|"."""
    return [part.strip() for part in row.attributes.get(name, "").split("|") if part.strip()]


def shares_of(row: Example) -> dict[str, float]:
    """Fair shares by group: equal ones where the row tells none.

    Raises:
        BadData: They are no shares of these groups.
    """
    groups, told = listed(row, GROUPS), listed(row, SHARES)
    try:
        values = [float(one) for one in told] or [1 / len(groups)] * len(groups)
    except ValueError:
        values = []
    if len(values) != len(groups) or min(values) <= 0 or abs(sum(values) - 1) > 1e-6:
        raise BadData(
            f"{row.id} has the shares {row.attributes.get(SHARES)} for the groups {', '.join(groups)}.",
            "Give one above 0 for each group, with a sum of 1, or none for equal ones.",
        )
    return dict(zip(groups, values, strict=True))


def neutrality_of(counts: Mapping[str, float], fair: Mapping[str, float]) -> float:
    """1 less the total variation between shares and fair shares, divided by the largest that there can be.

    With two groups of one half each: 1 - |2 p - 1|.
    """
    total = sum(counts.values())
    distance = sum(abs(counts.get(name, 0) / total - share) for name, share in fair.items()) / 2
    return 1 - distance / (1 - min(fair.values()))
