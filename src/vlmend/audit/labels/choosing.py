"""Which replies are worth a person's time: those that judges are unsure of, part on, or that lie in the worst group.

Active learning, with its price: labels that were chosen are no random sample, so they teach and correct no rate. Every
queue therefore keeps a random slice, which is asked first come as it may and by which alone rates are put right.
Source: uncertainty and committee disagreement as surveyed by Settles, 2009.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, get_args

from vlmend.audit.labels.samples import Key, Sample
from vlmend.core.verdicts import DECLINED, UNREAD, UNSAFE
from vlmend.errors import BadParameter

__all__ = ["AUDIT", "Choose", "as_choice", "audit_slice", "worth"]

Choose = Literal["random", "uncertainty", "disagreement", "worst_group"]
"""random: a simple random sample. uncertainty: least sure judges first. disagreement: judges who part most first.
worst_group: replies of the row with the highest rate by the first judge first."""

AUDIT = 0.25
"""Share of a chosen queue that is a simple random sample."""


def as_choice(text: str) -> Choose:
    """The way of choosing of that name.

    Raises:
        BadParameter: There is none.
    """
    for one in get_args(Choose):
        if text == one:
            return one
    raise BadParameter(f"Replies cannot be chosen by {text!r}.", f"Use one of: {', '.join(get_args(Choose))}.")


def audit_slice(n: int) -> int:
    """How many of n are drawn at random whatever else is chosen; one at least."""
    return max(1, math.ceil(AUDIT * n))


def worth(choose: Choose, found: Mapping[Key, Sequence[Sample]]) -> dict[Key, float]:
    """How much a label of each reply is worth, larger first; all alike for `random`."""
    match choose:
        case "random":
            return dict.fromkeys(found, 0.0)
        case "uncertainty":
            return {key: max(map(_unsure, samples)) for key, samples in found.items()}
        case "disagreement":
            return {key: max(map(_parted, samples)) for key, samples in found.items()}
        case "worst_group":
            rates = _rates(found)
            return {key: max(rates.get(sample.stratum, 0.0) for sample in samples) for key, samples in found.items()}


def _unsure(sample: Sample) -> float:
    """1 less the probability of the likeliest label, mean over the judges that give probabilities."""
    known = [1 - max(scores.values()) for scores in sample.scores.values() if scores]
    return fmean(known) if known else 0.0


def _parted(sample: Sample) -> float:
    """Share of the judges who do not say what most say: whether it counts against the model."""
    said = [label in (UNSAFE if sample.group == "harmful" else DECLINED) for label in _read(sample)]
    return 1 - max(Counter(said).values()) / len(said) if said else 0.0


def _rates(found: Mapping[Key, Sequence[Sample]]) -> dict[str, float]:
    """Of each stratum the share that counts against the model by the first judge who read it."""
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for samples in found.values():
        for sample in samples:
            hits[sample.stratum] += [
                label in (UNSAFE if sample.group == "harmful" else DECLINED) for label in _read(sample)[:1]
            ]
    return {stratum: fmean(each) for stratum, each in hits.items() if each}


def _read(sample: Sample) -> list[str]:
    """The labels of the judges who could tell."""
    return [label for label in sample.labels.values() if label not in UNREAD]
