"""How far attacks carry over: each attack is made on each model, and every model is asked what came of it.

Beside each number stand the same rows as they were, changed as much at random, and with the change that was made for
another picture: without those, a picture that does nothing looks like an attack (Chen et al., arXiv 2404.03411;
Schaeffer et al., arXiv 2407.15211, ICLR 2025).

OUT/attacks/MODEL/ATTACK   attacked rows, as `vlmend attack` writes them
OUT/asked.jsonl            what each model made of each row; nothing is asked twice
OUT/transfer.json          the matrix
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmend import registry
from vlmend.attacks.requests import RequestAttack
from vlmend.attacks.running import attackable, run_attack
from vlmend.audit.attacked import CLEAN, NOISE, READERS
from vlmend.audit.records import Records
from vlmend.core.attacks import AbstractAttack, Budget
from vlmend.core.contracts import SampleSuite
from vlmend.core.examples import Dataset
from vlmend.core.files import held, plain_name, write_json
from vlmend.core.metrics.stats import Interval, paired_difference, wilson
from vlmend.core.metrics.transfer import crossed_mean, transfer_ratio
from vlmend.core.targets import Kind, Target, key_of
from vlmend.errors import NeedsAccess, UsageError
from vlmend.studies.shared_parts import part_digests, shared_parts
from vlmend.studies.transfer_requests import ATTACKED, by_condition, declined
from vlmend.studies.transfer_rows import SHUFFLED, own_rows, put_to

__all__ = ["parse_attacks", "study_transfer"]

AS_IT_WAS, AT_RANDOM = CLEAN, NOISE

Right = Mapping[str, Mapping[str, bool]]
"""For each condition, and each row, whether a model got it right."""


@dataclass(frozen=True)
class _Cell:
    """What one model made of one attack on one model, on the rows that have all three conditions.

    `shares` names the parts that both have in common; None where that is not known.
    """

    source: str
    target: str
    attack: str
    rows: tuple[str, ...]
    right: Right
    unscored: int
    shares: list[str] | None

    def of(self, what: str) -> list[bool]:
        """Right or not, row by row."""
        return [self.right[what][row] for row in self.rows]

    def lifts(self, rows: Sequence[str]) -> list[int]:
        """Wrong under attack less wrong at random, for each of these rows."""
        return [int(self.right[AT_RANDOM][row]) - int(self.right[ATTACKED][row]) for row in rows]


def parse_attacks(texts: Sequence[str]) -> dict[str, AbstractAttack[Any, Any]]:
    """Attacks by their text, `NAME` or `NAME:k=v:k=v`.

    Raises:
        UsageError: A setting that is no k=v.
        UnknownName, BadParameter: An attack or a parameter that is not there.
    """
    found: dict[str, AbstractAttack[Any, Any]] = {}
    for text in texts:
        name, *settings = text.split(":")
        bad = [setting for setting in settings if "=" not in setting]
        if bad:
            raise UsageError(f"{bad[0]!r} is no k=v.", "Write for example pgd:restarts=2.")
        found[text] = registry.make_attack(name, dict(setting.split("=", 1) for setting in settings))
    return found


def study_transfer(
    models: Mapping[str, Callable[[], Target]], attacks: Mapping[str, AbstractAttack[Any, Any]], data: Dataset | None,
    budget: Budget, out: Path, *, limit: int | None = None, seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Fill the matrix of attacks and models and write it; stopped, the same call goes on where it was.

    Args:
        models: How to open each, by name; one is open at a time. A model without gradients is a target only.
        attacks: By name, with their parameters.
        data: What is attacked; the built-in pictures unless given.
        budget: Not empty.
        out: The folder.
        limit: The first rows of the data, or so many evenly spread built-in pictures.
        seed: Of attacks and resampling.
        progress: Called with (step, done, total).

    Returns:
        What `transfer.json` holds.

    Raises:
        UsageError: There are fewer than two models, no attack fits any, or the folder holds other attacks.
    """
    if len(models) < 2 or budget.empty:
        raise UsageError(
            f"{len(models)} models, epsilon {budget.epsilon:g} and {budget.steps} steps leave nothing to carry over.",
            "Name two models or more, with commas between, and a budget above 0.",
        )
    with held(out):
        made, kinds, parts, left_out = _attacked(models, attacks, data, budget, limit, out, seed, progress)
        cells: list[_Cell] = []
        for k, (name, open_model) in enumerate(models.items()):
            progress("ask", k, len(models))
            cells += _asked(name, open_model(), made, attacks, kinds, parts, data, limit, out, seed)
        progress("ask", len(models), len(models))
        content = {
            "models": kinds, "parts": parts, "attacks": {name: one.parameters for name, one in attacks.items()},
            "right": {name: one.right for name, one in attacks.items()},
            "epsilon": budget.in_levels.epsilon, "steps": budget.steps, "seed": seed, "left_out": left_out,
            "cells": [_told(cell, cells, seed) for cell in cells],
            "means": [_mean(attack, cells, seed) for attack in attacks],
        }  # fmt: skip
        write_json(out / "transfer.json", content)
    return content


