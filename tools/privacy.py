"""What remedies leave of what a dual encoder gives away of the pairs that it learnt, and the study of them.

    python -m tools.privacy measure [REMEDY ...] [--seeds 0,1,2]     # adds to RUNS; all remedies unless named
    python -m tools.privacy study                                    # writes docs/studies/privacy.html anew

The model is phantom-clip, which goes on learning: a random half of the pairs that it never saw, and canaries, pictures
of things that it has no name for, each with the name of another thing drawn evenly, shown never, once or 16 times.
`none` is plain training. A remedy changes the rows, the training, or the model afterwards. The attacks know the model
before training, which is what an attacker of a fine-tuned public model knows: canaries are ranked by how much the
cosine of picture and name grew among 256 names, members are told by how much the cosine of a pair grew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tools.fairness import signed_bias
from tools.measuring import PAGES, STUDIES, Number, number, read_runs
from tools.phantom.clip_memory import never_shown, taught
from tools.private_training import OTHERS, exposures_of
from tools.remedies import Study, keep_remedy, measure_or_study
from vlmend.audit.separating import BLIND, blind_columns, words_of
from vlmend.core.examples import Dataset, Example
from vlmend.core.metrics.exposure import exposure_by_chance
from vlmend.core.metrics.membership import Separation, separation, tpr_by_chance
from vlmend.core.metrics.resampling import mean_interval
from vlmend.core.targets import DualTarget
from vlmend.models.dual.encoder import DualEncoder
from vlmend.models.loading.dual import load_dual
from vlmend.phantom.clip.load import phantom_clip
from vlmend.pictures.galleries import PHOTO, object_pictures
from vlmend.registry import make_method, make_step
from vlmend.report.study import write_remedies

__all__ = [
    "PAGE",
    "REMEDIES",
    "RUNS",
    "SHOWN",
    "STUDY",
    "Bench",
    "about",
    "blind",
    "exposures",
    "measured",
    "membership",
    "shown",
    "told_by_growth",
]

RUNS = PAGES / "privacy.json"
PAGE = STUDIES / "privacy.html"

EPOCHS, FEW = 8, 2
"""Passes of plain training, and of the remedy that trains less."""
SHOWN = (0, 1, 16)

WITH_REFERENCE = "adversarial_privacy"
"""The remedy whose adversary sees half of the pairs that nobody learns; members are told from the other half."""

MEMBERSHIP = ("auroc", "tpr")
"""What is said of members."""

BY_CHANCE = exposure_by_chance(OTHERS + 1)

STUDY = Study("privacy", "trained plainly", {
    "bits 16": ("exposure in bits, shown 16 times", "lower", BY_CHANCE),
    "bits 1": ("shown once", "lower", BY_CHANCE), "bits 0": ("never shown: control", "neither", BY_CHANCE),
    "auroc": ("members told from others, AUROC", "lower", 0.5),
    "tpr": ("at 1 % false alarms", "lower", tpr_by_chance(200)),
    "fresh": ("fresh pair: picture finds its text among 200", "higher", 1 / 200),
    "object": ("object, zero-shot", "higher", 1 / 534),
    "bias": ("titles, signed Bias@10", "lower", 0.0),
})  # fmt: skip

ABOUT = {
    "title": "remedies of a dual encoder that remembers",
    "made_by": "python -m tools.privacy study · phantom-clip",
    "heading": "remedies of what training pairs give away, on the same pairs.",
    "note": "phantom-clip goes on learning 199 pairs and 50 canaries, 25 of which are shown 16 times; 'none' is plain "
    "training. Exposure, and members told from others: lower is better, by an attacker who knows the model "
    "before training. The other rows are what the remedy costs: pairs of the same pool that nobody was "
    "trained on, objects that it knew, and the bias that phantom-clip has. Training by heart is what this "
    "study is for: it teaches phantom-clip nothing of use, so those rows say what a remedy keeps, not what "
    "training brings. dp_clip trains a map of rank 4 in the place of the towers: without any noise such a map "
    "remembers nothing of what is shown once and 2.9 to 3.4 bits of what is shown 64 times (its page), so "
    "most of what it gains here is its size. federated deals the rows over 4 clients and makes as many passes, by "
    "plain gradient descent. adversarial_privacy has half of the other pairs as reference, and is asked about the "
    "other half. "
    "Brackets: 95 % intervals over canaries, pairs, pictures or "
    "professions; AUROC and its rate are means over seeds of values and of limits, and have no paired test. "
    "Extraction is of models that answer: see the other page, privacy-chat.html.",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bench:
    """What is looked at, of one seed.

    Attributes:
        base: The model before training.
        rows: Training rows, canaries among them as often as they are shown.
        pool: Members and others.
        canaries: Rows of canaries, each once, with how often it is shown.
        names: Texts that a canary could have had.
    """

    base: DualEncoder
    rows: tuple[Example, ...]
    pool: tuple[Example, ...]
    canaries: tuple[tuple[Example, int], ...]
    names: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, base: DualEncoder, seed: int) -> Bench:
        pool = never_shown(seed).examples
        shown = object_pictures("held_out").examples
        names = tuple(sorted({PHOTO.format(row.answers[0]) for row in shown if row.answers}))
        rng = random.Random(f"privacy canaries {seed}")
        strange = [row for row in shown if not row.answers]
        canaries = tuple(
            (Example(f"canary {k}", image=row.image, caption=rng.choice(names)), SHOWN[k % len(SHOWN)])
            for k, row in enumerate(strange)
        )
        told = [Example(f"{row.id}/{k}", image=row.image, caption=row.caption) for row, n in canaries for k in range(n)]
        members = [row for row in pool if row.attributes["member"] == "yes"]
        return cls(base, (*members, *told), pool, canaries, names, seed)

    @property
    def data(self) -> Dataset:
        """The rows that are trained on."""
        return Dataset("members and canaries", self.rows)

    @property
    def aside(self) -> tuple[Example, ...]:
        """Every second pair that is not trained on."""
        return tuple(row for row in self.pool if row.attributes["member"] == "no")[::2]

    def asked(self, remedy: str) -> Bench:
        """Without the pairs that the remedy was shown as reference."""
        shown = {row.id for row in self.aside} if remedy == WITH_REFERENCE else set[str]()
        return replace(self, pool=tuple(row for row in self.pool if row.id not in shown))


Remedy = Callable[[Bench], DualTarget]


def _method(name: str, **parameters: Any) -> Remedy:
    """A method of ours that learns these very rows, from the same model."""
    return lambda bench: bench.base.with_mend(
        make_method(name, parameters).fit(bench.base, bench.data, seed=bench.seed)
    )


def _plain(bench: Bench, rows: Sequence[Example] | None = None, epochs: int = EPOCHS) -> DualEncoder:
    return taught(bench.base, bench.rows if rows is None else rows, epochs, bench.seed)


def _deduplicated(bench: Bench) -> DualEncoder:
    return _plain(bench, make_step("deduplicate", {}).apply(bench.data, seed=bench.seed).data.examples)


def _hidden(bench: Bench) -> DualTarget:
    """Plain training's passes, against an adversary that has pairs kept aside."""
    aside = [replace(row, attributes={**row.attributes, "member": "reference"}) for row in bench.aside]
    steps = EPOCHS * len(bench.rows) // 32
    method = make_method(WITH_REFERENCE, {"steps": steps, "batch": 32, "rate": 3e-4})
    return bench.base.with_mend(
        method.fit(bench.base, Dataset("with reference", (*bench.rows, *aside)), seed=bench.seed)
    )


