"""The parts of the CMRM study that ask the model: sweep, safety, layers, transfer, controls, abilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

import torch
from torch.nn.functional import cosine_similarity

from vlmend.audit.suite import CONDITIONS, Answer, Question
from vlmend.core.edits import AddVector, ContrastShift
from vlmend.core.examples import Dataset
from vlmend.core.files import read_json
from vlmend.core.images import blank_image
from vlmend.core.mend import Mend
from vlmend.core.verdicts import UNSAFE
from vlmend.methods.safety.cmrm import CMRM, measure_shift
from vlmend.methods.safety.random_vector import RandomVector
from vlmend.studies.asking import changed, panel
from vlmend.studies.auto import CANDIDATES, QUICK, choice_table, choose, try_out
from vlmend.studies.cmrm.lab import Lab, Level, thinned
from vlmend.studies.defences import compared, fitting_defences
from vlmend.studies.measuring import Outcome, loops, measure, suite_for, suite_panel, table_row
from vlmend.studies.overhead import phase_times

__all__ = ["abilities", "controls", "defences", "layers", "overhead", "price", "safety", "sweep", "transfer"]

TOKENS_TIMED = 17


def sweep(lab: Lab) -> dict[str, Any]:
    """Strengths 0 to 2 at both levels on the validation split, and the best of each by the rule of `auto`."""
    base = measure(lab.asker, lab.validation)
    rows: list[dict[str, Any]] = []
    best: dict[Level, float] = {}
    for level in get_args(Level):
        outcomes: dict[str, Outcome] = {"none": base}
        for alpha in lab.plan.alphas:
            outcomes[str(alpha)] = measure(lab.asker, lab.validation, [lab.mend(level, alpha)])
        best[level] = float(choose(outcomes, [str(alpha) for alpha in lab.plan.alphas]))
        rows += [
            {"level": level, "alpha": 0.0 if name == "none" else float(name)} | table_row(base, outcome)
            for name, outcome in outcomes.items()
        ]
    return {"rows": rows, "best": best, "split": "validation"}


def safety(lab: Lab) -> dict[str, Any]:
    """Five conditions of every harmful set, and the price and sight beside them, held-out."""
    settings: dict[str, list[Mend]] = {"none": []}
    for level in get_args(Level):
        settings[level] = [lab.mend(level)]
    tables = {"builtin": _five(lab, lab.held_out.harmful.questions, settings)}
    for data in lab.data:
        questions = suite_for("harm").questions(data, lab.plan.sizes.harmful)
        tables[data.name] = _five(lab, questions, settings)
    base = measure(lab.asker, lab.held_out)
    price = {name: table_row(base, measure(lab.asker, lab.held_out, mends)) for name, mends in settings.items()}
    return {"tables": tables, "price": price, "best": lab.best}


def layers(lab: Lab) -> dict[str, Any]:
    """Unsafe replies with one layer alone, with the first k, with the last k (dataset level, validation)."""
    depth, step = lab.target.layers, lab.plan.layer_step
    alpha = lab.best["dataset"]
    image = blank_image(lab.target.image_side)
    shift = measure_shift(lab.target, lab.anchors.examples, image)
    asked = lab.validation.harmful.only("original")
    base = lab.asker.ask(asked)
    marks = sorted({*range(0, depth, step), depth - 1})
    kinds = {
        "alone": {k: [k] for k in marks},
        "prefix": {k: list(range(k + 1)) for k in marks},
        "suffix": {k: list(range(k, depth)) for k in marks},
    }
    cmrm = CMRM(alpha=alpha)
    rows: list[dict[str, Any]] = []
    for kind, chosen in kinds.items():
        for mark, some in chosen.items():
            edits = cmrm.edits_by(lab.target, shift, lab.anchors.examples, image, some)
            mend = cmrm.made(lab.target, lab.anchors, lab.seed, edits, {})
            answers = lab.asker.ask(asked, [mend])
            rows.append({"kind": kind, "layer": mark} | _unsafe(base, answers, lab.seed))
    return {"alpha": alpha, "base": _unsafe(base, base, lab.seed), "rows": rows, "agreement": shift.agreement.tolist()}


def transfer(lab: Lab) -> dict[str, Any]:
    """Anchors of one kind tested on every kind, and anchor sets of growing size, with their cosines."""
    alpha = lab.best["dataset"]
    whole, cmrm = lab.mend("dataset"), lab.method("dataset", alpha)
    sets: dict[str, Dataset] = {"all": lab.anchors, "harmful": lab.labelled("harmful")}
    harmless = lab.labelled("benign")
    for kind in ("lookalike", "ordinary"):
        kept = tuple(e for e in harmless.examples if e.id.startswith(kind))
        if kept:
            sets[kind] = replace(harmless, name=kind, examples=kept)
    sets |= {data.name: data for data in lab.data}
    base = measure(lab.asker, lab.validation)
    matrix: list[dict[str, Any]] = []
    for name, data in sets.items():
        mend = lab.fit(f"transfer-{name}", cmrm, data)
        outcome = measure(lab.asker, lab.validation, [mend])
        matrix.append(
            {"anchors": name, "n": len(data.examples), "cosine": _cosine(mend, whole)} | table_row(base, outcome)
        )
    asked = lab.validation.harmful.only("original")
    plain = lab.asker.ask(asked)
    sizes: list[dict[str, Any]] = []
    for count in (*lab.plan.anchor_sizes, len(lab.anchors.examples)):
        mend = lab.fit(f"size-{count}", cmrm, thinned(lab.anchors, count, f"{count} anchors"))
        answers = lab.asker.ask(asked, [mend])
        sizes.append({"n": count, "cosine": _cosine(mend, whole)} | _unsafe(plain, answers, lab.seed))
    return {"alpha": alpha, "matrix": matrix, "sizes": sizes}


def overhead(lab: Lab) -> dict[str, Any]:
    """Seconds for prefill and decode: none, dataset, sample, and sample level done plainly."""
    questions = lab.held_out.harmful.only("original").questions[: lab.plan.timed]
    batch = [question.conversation(lab.target.image_side) for question in questions]
    views = {"none": [], "dataset": [lab.mend("dataset")], "sample": [lab.mend("sample")]}
    rows = {}
    for size in (1, len(batch)):
        rows[str(size)] = phase_times(lab.target, views, batch[:size], TOKENS_TIMED, lab.plan.rounds)
    return {"batch": rows, "tokens": TOKENS_TIMED, "rounds": lab.plan.rounds}


def controls(lab: Lab) -> dict[str, Any]:
    """Random vectors of equal norm, the same vectors at shuffled layers, and I' = I."""
    alpha = lab.best["dataset"]
    whole = lab.mend("dataset")
    generator = torch.Generator().manual_seed(lab.seed)
    order = torch.randperm(len(whole.edits), generator=generator).tolist()
    vectors = [edit for edit in whole.edits if isinstance(edit, AddVector)]
    shuffled = [replace(edit, vector=vectors[k].vector) for edit, k in zip(vectors, order, strict=True)]
    whole_image = ContrastShift(
        tuple(range(lab.target.layers)), blank_image(lab.target.image_side), seen="original", unseen="text"
    )
    made = {
        "cmrm": whole,
        "random vectors": lab.fit("random", RandomVector(alpha=alpha)),
        "shuffled layers": CMRM().made(lab.target, lab.anchors, lab.seed, shuffled, {}),
        "I' = I": CMRM().made(lab.target, lab.anchors, lab.seed, [whole_image], {}),
    }
    base = measure(lab.asker, lab.validation)
    rows = [{"name": "none"} | table_row(base, base)]
    rows += [{"name": n} | table_row(base, measure(lab.asker, lab.validation, [m])) for n, m in made.items()]
    return {"alpha": alpha, "rows": rows}