def _attacked(
    models: Mapping[str, Callable[[], Target]], attacks: Mapping[str, AbstractAttack[Any, Any]], data: Dataset | None,
    budget: Budget, limit: int | None, out: Path, seed: int, progress: Callable[[str, int, int], None],
) -> tuple[dict[tuple[str, str], Dataset], dict[str, Kind], dict[str, dict[str, str]], dict[str, str]]:  # fmt: skip
    """What each attack made of the rows on each model, kind and parts of each model, and what could not be made."""
    made: dict[tuple[str, str], Dataset] = {}
    kinds: dict[str, Kind] = {}
    parts: dict[str, dict[str, str]] = {}
    left_out: dict[str, str] = {}
    for k, (name, open_model) in enumerate(models.items()):
        progress("attack", k, len(models))
        folder = out / "attacks" / plain_name(name)
        target = open_model()
        kinds[name], parts[name] = target.kind, part_digests(target)
        found, refused = _attacked_one(target, attacks, data, budget, limit, folder, seed)
        del target  # before the next one is opened
        made |= {(name, label): rows for label, rows in found.items()}
        left_out |= {f"{label} on {name}": why for label, why in refused.items()}
    progress("attack", len(models), len(models))
    if not made:
        raise UsageError(
            f"No attack could be made ({next(iter(left_out.values()))})", "Name a model that vlmend loads itself."
        )
    return made, kinds, parts, left_out


def _attacked_one(
    target: Target, attacks: Mapping[str, AbstractAttack[Any, Any]], data: Dataset | None, budget: Budget,
    limit: int | None, folder: Path, seed: int,
) -> tuple[dict[str, Dataset], dict[str, str]]:  # fmt: skip
    """What each attack made on one model, and why others could not; nothing holds it afterwards."""
    made: dict[str, Dataset] = {}
    left_out: dict[str, str] = {}
    for label, attack in attacks.items():
        if target.kind not in attack.works_on:
            left_out[label] = f"{attack.name} works on {', '.join(attack.works_on)}, and this is {target.kind}."
            continue
        asks = isinstance(attack, RequestAttack)
        rows = attackable(attack, target.kind, data, limit) if asks else own_rows(target.kind, data, limit)
        try:
            found = run_attack(attack, target, rows, budget, seed=seed, out=folder / plain_name(label)).data
        except NeedsAccess as problem:
            left_out[label] = problem.message
            continue
        made[label] = by_condition(attack, target, rows, found, budget, seed) if asks else found
    return made, left_out


def _asked(
    name: str, target: Target, made: Mapping[tuple[str, str], Dataset],
    attacks: Mapping[str, AbstractAttack[Any, Any]], kinds: Mapping[str, Kind],
    parts: Mapping[str, Mapping[str, str]], data: Dataset | None, limit: int | None, out: Path, seed: int,
) -> list[_Cell]:  # fmt: skip
    """A column of the matrix: what one model makes of every attack."""
    records = Records(out / "asked.jsonl", frozenset({"right", "unscored"}))
    found: list[_Cell] = []
    for (source, label), rows in made.items():
        attack, alike = attacks[label], kinds[source] == target.kind
        own_verdict = attack if isinstance(attack, RequestAttack) else None
        if own_verdict is not None:
            put = rows if alike else None
        else:
            put = put_to(own_rows(target.kind, data, limit), rows, alike=alike, seed=seed)
        if put is None:
            continue
        judge = [attack.name, attack.parameters] if own_verdict else []
        key = hashlib.sha256(json.dumps([key_of(target), put.digest, seed, *judge]).encode()).hexdigest()
        if key not in records.rows:
            right, unscored = declined(own_verdict, target, put) if own_verdict else _answered(target, put, seed)
            records.write([{"key": key, "right": right, "unscored": unscored}])
        row = records.rows[key]
        shared = sorted(set.intersection(*(set(row["right"][what]) for what in (AS_IT_WAS, AT_RANDOM, ATTACKED))))
        shares = shared_parts(parts[source], parts[name])
        found.append(_Cell(source, name, label, tuple(shared), row["right"], row["unscored"], shares))
    return found