def _afterwards(name: str, **parameters: Any) -> Remedy:
    """Plain training, then a method on its own data."""

    def made(bench: Bench) -> DualTarget:
        trained, method = _plain(bench), make_method(name, parameters)
        data = method.builtin()
        assert data is not None
        return trained.with_mend(method.fit(trained, data, seed=bench.seed))

    return made


REMEDIES: Mapping[str, Remedy] = {
    "none": _plain,
    "deduplicate": _deduplicated,
    f"{FEW} passes instead of {EPOCHS}": lambda bench: _plain(bench, epochs=FEW),
    "federated, 4 clients": _method("federated", train="weights"),
    WITH_REFERENCE: _hidden,
    "dp_clip, epsilon 8": _method("dp_clip", epsilon=8.0),
    "dp_clip, epsilon 1": _method("dp_clip", epsilon=1.0),
    "clean_clip, afterwards": _afterwards("clean_clip"),
    "not trained": lambda bench: bench.base,
}
"""Each gives the model that is then attacked."""


def measured(bench: Bench, view: DualTarget, remedy: str = "") -> tuple[dict[str, Number], dict[str, list[float]]]:
    """The numbers of one model, and the units behind those that are means; of one that learnt nothing no attack."""
    others = [row for row in bench.pool if row.attributes["member"] == "no"]
    units = {"fresh": _found(view, others), "object": _named(view)}
    units["bias"] = [one.values["bias_at_10"] for one in signed_bias(view) if "bias_at_10" in one.values]  # type: ignore[arg-type]
    told: dict[str, Number] = {}
    if view is not bench.base:
        told = membership(bench.asked(remedy), view)
        units |= {f"bits {count}": list[float]() for count in SHOWN}
        for (_, count), bits in zip(bench.canaries, exposures(bench, view), strict=True):
            units[f"bits {count}"].append(bits)
    means = {name: number(mean_interval(own, range(len(own)), seed=0), len(own)) for name, own in units.items()}
    return means | told, units


