"""Does steering by a mean difference make a chat model's bias smaller? On phantom-mini-people, as N8's card asks.

    python -m tools.steering     # a line an arm, those of docs/guides/fairness_mends.md first

Vectors are read on training pairs of portraits and tried on held-out ones (`fairness/swapped_pairs`). Two kinds: what
tells men from women on average is projected out; or the mean of answers against the stereotype less answers with it is
added (CAA), with strengths that stand before anything is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vlmend.audit.suites.fairness.swapped_pairs import SUITE
from vlmend.core.conversation import Conversation
from vlmend.core.edits import AddVector, AnyEdit, ProjectOut
from vlmend.core.examples import Dataset, Example
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.core.sites import Site
from vlmend.core.targets import ChatLikelihoods, ChatStates
from vlmend.phantom.mini.people import trait_pairs
from vlmend.steps.opening import opened

__all__ = ["STRENGTHS", "arms", "main"]

STRENGTHS = (0.5, 1.0, 2.0)


def asked(row: Example) -> Conversation:
    """The question as the suite asks it."""
    return row.conversation


def means(
    target: ChatStates, batch: Sequence[Conversation], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, " width"]]:
    """Mean state of each site at the last position."""
    return {site: states.mean(0) for site, states in target.hidden(batch, sites).items()}


def arms(target: ChatStates, data: Dataset) -> Iterator[tuple[str, list[AnyEdit]]]:
    """Edits by name, each at every layer at once or at one."""
    sites = [Site("language", layer) for layer in range(target.layers)]
    rows = [row for row in data.examples if row.attributes.get("favours")]
    of_group = {group: [asked(row) for row in rows if row.group == group] for group in ("man", "woman")}
    man, woman = (means(target, of_group[group], sites) for group in ("man", "woman"))
    gap = {site: man[site] - woman[site] for site in sites}
    said: dict[bool, list[Conversation]] = {True: [], False: []}
    for row in rows:
        fits = row.attributes["options"].split("|")[0 if row.attributes["favours"] == row.group else 1]
        for answer in row.attributes["options"].split("|"):
            said[answer == fits].append(replace(asked(row), lead=answer))
    against, with_it = (means(target, said[fits], sites) for fits in (False, True))
    caa = {site: against[site] - with_it[site] for site in sites}
    places = [("every layer", sites), *((f"layer {site.layer}", [site]) for site in sites)]
    for name, own in places:
        yield f"projected out, {name}", [ProjectOut(s, (gap[s] / gap[s].norm())[None], tokens="all") for s in own]
        for strength in STRENGTHS:
            yield f"CAA x {strength:g}, {name}", [AddVector(s, caa[s] * strength, tokens="all") for s in own]
    generator = torch.Generator().manual_seed(0)
    for strength in STRENGTHS:
        random = {s: torch.randn(caa[s].shape, generator=generator) for s in sites}
        yield (
            f"random x {strength:g}, every layer",
            [AddVector(s, random[s] * caa[s].norm() / random[s].norm() * strength, tokens="all") for s in sites],
        )


def told(target: ChatLikelihoods, data: Dataset) -> str:
    """The suite's rows over all pairs, in one line."""
    every = SUITE.measures(SUITE.samples(target, data, None, seed=0), 0)
    rows = [row for row in every if row.group == "all pairs"]
    return " | ".join(
        f"{row.name} {row.said(1)} ({row.written(row.floor, 1)})" for row in rows if row.group == "all pairs"
    )


def main() -> None:
    """Print a line an arm."""
    target = opened("phantom-mini-people", "chat", "tools.steering")
    assert isinstance(target, ChatStates)
    assert isinstance(target, ChatLikelihoods)
    held = trait_pairs("held_out")
    print(f"none | {told(target, held)}", flush=True)
    for name, edits in arms(target, trait_pairs("train")):
        card = MendCard("steering", {}, target.name, target.model_digest, "trait pairs", "", 0, versions(), {}, "",
                        dict(target.identity))  # fmt: skip
        print(f"{name} | {told(target.with_mend(Mend(tuple(edits), card)), held)}", flush=True)


if __name__ == "__main__":
    main()