def _answered(target: Target, put: Dataset, seed: int) -> tuple[dict[str, dict[str, bool]], int]:
    """For each condition and row whether a model gives the right answer, and how many rows have no score in one."""
    suite: SampleSuite[Any] = registry.get("suites", READERS[target.kind])
    right: dict[str, dict[str, bool]] = {AS_IT_WAS: {}, AT_RANDOM: {}, SHUFFLED: {}, ATTACKED: {}}
    samples = suite.samples(target, put, None, seed=seed)
    for sample in samples:
        if sample.values:
            first = sample.group.partition(" ")[0]
            what = first if first in right else ATTACKED
            right[what][sample.cluster] = sample.values["accuracy"] > 0
    return right, len({sample.cluster for sample in samples if not sample.values})


def _told(cell: _Cell, cells: Sequence[_Cell], seed: int) -> dict[str, Any]:
    """A cell as JSON values: how often right, what the attack lifts, and how much of its lift at home that is."""
    n = len(cell.rows)
    rates = {what: wilson(sum(cell.of(what)), n) for what in (AS_IT_WAS, AT_RANDOM, ATTACKED)}
    wrong = {what: [not one for one in cell.of(what)] for what in (AS_IT_WAS, AT_RANDOM, ATTACKED)}
    home = _home(cell, cells)
    shared = [row for row in cell.rows if home is not None and row in home.rows]
    ratio = transfer_ratio(home.lifts(shared), cell.lifts(shared), seed=seed) if home is not None else None
    return {
        "source": cell.source, "target": cell.target, "attack": cell.attack, "n": n, "unscored": cell.unscored,
        **{what: rate._asdict() for what, rate in rates.items()},
        "lift": paired_difference(wrong[AT_RANDOM], wrong[ATTACKED])._asdict(),
        "lift_over_clean": paired_difference(wrong[AS_IT_WAS], wrong[ATTACKED])._asdict(),
        "ratio": None if ratio is None else ratio._asdict(), **_over_shuffled(cell), "shares": cell.shares,
    }  # fmt: skip


def _over_shuffled(cell: _Cell) -> dict[str, Any]:
    """How often right with another picture's change, and how much more is wrong with its own; None of none."""
    told = cell.right.get(SHUFFLED, {})
    rows = [row for row in cell.rows if row in told]
    if not rows:
        return {"shuffled": None, "lift_over_shuffled": None}
    lift = paired_difference([not told[row] for row in rows], [not cell.right[ATTACKED][row] for row in rows])
    rate = wilson(sum(told[row] for row in rows), len(rows))
    return {"shuffled": {**rate._asdict(), "n": len(rows)}, "lift_over_shuffled": lift._asdict()}


def _home(cell: _Cell, cells: Sequence[_Cell]) -> _Cell | None:
    """The cell of the same attack on the model that it was made on."""
    at_home = (cell.source, cell.source, cell.attack)
    return next((one for one in cells if (one.source, one.target, one.attack) == at_home), None)


def _mean(attack: str, cells: Sequence[_Cell], seed: int) -> dict[str, Any]:
    """What an attack lifts on the model that it was made on, on others, and on those by what they share with it."""
    home = [cell for cell in cells if cell.attack == attack and cell.source == cell.target]
    others = [cell for cell in cells if cell.attack == attack and cell.source != cell.target]
    kinds = {tuple(cell.shares): cell.shares for cell in others if cell.shares is not None}
    return {
        "attack": attack, "at_home": _crossed(home, seed), "elsewhere": _crossed(others, seed),
        "by_shared": [
            {"shares": shares, **_crossed([cell for cell in others if cell.shares == shares], seed)}
            for shares in sorted(kinds.values(), key=len)
        ],
    }  # fmt: skip


def _crossed(cells: Sequence[_Cell], seed: int) -> dict[str, Any]:
    """The mean lift over pairs of models and the rows that all of them have."""
    shared = sorted(set.intersection(*(set(cell.rows) for cell in cells))) if cells else []
    lifts = np.array([cell.lifts(shared) for cell in cells], dtype=np.float64).reshape(len(cells), len(shared))
    mean: Interval = crossed_mean(lifts, seed=seed)
    return {**mean._asdict(), "pairs": len(cells), "n": len(shared)}
