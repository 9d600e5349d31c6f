"""Model folders with one file damaged, loaded and asked: what has the identity of the whole one replies as it does."""

from __future__ import annotations

import json
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from tests.faults.mutating import changed, damaged, other
from tests.faults.table import Tally
from tests.models.duals import built

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import noise_image
from vlmend.core.targets import key_of
from vlmend.models.loading.target import open_target
from vlmend.testing import tiny_vlm

ASKED = [Conversation.ask("a"), Conversation.ask("what is it", noise_image(16, 1))]
GREEDY = Sampling(3)


def mutated_models(count: int, seed: int, folder: Path) -> Tally:
    """Change a value or the bytes of one file, or one tensor of the weights; every third is a dual encoder."""
    tally, place = Tally("mutated model folders"), folder / "model"
    wholes = {True: folder / "chat", False: folder / "dual"}
    for chat, whole in wholes.items():
        _saved(chat, whole)
    truth = {chat: _asked(whole) for chat, whole in wholes.items()}
    for k in range(count):
        rng, chat = random.Random(f"model:{seed}:{k}"), k % 3 != 0
        shutil.copytree(wholes[chat], place)
        told = f"{k} {'chat' if chat else 'dual'} {_change(place, rng)}"
        found = tally.tried(partial(_asked, place), told)
        if found is not None and found[0] == truth[chat][0] and found[1] != truth[chat][1]:
            tally.wrong += 1
            tally.note(f"{told}: other replies under the same identity")
        shutil.rmtree(place)
    return tally


def _saved(chat: bool, folder: Path) -> None:
    vlm = tiny_vlm()
    for part in (vlm.model, vlm.processor) if chat else built("clip"):
        part.save_pretrained(folder)


def _asked(folder: Path) -> tuple[str, list[Any]]:
    """Its identity, and what it replies or ranks."""
    target: Any = open_target("m", folder=folder)
    if target.kind == "chat":
        return key_of(target), [reply.text for reply in target.generate(ASKED, GREEDY)]
    pictures = [noise_image(16, k) for k in range(3)]
    return key_of(target), target.logits(pictures, ["a cat", "a dog"]).tolist()


def _change(folder: Path, rng: random.Random) -> str:
    """Change one file, and say which and how."""
    file = rng.choice(sorted(folder.iterdir()))
    content = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.75:
        file.write_text(json.dumps(changed(json.loads(content), rng)))
        return f"{file.name} value"
    if file.suffix == ".safetensors" and rng.random() < 0.75:
        tensors = load(content)
        name = rng.choice(sorted(tensors))
        match rng.randrange(3):
            case 0:
                del tensors[name]
            case 1:
                tensors[f"{name}.x"] = tensors.pop(name)
            case _:
                tensors[name] = other(tensors[name], rng)
        file.write_bytes(save(tensors, {"format": "pt"}))
        return f"{file.name} {name}"
    if rng.random() < 0.2:
        file.unlink()
        return f"{file.name} gone"
    file.write_bytes(damaged(content, rng))
    return f"{file.name} bytes"