def abilities(lab: Lab) -> dict[str, Any]:
    """What else changes: presence questions, rules on the answer's form, loops."""
    settings: dict[str, list[Mend]] = {"none": [], "dataset": [lab.mend("dataset")], "sample": [lab.mend("sample")]}
    asked = {
        name: suite_panel(f"utility/{name}", lab.plan.sizes.pictures, "held_out")
        for name in ("object_presence", "instructions")
    }
    rows: dict[str, Any] = {}
    plain: dict[str, list[Answer]] = {}
    for setting, mends in settings.items():
        for name, questions in asked.items():
            answers = lab.asker.ask(questions, mends)
            plain.setdefault(name, answers)
            measures = [asdict(row) for row in questions.suite.measures(answers, lab.seed)]
            test = changed(plain[name], answers, UNSAFE)
            rows.setdefault(setting, {})[name] = {"measures": measures, "test": asdict(test)}
        written = lab.asker.ask(asked["instructions"], mends)
        rows[setting]["repetition"] = asdict(loops(written))
    return {"rows": rows}


def price(lab: Lab) -> dict[str, Any]:
    """What restores safety at the text path's own price: the candidates of `mend auto`, on the validation split."""
    candidates = QUICK if lab.plan.anchors is not None else CANDIDATES
    folder = lab.out / "mends" / "candidates"
    tried = try_out(lab.asker, lab.validation, candidates, lab.anchors, folder, lab.seed, lambda *_: None)
    return choice_table(tried, candidates, choose(tried.outcomes, list(tried.mends)))


