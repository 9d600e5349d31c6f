"""Many defences on the same samples: safety, price, sight, loops, time and what each needs.

Every defence is fitted with its own defaults unless settings are given, on the same anchors, and
asked the same held-out questions; each row has paired tests against the undefended model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmend import registry
from vlmend.core.contracts import AbstractMethod
from vlmend.core.examples import Dataset
from vlmend.core.files import held, read_json, write_json
from vlmend.core.mend import Mend
from vlmend.core.targets import ChatTarget, Target, check_access, kinds_of, levels_of
from vlmend.core.verdicts import Judge
from vlmend.errors import UsageError
from vlmend.models.vlm import VLM
from vlmend.studies.asking import Asker, Panel, names_of
from vlmend.studies.fitting import Defence, fitted
from vlmend.studies.measuring import Panels, Sizes, front, measure, table_row
from vlmend.studies.overhead import answer_times
from vlmend.studies.remembering import remembering

__all__ = ["compare", "compared", "fitting_defences", "parse_defences"]

TIMED = 8
ROUNDS = 2

Progress = Callable[[str, int, int], None]


def compare(
    target: ChatTarget, defences: Sequence[Defence], given: dict[str, Mend], data: Dataset, asked: Panels, sizes: Sizes,
    out: Path, *, judges: Sequence[Judge], seed: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Fit, ask and time every defence; writes and gives `defences.json`. Of a model behind an API no time is told.

    Args:
        given: Mends that are there already, by the name of their row.
        judges: Who reads the replies: was it harmful, was it declined.
    """
    with held(out):
        model = remembering(target) if isinstance(target, VLM) else target
        asker = Asker(model, out, sizes.new_tokens, judges)
        return compared(asker, defences, given, data, asked, sizes, out, seed=seed, progress=progress)


def compared(
    asker: Asker, defences: Sequence[Defence], given: dict[str, Mend], data: Dataset, asked: Panels, sizes: Sizes,
    out: Path, *, seed: int, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """What `compare` does once it holds the folder; the asker may keep its replies in another, as a study's does."""
    target, judges = asker.target, asker.judges
    base = measure(asker, asked)
    views: dict[str, tuple[Mend, ...]] = {"none": ()}
    rows: dict[str, dict[str, Any]] = {"none": table_row(base, base) | _needs("none", 0.0, "none", "none")}
    total = len(defences) + len(given)
    for k, defence in enumerate(defences):
        progress("defences", k, total)
        method = defence.made()
        mend, seconds = fitted(target, method, data, out / "mends" / defence.name, seed)
        views[defence.name] = (mend,)
        outcome = measure(asker, asked, [mend])
        rows[defence.name] = table_row(base, outcome) | _needs(defence.method, seconds, method.passes, method.data)
    for k, (name, mend) in enumerate(given.items(), len(defences)):
        progress("defences", k, total)
        views[name] = (mend,)
        rows[name] = table_row(base, measure(asker, asked, [mend])) | _needs(mend.card.method, 0.0, "", mend.card.data)
    times = dict.fromkeys(views, math.nan)  # of an endpoint that others use too, they would say little
    if isinstance(target, VLM):
        times = _times(target, views, asked.harmful, sizes.new_tokens, out / "times.json")
    for name, row in rows.items():
        row |= {"name": name, "seconds": times[name], "latency": times[name] / times["none"]}
    for name in front({n: (r["unsafe"]["value"], r["lookalike"]["value"]) for n, r in rows.items()}):
        rows[name]["front"] = True
    every = [{"front": False} | row for row in rows.values()]
    content = {"model": target.name, "judge": names_of(judges), "sizes": asdict(sizes), "rows": every}
    write_json(out / "defences.json", content)
    progress("defences", total, total)
    return content


def fitting_defences(target: Target, named: Sequence[Defence] | None) -> Sequence[Defence]:
    """The defences that were named, or each method that this target can be mended by, with its own defaults.

    Of a model that answers without those that are fitted on data of their own, such as pictures with answers: such
    models are compared on requests.

    Raises:
        UsageError, NeedsAccess: One that was named is for other targets, or needs more than this one gives.
    """
    if named is None:
        every = [registry.make_method(name, {}) for name in registry.names("methods")]
        if target.kind == "chat":
            every = [one for one in every if type(one).builtin is AbstractMethod.builtin]
        given = levels_of(target)
        fitting = [one for one in every if target.kind in kinds_of(one.works_on) and one.needs in given]
        return [Defence(one.name, one.name) for one in fitting]
    for one in named:
        method = one.made()
        check_access(target, method.name, method.works_on, method.needs)
    return named


def parse_defences(text: str) -> list[Defence] | None:
    """Read names with settings: `cmrm:alpha=0.6:anchors=all,tbop`; None for `all`. Bad ones are named at once.

    Raises:
        UsageError: A setting that is no k=v.
        UnknownName, BadParameter: A method or a parameter that is not there.
    """
    if text == "all":
        return None
    found: list[Defence] = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        method, *settings = one.split(":")
        bad = [setting for setting in settings if "=" not in setting]
        if bad:
            raise UsageError(f"{bad[0]!r} is no k=v.", "Write for example cmrm:alpha=0.6:anchors=all.")
        parameters = dict(setting.split("=", 1) for setting in settings)
        found.append(Defence(one.replace(":", " "), method, parameters))
        found[-1].made()
    return found


def _needs(method: str, seconds: float, passes: str, data: str) -> dict[str, Any]:
    return {"method": method, "fit_seconds": round(seconds, 1), "passes": passes, "data": data}


def _times(
    target: VLM, views: dict[str, tuple[Mend, ...]], harmful: Panel, tokens: int, file: Path
) -> dict[str, float]:
    """Seconds a request with its image, interleaved over all defences; kept once measured."""
    key = sorted(f"{name}:{mend.digest}" for name, mends in views.items() for mend in mends)
    held = read_json(file)
    if isinstance(held, dict) and held.get("key") == key:
        return held["seconds"]
    questions = harmful.only("original").questions[:TIMED]
    batch = [question.conversation(target.image_side) for question in questions]
    seconds = answer_times(target, views, batch, tokens, ROUNDS)
    write_json(file, {"key": key, "seconds": seconds})
    return seconds
