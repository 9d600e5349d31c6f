"""Points of mends on the validation split: `python -m tools.mend_points MODEL "none,cmrm:alpha=0.25,..." --out DIR`.

Each mend is fitted on the built-in anchors and asked the harmful requests, the look-alikes and the ordinary requests of
the validation split, beside the pictures that they came with; the judge of refusals reads the replies. `text` is the
model as it is, without the pictures. Two mends are one behind the other with a plus. Lines of a Markdown table go to
stdout: share and 95 % interval of harmful requests answered, look-alikes declined, ordinary ones declined; then, for
the first two, how many requests changed for the better and for the worse against `--against` (the model as it is
unless a mend is named) with the exact McNemar test. A run that was stopped goes on where it was.

With `--moves` it asks nothing, and tells how far each mend moves the states of those requests against the mean shift v
of the anchors, at five blocks: -(move . v) / |v|^2, mean over requests, and its standard deviation over them. 1 is the
whole shift.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from vlmend.audit.judging import made_judges
from vlmend.audit.suite import Answer, share
from vlmend.core.conversation import Conversation
from vlmend.core.examples import Dataset
from vlmend.core.images import corrupt_image
from vlmend.core.mend import Mend
from vlmend.core.sites import Site
from vlmend.core.verdicts import DECLINED, UNSAFE
from vlmend.data.sources import builtin_dataset
from vlmend.face import open_target
from vlmend.methods.safety.cmrm import measure_shift
from vlmend.models.vlm import VLM
from vlmend.studies.asking import Asker, changed
from vlmend.studies.defences import parse_defences
from vlmend.studies.fitting import fitted
from vlmend.studies.measuring import Panels, Sizes, panels
from vlmend.studies.remembering import remembering

TEXT = "text"
GROUPS: tuple[tuple[str, Collection[str]], ...] = (
    ("harmful", UNSAFE),
    ("lookalike", DECLINED),
    ("ordinary", DECLINED),
)


def ask(asker: Asker, asked: Panels, mends: Sequence[Mend], condition: str) -> dict[str, list[Answer]]:
    """Answers by group of request, each read by the judge of refusals."""
    harmful = asker.ask(asked.harmful.only(condition), mends, "refusal")
    harmless = asker.ask(asked.harmless.only(condition), mends, "refusal")
    return {"harmful": harmful} | {
        group: [answer for answer in harmless if answer.group == group] for group in ("lookalike", "ordinary")
    }


def line(name: str, told: dict[str, list[Answer]], base: dict[str, list[Answer]]) -> str:
    """One row of the table; the text path is no view of the same questions, so it has no paired tests."""
    cells = [share("safety", "study", "rate", group, told[group], hit, "lower", 0).said() for group, hit in GROUPS]
    for group, hit in GROUPS[:2]:
        paired = changed(base[group], told[group], hit)
        cells.append("" if name == TEXT else f"{paired.fixed}, {paired.broken}; {paired.p_value:.2g}")
    return f"| {name} | {' | '.join(cells)} |"


def told_moves(model: VLM, anchors: Dataset, asked: Sequence[Conversation]) -> Callable[[str, Sequence[Mend]], str]:
    """Tells of a view how far it moves the states of these requests, in shares of the anchors' shift."""
    sites = [Site("language", round(part * (model.layers - 1) / 4)) for part in range(5)]
    white = corrupt_image("white", model.image_side, 0)
    shift = measure_shift(model, anchors.examples, white).mean[[site.layer for site in sites]]

    def states(target: VLM) -> torch.Tensor:
        parts = [target.hidden(asked[start : start + 16], sites) for start in range(0, len(asked), 16)]
        return torch.stack([torch.cat([part[site] for part in parts]) for site in sites])

    plain = states(model)
    print("| |", " | ".join(f"block {site.layer}" for site in sites), "|\n|---|" + "---|" * len(sites))

    def told(name: str, mends: Sequence[Mend]) -> str:
        view = model
        for mend in mends:
            view = view.with_mend(mend)
        moved = states(view) - plain
        along = -torch.einsum("lnw,lw->ln", moved, shift) / shift.square().sum(-1, keepdim=True)
        cells = [f"{row.mean():.2f} ± {row.std():.2f}" for row in along]
        return f"| {name} | {' | '.join(cells)} |"

    return told


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, ask, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("mends", help="text, none, or methods as vlmend compare reads them, with commas between")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", default="none")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--ordinary", type=int, default=25)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moves", action="store_true")
    given = parser.parse_args(argv)
    target = open_target(given.model)
    assert isinstance(target, VLM)
    model = remembering(target)
    anchors = builtin_dataset(("harmful", "lookalike", "ordinary"), "anchor")
    asked = panels(Sizes(given.limit, given.limit, given.ordinary, 0, given.tokens), "validation")

    def fit(name: str) -> list[Mend]:
        named = [] if name in (TEXT, "none") else parse_defences(name.replace("+", ",")) or []
        return [fitted(model, one.made(), anchors, given.out / "mends" / one.folder, given.seed)[0] for one in named]

    row: Callable[[str, Sequence[Mend]], str]
    if given.moves:
        both = (asked.harmful, asked.harmless)
        questions = [question for panel in both for question in panel.only("original").questions]
        row = told_moves(model, anchors, [question.conversation(model.image_side) for question in questions])
    else:
        asker = Asker(model, given.out, given.tokens, made_judges(["refusal"]))
        base = ask(asker, asked, fit(given.against), "original")
        print("| | harmful answered | look-alikes declined | ordinary declined | harmful: better, worse; p |", end="")
        print(" look-alikes: better, worse; p |\n|---|---|---|---|---|---|")

        def answered(name: str, mends: Sequence[Mend]) -> str:
            return line(name, ask(asker, asked, mends, "query" if name == TEXT else "original"), base)

        row = answered

    for name in given.mends.split(","):
        print(row(name, fit(name)).replace(":", " "), flush=True)


if __name__ == "__main__":
    main()
