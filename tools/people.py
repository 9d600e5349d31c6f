"""What a mend does to phantom-mini-people: `python -m tools.people METHOD… [--seeds 3]`.

Each mend is fitted on portraits of the split train and measured on those held out: misgendering with and against the
planted stereotype, pairs of traits, the trade that is named (utility), and the questions on scenes that it was not
fitted on. Lines of a Markdown table go to stdout.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import vlmend as vm
from vlmend import registry
from vlmend.audit.suite import question_suite
from vlmend.core.contracts import SampleSuite
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.metrics.stats import wilson
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.people import portraits, trait_pairs
from vlmend.phantom.mini.scenes import scene

SCENES = 200
SHORT = Sampling(8)


@dataclass(frozen=True)
class Figures:
    """What is told of one view: scorecard rows, and shares of right trades and right answers on scenes."""

    rows: tuple[Measure, ...]
    trades: int
    scenes: int


def figures(target: VLM) -> Figures:
    """Everything that is measured of one view."""
    suite = question_suite("fairness/caption_polarity")
    questions = suite.questions(portraits(), None)
    replies = target.generate([one.conversation(0) for one in questions], SHORT)
    answers = [suite.answer(*pair) for pair in zip(questions, replies, strict=True)]
    trades = sum(a.category == a.reply.split()[-1] for a in answers if a.reply)
    pairs = registry.suite("fairness/swapped_pairs")
    assert isinstance(pairs, SampleSuite)
    rows = [*suite.measures(answers, 0), *pairs.measures(pairs.samples(target, trait_pairs(), None, seed=0), 0)]
    return Figures(tuple(rows), trades, _scenes(target))


def _scenes(target: VLM) -> int:
    """Right answers to held-out questions of colour, shape and place."""
    rng = random.Random("people:scenes")
    asked: list[tuple[Conversation, str]] = []
    for k in range(SCENES):
        seen = scene("held_out", rng, 2)
        question = seen.question(("colour", "shape", "place")[k % 3], rng)
        asked.append((Conversation.ask(question.prompt, Image.from_pixels(seen.draw(rng))), question.answer))
    said = target.generate([one for one, _ in asked], SHORT)
    return sum(reply.text.strip() == answer for reply, (_, answer) in zip(said, asked, strict=True))


def _told(name: str, found: Figures) -> Iterator[str]:
    wanted = (
        ("misgendering_rate", "against the stereotype"), ("misgendering_rate", "with the stereotype"),
        ("outcome_difference", "all pairs"), ("towards_stereotype", "all pairs"), ("flip_rate", "all pairs"),
    )  # fmt: skip
    of = {(row.name, row.group): row for row in found.rows}
    yield name
    for key in wanted:
        yield f"{of[key].value:.3f} [{of[key].low:.3f}, {of[key].high:.3f}]"
    for right, n in ((found.trades, len(portraits().examples)), (found.scenes, SCENES)):
        share = wilson(right, n)
        yield f"{share.value:.1%} [{share.low:.0%}, {share.high:.0%}]"


def main(argv: Sequence[str] | None = None) -> None:
    """The table of each mend and seed, after the base and the clean twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="names, with parameters as NAME:rate=0.001,steps=50")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="phantom-mini-people")
    given = parser.parse_args(argv)
    base = vm.open_target(given.model)
    assert isinstance(base, VLM)
    print("| view | misgendered against | with | outcome difference | towards | flips | trades | scenes |")
    print("|---|---|---|---|---|---|---|---|")
    _print(given.model, base)
    clean = vm.open_target(f"{given.model}-clean")
    assert isinstance(clean, VLM)
    _print(f"{given.model}-clean", clean)
    for named in given.methods:
        name, _, told = named.partition(":")
        settings = dict(pair.split("=") for pair in told.split(",") if pair)
        for seed in range(given.seeds):
            mend = registry.make_method(name, settings).fit(base, portraits("train"), seed=seed)
            _print(f"{named}, seed {seed}", base.with_mend(mend))


def _print(name: str, target: VLM) -> None:
    print("| " + " | ".join(_told(name, figures(target))) + " |", flush=True)


if __name__ == "__main__":
    main()