def defences(lab: Lab) -> dict[str, Any]:
    """Every registered rival beside CMRM with its defaults and with the chosen strengths, held-out."""
    chosen = {
        f"cmrm {lab.best['dataset']:g}": lab.mend("dataset"),
        f"cmrm_sample {lab.best['sample']:g}": lab.mend("sample"),
    }
    won = read_json(lab.out / "parts" / "price.json")["won"]
    folder = next(c.folder for c in CANDIDATES if c.name == won)
    chosen[f"auto: {won}"] = Mend.load(lab.out / "mends" / "candidates" / folder)
    every, few = fitting_defences(lab.target, None), lab.plan.defences
    wanted = [one for one in every if not few or one.name in few]
    return compared(
        lab.asker, wanted, chosen, lab.anchors, lab.held_out, lab.plan.sizes, lab.out / "defences", seed=lab.seed,
        progress=lambda *_: None,
    )  # fmt: skip


def _five(lab: Lab, questions: Sequence[Question], settings: dict[str, list[Mend]]) -> list[dict[str, Any]]:
    """Unsafe rate in every condition for every setting, paired with the unmended model."""
    asked = panel(suite_for("harm"), questions)
    plain = lab.asker.ask(asked)
    rows: list[dict[str, Any]] = []
    for name, mends in settings.items():
        answers = lab.asker.ask(asked, mends)
        for condition in CONDITIONS:
            first, second = ([a for a in some if a.condition == condition] for some in (plain, answers))
            if second:
                rows.append({"setting": name, "condition": condition} | _unsafe(first, second, lab.seed))
    return rows


def _unsafe(before: Sequence[Answer], after: Sequence[Answer], seed: int) -> dict[str, Any]:
    row = suite_for("harm").row("unsafe_rate", "original", after, UNSAFE, "lower", seed)
    return {"unsafe": asdict(row), "test": asdict(changed(before, after, UNSAFE))}


def _cosine(first: Mend, second: Mend) -> float:
    """Mean cosine over layers of two mends' summed corrections (the shifts that they take out)."""
    totals = [
        torch.stack([edit.vector for edit in mend.edits if isinstance(edit, AddVector)]).cumsum(0)
        for mend in (first, second)
    ]
    return float(cosine_similarity(totals[0], totals[1], dim=-1).mean())
