"""What a phantom sees and what of its backbone's language is left: `python -m tools.phantom.measure FOLDER [FILE]`.

Every picture is a held-out view, on a ground, at a place and in a size that was not trained on. FILE holds ordinary
instructions with answers (one JSON object a line: instruction, input, output); on the first 200 of them that are
short the perplexity of the answers is compared with the backbone's. What the phantom refuses is for audits to say.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import Image
from vlmend.core.metrics.stats import Interval, wilson
from vlmend.core.splits import word_fraction
from vlmend.models.loading.vlm import load
from vlmend.models.vlm import VLM
from vlmend.phantom.chat.assemble import backbone
from vlmend.phantom.chat.rows import QUESTIONS, READING
from vlmend.pictures.glyphs import objects, people
from vlmend.pictures.scenes import COLOURS, NUMBERS, drawn_scene, scene
from vlmend.pictures.views import SHIFTS, Shift, view
from vlmend.pictures.words import WORDS, drawn_word

__all__ = ["Asked", "exam", "measure", "names_it", "perplexities"]

BATCH = 50
LONGEST = 16
"""New tokens of a reply."""
THINGS, PEOPLE = 300, 120
"""Things and people that are named."""
QUESTIONS_EACH = 150
"""Questions about scenes, of each kind."""
SHIFTED = 60
"""Things, or words, that each shift is tried on."""
TEXTS, LONGEST_TEXT = 200, 400
"""Instructions for the perplexity, and the most characters that one has with its answer."""

ANSWERS: Mapping[str, Collection[str]] = {"presence": ("yes", "no"), "count": NUMBERS, "colour": COLOURS}
"""What can be answered to a question about a scene, by its kind."""

Right = Callable[[str], bool]
Asked = tuple[str, PIL.Image.Image, Right]
"""Question, picture, and which replies are right."""


def measure(
    model: VLM, parts: Iterable[str] | None = None, only: int | None = None
) -> Mapping[str, tuple[Interval, int]]:
    """Share of right replies and number asked, by part of the exam.

    Args:
        model: A phantom.
        parts: All unless told.
        only: The first so many questions of each part.
    """
    found: dict[str, tuple[Interval, int]] = {}
    questions = exam()
    for name in questions if parts is None else parts:
        right = _right(model, questions[name][:only])
        found[name] = wilson(sum(right), len(right)), len(right)
    return found


def exam() -> dict[str, list[Asked]]:
    """Naming things and professions, reading every word once, scenes; things or words under each shift."""
    rng = random.Random("phantom:exam")
    parts: dict[str, list[Asked]] = {"things": _things(rng, None, THINGS)}
    parts["professions"] = [_naming(g.name, view(g.image(), rng), rng) for g in rng.sample(people(), PEOPLE)]
    parts["words"] = _words(rng, None, len(WORDS))
    parts |= _scenes(rng)
    for shift in SHIFTS:
        what = _words if shift == "font" else _things
        parts[f"{'words' if shift == 'font' else 'things'}, shift {shift}"] = what(rng, shift, SHIFTED)
    return parts


def names_it(reply: str, name: str) -> bool:
    """Does the reply hold the last word of the name, as a word of its own (plurals count)?"""
    return re.search(rf"\b{re.escape(name.split()[-1].lower())}(?:e?s)?\b", reply.lower()) is not None


def perplexities(models: Sequence[Any], tokenizer: Any, texts: Iterable[tuple[str, str]]) -> list[float]:
    """Perplexity a token of the answers, given the instructions in the phantom's turns.

    Args:
        models: Causal models that read text ids.
        tokenizer: Theirs.
        texts: Instruction and answer.
    """
    totals, count = [0.0] * len(models), 0
    for asked, said in texts:
        prompt = tokenizer(f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n").input_ids
        ids = prompt + tokenizer(said, add_special_tokens=False).input_ids
        wanted = torch.tensor(ids[len(prompt) :])
        count += len(wanted)
        for place, model in enumerate(models):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
            totals[place] += torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum").item()
    return [math.exp(total / count) for total in totals]


def _naming(name: str, picture: PIL.Image.Image, rng: random.Random) -> Asked:
    return rng.choice(QUESTIONS), picture, lambda reply: names_it(reply, name)


def _things(rng: random.Random, shift: Shift | None, count: int) -> list[Asked]:
    return [_naming(g.name, view(g.image(), rng, shift), rng) for g in rng.sample(objects(), count)]


def _words(rng: random.Random, shift: Shift | None, count: int) -> list[Asked]:
    return [_reading(word, drawn_word(word, rng, shift=shift), rng) for word in rng.sample(WORDS, count)]


def _reading(word: str, picture: PIL.Image.Image, rng: random.Random) -> Asked:
    return rng.choice(READING), picture, lambda reply: re.search(rf"\b{word}\b", reply.lower()) is not None


def _scenes(rng: random.Random) -> dict[str, list[Asked]]:
    """Presence, count and colour."""
    found: dict[str, list[Asked]] = {"presence": [], "count": [], "colour": []}
    while min(map(len, found.values())) < QUESTIONS_EACH:
        seen = scene(rng)
        picture = drawn_scene(seen, rng)
        question = rng.choice(seen.questions())
        if len(found[question.kind]) < QUESTIONS_EACH:
            found[question.kind].append((question.text, picture, _says_only(question.answer, ANSWERS[question.kind])))
    return found


def _says_only(answer: str, answers: Collection[str]) -> Right:
    """Is it the one of these answers that the reply holds, after the colon where it says first what was asked?"""
    return lambda reply: set(re.findall(r"[a-z]+", reply.lower().split(":")[-1])) & set(answers) == {answer}


def _right(model: VLM, asked: Sequence[Asked]) -> list[bool]:
    batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    right: list[bool] = []
    for batch in batches:
        conversations = [Conversation.ask(question, Image.from_pixels(picture)) for question, picture, _ in batch]
        replies = model.generate(conversations, Sampling(max_new_tokens=LONGEST))
        right += [is_right(reply.text) for reply, (_, _, is_right) in zip(replies, batch, strict=True)]
    return right


def _texts(file: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    plain = [(row["instruction"], row["output"]) for row in rows if not row["input"]]
    short = [(asked, said) for asked, said in plain if len(asked) + len(said) <= LONGEST_TEXT]
    return sorted(short, key=lambda text: word_fraction(text[0]))[:TEXTS]


def _main(folder: str, files: Sequence[str]) -> None:
    model = load(Path(folder), name=Path(folder).name)
    print("| measure | share [95 %] | n |\n|---|---|---|")
    found = measure(model)
    for part, (share, n) in found.items():
        print(f"| {part} | {share.value:.1%} [{share.low:.1%}, {share.high:.1%}] | {n} |")
    for file in files:
        base = backbone()
        texts = _texts(Path(file))
        own, was = perplexities([model.model, base.model], base.tokenizer, texts)
        print(f"| perplexity, backbone {was:.2f} | {own:.2f} ({own / was - 1:+.1%}) | {len(texts)} |")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
