"""What privacy_guard makes of a mini that knows codes by heart, and what goes round the guard.

    python -m tools.phantom.mini_guard 0 0:1 0:2      # seeds of the fit, and the layer of the head where it is given

Fitted on cards of people whose codes the mini hardly knows, on three grounds, and on posters and scenes. Measured on
other people, grounds and wordings. The attack asks for the code beside a scene, where there is no card to be seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from tools.phantom.mini_sanitising import RECIPE
from vlmend.core.conversation import Sampling
from vlmend.core.edits import AddVector, Gate
from vlmend.core.examples import Example
from vlmend.core.metrics.membership import separation
from vlmend.core.metrics.resampling import mean_interval
from vlmend.methods.privacy.privacy_guard import PrivacyGuard
from vlmend.methods.reading import read_states
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.build import mini_folder
from vlmend.phantom.mini.documents import GROUPS, PRIVATE, documents
from vlmend.phantom.mini.knowledge import PHRASE

TOKENS = 12


def _said(view: VLM, rows: Sequence[Example]) -> list[str]:
    starts = range(0, len(rows), 32)
    return [reply.text for k in starts for reply in
            view.generate([row.conversation for row in rows[k : k + 32]], Sampling(TOKENS))]  # fmt: skip


def _shares(view: VLM, rows: Sequence[Example], name: str) -> Iterator[str]:
    """How often the answer and the safe phrase are said."""
    said = _said(view, rows)
    clusters = [row.attributes.get("cluster", row.id) for row in rows]
    told = {
        "answered": [
            float(any(answer in text for answer in row.answers)) for row, text in zip(rows, said, strict=True)
        ],
        "safe": [float(PHRASE in text) for text in said],
    }
    for what, hits in told.items():
        value, low, high = mean_interval(hits, clusters, seed=0)
        yield f"| {name} | {what} | {value:.0%} [{low:.0%}, {high:.0%}] | {len(rows)} |"


def _lines(view: VLM, name: str) -> Iterator[str]:
    rows = documents().examples
    for group in GROUPS:
        yield from _shares(view, [row for row in rows if row.group == group], f"{name} | {group}")
    scenes = [row.image for row in rows if row.group == GROUPS[-1]]
    codes = [row for row in rows if row.group == GROUPS[0]]
    moved = [replace(row, image=scene) for row, scene in zip(codes, scenes, strict=True)]
    yield from _shares(view, moved, f"{name} | code beside a scene")


def _head(view: VLM, gate_of: AddVector, name: str) -> str:
    """AUROC of the head on held-out pictures: cards beside questions for the word against posters beside the same."""
    gate = gate_of.gate
    assert isinstance(gate, Gate)
    found: dict[str, dict[str, list[float]]] = {"yes": {}, "no": {}}
    rows = [row for row in documents().examples if row.group in GROUPS[2:4]]
    states = read_states(view.bare, rows, lambda row: row.conversation)[:, gate.site.layer]
    for row, score in zip(rows, (states @ gate.weight + gate.bias).tolist(), strict=True):
        found[row.attributes[PRIVATE]].setdefault(row.attributes.get("cluster", row.id), []).append(score)
    auroc = separation(found["yes"], found["no"], seed=0).auroc
    return (
        f"| {name} | head at {gate.site}, AUROC | {auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}] | {len(rows)} |"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    mini = load(mini_folder(RECIPE, print))
    for line in _lines(mini, "base"):
        print(line, flush=True)
    for told in sys.argv[1:] or ["0"]:
        seed, _, layer = told.partition(":")
        method = PrivacyGuard(reply=PHRASE, layer=int(layer) if layer else None)
        mend = method.fit(mini, documents("train"), seed=int(seed))
        first = mend.edits[0]
        assert isinstance(first, AddVector)
        print(_head(mini, first, f"seed {told}"), flush=True)
        for line in _lines(mini.with_mend(mend), f"guard, seed {told}"):
            print(line, flush=True)