def _pair_cosines(view: DualTarget, rows: Sequence[Example]) -> list[float]:
    images = view.embed_images([row.image for row in rows if row.image is not None]).double()
    return (images * view.embed_texts([words_of(row) for row in rows]).double()).sum(1).tolist()


def exposures(bench: Bench, view: DualTarget) -> list[float]:
    """Of each canary: the rank of its name by how much the cosine grew, among others drawn evenly."""
    pictures = [row.image for row, _ in bench.canaries if row.image is not None]
    grown = torch.zeros(len(pictures), len(bench.names), dtype=torch.float64)
    for sign, model in ((1, view), (-1, bench.base)):
        grown += sign * model.embed_images(pictures).double() @ model.embed_texts(bench.names).double().T
    return exposures_of(grown, [bench.names.index(str(row.caption)) for row, _ in bench.canaries], bench.seed)


def membership(bench: Bench, view: DualTarget) -> dict[str, Number]:
    """AUROC and TPR at 1 % FPR of how much the cosine of a pair grew."""
    after, before = (_pair_cosines(model, bench.pool) for model in (view, bench.base))
    return told_by_growth(bench.pool, before, after)


def told_by_growth(pool: Sequence[Example], before: Sequence[float], after: Sequence[float]) -> dict[str, Number]:
    """AUROC and TPR at 1 % FPR of how much a score of each row grew, `member` told by its attributes."""
    told = _told(pool, [new - old for new, old in zip(after, before, strict=True)])
    return {"auroc": number(told.auroc, len(pool)), "tpr": number(told.tpr, len(pool))}


def _told(pool: Sequence[Example], scores: Sequence[float]) -> Separation:
    """How well a score of each row of the pool tells members from others."""
    kinds: dict[str, dict[str, list[float]]] = {"yes": {}, "no": {}}
    for row, score in zip(pool, scores, strict=True):
        kinds[row.attributes["member"]][row.id] = [score]
    return separation(kinds["yes"], kinds["no"], seed=0)


def _found(view: DualTarget, rows: Sequence[Example]) -> list[float]:
    """Whether each picture is nearest to its own text among those of all rows."""
    logits = view.logits([row.image for row in rows if row.image is not None], [words_of(row) for row in rows])
    return (logits.argmax(1).cpu() == torch.arange(len(rows))).double().tolist()


def _named(view: DualTarget) -> list[float]:
    rows = [row for row in object_pictures("held_out").examples if row.answers]
    return _found(view, [Example(row.id, image=row.image, caption=PHOTO.format(row.answers[0])) for row in rows])


def blind(pool: Sequence[Example]) -> dict[str, Number]:
    """What words and pixels alone tell of who is a member."""
    columns = blind_columns(pool, seed=0)
    return {name: number(_told(pool, column).auroc, len(column)) for name, column in columns.items()}


def about(runs: Sequence[Mapping[str, Any]], page: Mapping[str, str] = ABOUT) -> dict[str, str]:
    """What a page says of itself, with what the blind baseline found on these rows."""
    plain = [run for run in runs if run["method"] == "none"]
    told = [
        f"{name.removeprefix('blind_')} {', '.join(_interval(run['values'][name]) for run in plain)}" for name in BLIND
    ]
    found = f"The blind baseline, which knows no model, tells members with an AUROC of: {'; '.join(told)} (by seed)."
    if void := sorted(_void(runs)):
        found += (
            " Where it lies above chance, membership is void, though the pairs are dealt at random: those numbers are "
            f"without seed {', '.join(map(str, void))}."
        )
    return {**page, "note": f"{page['note']} {found}"}


def shown(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs, without what they say of members where these can be told without any model."""
    void = _void(runs)
    return [
        {**run, "values": {k: v for k, v in run["values"].items() if run["seed"] not in void or k not in MEMBERSHIP}}
        for run in runs
    ]


def _void(runs: Sequence[Mapping[str, Any]]) -> set[int]:
    """Seeds on whose pairs a blind baseline lies above chance."""
    plain = [run for run in runs if run["method"] == "none"]
    return {run["seed"] for run in plain if any(run["values"][name][1] > 0.5 for name in BLIND)}


def _interval(value: Sequence[float]) -> str:
    return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def _measure(names: Sequence[str], seeds: Sequence[int]) -> None:
    base = load_dual(phantom_clip(), name="phantom-clip")
    for seed in seeds:
        bench = Bench.of(base, seed)
        for name in names:
            values, units = measured(bench, REMEDIES[name](bench), name)
            if name == "none":
                values |= blind(bench.pool)
            keep_remedy(RUNS, REMEDIES, name, seed, values, units)


def _study() -> None:
    write_remedies(STUDY.content(shown(read_runs(RUNS))), PAGE, about(read_runs(RUNS)))


if __name__ == "__main__":
    measure_or_study(__doc__, REMEDIES, _measure, _study)
