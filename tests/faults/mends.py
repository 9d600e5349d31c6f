"""Saved mends with one value or some bytes changed, put on a tiny model and asked."""

from __future__ import annotations

import json
import random
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from tests.faults.mutating import changed, damaged, other
from tests.faults.table import Tally

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.dual_edits import AcceptAbove, InsertTokens, MapImages, MapTexts, Rerank, ScaleLogits, TurnFrom
from vlmend.core.edits import (
    AddVector,
    AffineMap,
    AlignReply,
    AnyEdit,
    ContrastLogits,
    ContrastShift,
    CosineDose,
    FilterImage,
    Gate,
    LoadAdapter,
    MahalanobisGate,
    ModuleEdit,
    NeighbourGate,
    OtherView,
    ProjectOut,
    RefuseWhen,
    ReplaceWeights,
    ReviewReply,
    RewritePrompt,
    ShowExamples,
    ShowNearest,
)
from vlmend.core.images import blank_image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.sites import Site
from vlmend.errors import BatchProblem, ModelProblem, SampleError
from vlmend.testing import tiny_clip, tiny_vlm

SITE, WIDTH, TOKENS = Site("language", 2), 32, 3
ASKED = [Conversation.ask("a"), Conversation.ask("what is it", noise_image(16, 1))]
GATE = Gate(Site("language", 1), torch.ones(WIDTH), 0.5)
APART = MahalanobisGate(SITE, torch.ones(3, WIDTH), torch.zeros(3), torch.eye(3), torch.ones(3), torch.eye(3), 0.5)
NEAR = NeighbourGate(SITE, torch.ones(3, WIDTH), torch.eye(3), torch.eye(3)[:2], 2, 0.5)
HEAD = "lm_head"
CHAT: list[AnyEdit] = [
    AddVector(SITE, torch.ones(WIDTH), gate=GATE), ProjectOut(SITE, torch.eye(WIDTH)[:2], gate=APART),
    CosineDose(SITE, torch.eye(WIDTH)[0], torch.zeros(WIDTH), gate=NEAR),
    AffineMap(SITE, torch.ones(1, WIDTH), torch.ones(WIDTH, 1), torch.zeros(WIDTH), 0.3, "last_prompt", "prompt"),
    ModuleEdit(SITE, torch.ones(4, WIDTH), torch.zeros(4), torch.ones(WIDTH, 4), torch.zeros(WIDTH)),
    ContrastShift((0, 2), blank_image(16), onto=torch.eye(WIDTH)[:4], mode="full", cap=0.1),
    RewritePrompt("a", "b", "c"), ShowExamples(("q",), ("r",), (blank_image(16),)),
    ShowNearest(SITE, torch.ones(2, WIDTH), ("a", "b"), ("c", "d"), ("e", "f"), "what is it", 2, 1),
    ContrastLogits((OtherView("z"), OtherView(image=blank_image(16))), 2.0, "damp", 0.1), FilterImage("jpeg", 75.0),
    RefuseWhen((1, 2), (5, 6), 0.9, "no"), ReviewReply("{prompt} {reply}", "y", "{prompt}", "{caption} {prompt}"),
    AlignReply(GATE, GATE, "As", 2, 0.7), LoadAdapter(HEAD, torch.ones(1, WIDTH), torch.ones(99, 1)),
    ReplaceWeights("model.language_model.norm.weight", torch.ones(WIDTH)),
]  # fmt: skip
DUAL: list[AnyEdit] = [
    MapTexts(torch.eye(16), 0.5), MapImages(torch.eye(16), 0.5), TurnFrom(torch.eye(16)[:2], "vision"),
    InsertTokens("text", torch.ones(2, 3, 32)), InsertTokens("vision", torch.ones(2, 3, 32)),
    ScaleLogits(2.0), AcceptAbove(("a cat", "a dog"), 0.3), Rerank(("man", "woman"), ("a man", "a woman"), ("man",)),
    ModuleEdit(Site("text", 0, "embedding"), torch.ones(4, 16), torch.zeros(4), torch.ones(16, 4), torch.zeros(16)),
]  # fmt: skip


@cache
def _targets() -> tuple[Any, Any]:
    return tiny_vlm(), tiny_clip()


def _mended(edit: AnyEdit, target: Any) -> Mend:
    card = MendCard("m", {"a": 1}, target.name, target.model_digest, "d", "d", 0, {"torch": "2"}, {"x": 0.1}, "")
    return Mend((edit,), card)


def _used(folder: Path, target: Any) -> Any:
    """What a user does with a mend: load it, put it on, ask."""
    view = target.with_mend(Mend.load(folder))
    if target.kind == "chat":
        try:
            return view.generate(ASKED, Sampling(TOKENS))
        except (SampleError, BatchProblem, ModelProblem) as problem:  # blamed on requests or model, which are good
            raise AssertionError(problem.message) from problem
    images = [noise_image(16, k) for k in range(3)]
    return view.logits(images, ["a cat"]), view.accepts(images), view.retrieve(["a cat"], images)


def mutated_mends(count: int, seed: int, folder: Path) -> Tally:
    """Change one value of the card, or the tensors (under a card that knows no digest, as of before), or any bytes."""
    tally = Tally("mutated mends")
    kinds = [(edit, target) for target, edits in zip(_targets(), (CHAT, DUAL), strict=True) for edit in edits]
    for k in range(count):
        rng = random.Random(f"mend:{seed}:{k}")
        edit, target = kinds[k % len(kinds)]
        mend = folder / "mend"
        _mended(edit, target).save(mend)
        how = rng.choice(("card", "card", "tensor", "bytes"))
        _change(mend, how, rng)
        found = tally.tried(partial(_used, mend, target), f"{k} {type(edit).__name__} {how}")
        if how == "bytes" and found is not None:
            tally.wrong += 1
            tally.note(f"{k} {type(edit).__name__}: other bytes were accepted")
        shutil.rmtree(mend)
    return tally


def _change(mend: Path, how: str, rng: random.Random) -> None:
    card, tensors = mend / "mend.json", mend / "mend.safetensors"
    manifest = json.loads(card.read_text())
    match how:
        case "card":
            card.write_text(json.dumps(changed(manifest, rng)))
        case "tensor":
            held = load(tensors.read_bytes())
            if held:
                name = rng.choice(sorted(held))
                held[name] = other(held[name], rng)
            tensors.write_bytes(save(held))
            del manifest["tensors"]
            card.write_text(json.dumps(manifest))
        case _:
            before = tensors.read_bytes()
            while (after := damaged(before, rng)) == before:
                pass
            tensors.write_bytes(after)
