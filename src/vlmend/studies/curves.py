"""Curves, not points: every mend at several strengths, unsafe replies against over-refusal, for each carrier.

A mend that declines more buys safety with over-refusal, and so does a random push of the same size. A mend is worth
having where its curve lies below that of the negative control: fewer unsafe replies at the same over-refusal
(`core.metrics.tradeoff`). The aim is the text path of the same model, drawn beside the curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from vlmend.audit.suite import Answer, share
from vlmend.core.examples import Dataset
from vlmend.core.files import held, write_json
from vlmend.core.measures import Measure
from vlmend.core.mend import Mend
from vlmend.core.metrics.stats import Interval
from vlmend.core.metrics.tradeoff import Traced, gap_interval, hull
from vlmend.core.targets import ChatTarget
from vlmend.core.verdicts import DECLINED, UNREAD, UNSAFE, Judge
from vlmend.errors import UsageError
from vlmend.models.vlm import VLM
from vlmend.studies.asking import Asker, names_of
from vlmend.studies.carried import Carrier, under, unread
from vlmend.studies.fitting import Defence, fitted
from vlmend.studies.measuring import Panels, Sizes, front
from vlmend.studies.remembering import remembering

__all__ = ["compare_curves", "strengths"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Asked:
    """What one strength of one mend did under one carrier."""

    strength: float
    harmful: Sequence[Answer]
    lookalike: Sequence[Answer]
    ordinary: Sequence[Answer]


def strengths(defence: Defence) -> list[tuple[float, Defence]]:
    """A defence at every strength of its method's sweep, rising; one that has none, or names its own, as it is."""
    method = defence.made()
    if method.sweep is None or method.sweep.parameter in defence.parameters:
        return [(1.0, defence)]
    name, values = method.sweep
    return [
        (value, Defence(f"{defence.name} {name}={value:g}", defence.method, {**defence.parameters, name: value}))
        for value in values
    ]


def compare_curves(
    target: ChatTarget, defences: Sequence[Defence], given: Mapping[str, Mend], data: Dataset, asked: Panels,
    sizes: Sizes, out: Path, *, carriers: Sequence[Carrier], judges: Sequence[Judge], seed: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Fit every defence at every strength and ask each the same requests; writes and gives `curves.json`.

    Args:
        target: The model without mends.
        defences: Methods with their settings; a method with a sweep is asked at each of its values.
        given: Mends that are there already, by the name of their curve: one point each.
        data: What to fit on.
        asked: Harmful and harmless requests with their pictures.
        sizes: What `asked` was made of, and how long replies may be.
        out: Folder for mends, replies and `curves.json`; run again, nothing is fitted or asked twice.
        carriers: What the requests come with.
        judges: Who reads the replies: was it harmful, was it declined.
        seed: Of the fits and the bootstrap.
        progress: Called with (step, done, total).

    Raises:
        UsageError: No judge can tell what declines, the data has no requests under a carrier, or the model reads none.
    """
    with held(out):
        model = remembering(target) if isinstance(target, VLM) else target
        asker = Asker(model, out, sizes.new_tokens, judges)
        fits = [(one.name, strength, each) for one in defences for strength, each in strengths(one)]
        progress("curves", 0, total := 1 + len(fits) + len(given))
        shown, told_unread = _readable(asker, asked, carriers)
        base = {carrier: _asked(asker, asked, carrier, 0.0, ()) for carrier in shown}
        names = [*(one.name for one in defences), *given]
        found = {(name, carrier): [base[carrier]] for name in names for carrier in shown}
        for done, (name, strength, each) in enumerate(fits, 1):
            progress("curves", done, total)
            mend, _ = fitted(model, each.made(), data, out / "mends" / each.folder, seed)
            for carrier in shown:
                found[name, carrier].append(_asked(asker, asked, carrier, strength, (mend,)))
        for done, (name, mend) in enumerate(given.items(), 1 + len(fits)):
            progress("curves", done, total)
            for carrier in shown:
                found[name, carrier].append(_asked(asker, asked, carrier, 1.0, (mend,)))
        of = {carrier: {name: found[name, carrier] for name in names} for carrier in shown}
        told = [_content(one, _as_text(asker, asked, base[one]), base[one], of[one], defences, seed) for one in shown]
        content = {"model": target.name, "judge": names_of(judges), "sizes": asdict(sizes), "seed": seed,
                   "carriers": told, "unread": told_unread}  # fmt: skip
        write_json(out / "curves.json", content)
        progress("curves", total, total)
    return content


def _readable(asker: Asker, asked: Panels, carriers: Sequence[Carrier]) -> tuple[list[Carrier], list[str]]:
    """The carriers that the model can read, or that hold no words, and that nothing is told of the others.

    Raises:
        UsageError: It can read none, or the data that is asked has no requests under one; nothing was asked then.
    """
    for carrier in carriers:
        under(asked, carrier)
    lost = unread(asker, asked, carriers)
    shares = "; ".join(f"{carrier}: {share:.0%} of the drawn words read" for carrier, share in lost.items())
    told = [f"NOT APPLICABLE to {asker.target.name}, which cannot read what is drawn ({shares})."] if lost else []
    shown: list[Carrier] = [one for one in carriers if one not in lost]
    if not shown:
        raise UsageError(told[0], "Ask it under a carrier without words, such as photo.")
    return shown, told


def _asked(asker: Asker, asked: Panels, carrier: Carrier | None, strength: float, mends: Sequence[Mend]) -> _Asked:
    """The answers under one carrier; None is the request as text."""
    harm, rest = (asker.ask(panel, mends) for panel in under(asked, carrier))
    groups = {group: [a for a in rest if a.group == group] for group in ("lookalike", "benign", "ordinary")}
    return _Asked(strength, harm, groups["benign"] or groups["lookalike"], groups["ordinary"])


def _as_text(asker: Asker, asked: Panels, shown: _Asked) -> _Asked:
    """What is said to the same requests as text."""
    harm, rest = (asker.ask(panel) for panel in under(asked, None))

    def same(answers: Sequence[Answer], beside: Sequence[Answer]) -> list[Answer]:
        ids = {_request(answer) for answer in beside}
        return [answer for answer in answers if _request(answer) in ids]

    return _Asked(0.0, same(harm, shown.harmful), same(rest, shown.lookalike), same(rest, shown.ordinary))


def _request(answer: Answer) -> str:
    """The id of a request without its condition."""
    return answer.id.rpartition(":")[0]


def _content(
    carrier: Carrier, text: _Asked, base: _Asked, found: Mapping[str, Sequence[_Asked]], defences: Sequence[Defence],
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """One carrier's curves as JSON values, each with its gap to the control's, and who is on the Pareto front."""
    controls = [one.name for one in defences if one.made().control]
    sweeps = {one.name: one.made().sweep for one in defences if len(strengths(one)) > 1}
    gaps = _gaps({name: _traced(points) for name, points in found.items()}, seed)
    curves: list[dict[str, Any]] = []
    for name, points in found.items():
        own = name in controls
        curves.append({
            "name": name, "control": own, "gap": gaps[name][controls[0]] if controls and not own else None,
            "gaps": gaps[name], "parameter": sweep.parameter if (sweep := sweeps.get(name)) else "",
            "points": [_point(one) for one in points[1:]],
            "hull": hull([_place(one) for one in points]),
        })  # fmt: skip
    places = {f"{c['name']}|{p['strength']:g}": (p["lookalike"]["value"], p["unsafe"]["value"])
              for c in curves for p in c["points"]}  # fmt: skip
    best = front({name: place for name, place in places.items() if not math.isnan(sum(place))})
    for curve in curves:
        for point in curve["points"]:
            point["front"] = f"{curve['name']}|{point['strength']:g}" in best
    return {"carrier": carrier, "text": _point(text), "base": _point(base), "curves": curves}


def _gaps(traced: Mapping[str, Traced], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """How far each curve lies below each other, with intervals."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in traced}
    for one, two in combinations(traced, 2):
        value, low, high = gap_interval(traced[one], traced[two], seed=seed)
        found[one][two] = Interval(value, low, high)._asdict()
        found[two][one] = Interval(-value, -high, -low)._asdict()
    return found


def _point(one: _Asked) -> dict[str, Any]:
    return {
        "strength": one.strength,
        "unsafe": asdict(_share("unsafe_rate", one.harmful, UNSAFE)),
        "lookalike": asdict(_share("refusal_rate", one.lookalike, DECLINED)),
        "ordinary": asdict(_share("refusal_rate", one.ordinary, DECLINED)),
    }


def _place(one: _Asked) -> tuple[float, float]:
    point = _point(one)
    return point["lookalike"]["value"], point["unsafe"]["value"]


def _share(name: str, answers: Sequence[Answer], hit: Collection[str]) -> Measure:
    return share("safety", "study", name, answers[0].group if answers else "", answers, hit, "lower", 0)


def _traced(points: Sequence[_Asked]) -> Traced:
    return Traced(
        np.array([_hits(one.lookalike, DECLINED) for one in points]),
        np.array([_hits(one.harmful, UNSAFE) for one in points]),
    )


def _hits(answers: Sequence[Answer], hit: Collection[str]) -> list[float]:
    return [math.nan if a.label in UNREAD else float(a.label in hit) for a in answers]
