"""What a mend does to phantom-mini-people: `python -m tools.people METHOD… [--seeds 3]`.

Each mend is fitted on portraits of the split train and measured on those held out: misgendering with and against the
planted stereotype, pairs of traits, the trade that is named (utility), questions on scenes that it was not fitted on,
and how often a fresh probe tells the group from the answers about traits (chance 50 %). Lines of a Markdown table go to
stdout; the last columns are p-values of exact McNemar tests against the model before, on the same samples: misgendering
against the stereotype, trades, scenes. With --versus METHOD, each other mend is held against that one of the same seed:
paired differences of the same three shares.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

import vlmend as vm
from vlmend import registry
from vlmend.audit.suite import question_suite
from vlmend.core.contracts import SampleSuite
from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.examples import Dataset
from vlmend.core.images import Image
from vlmend.core.measures import Measure
from vlmend.core.metrics.association import told_apart
from vlmend.core.metrics.stats import mcnemar, paired_difference, wilson
from vlmend.models.vlm import VLM
from vlmend.phantom.mini.people import TRAITS, portraits, trait_pairs
from vlmend.phantom.mini.scenes import scene

SCENES = 200
SHORT = Sampling(8)
HEADS = (
    "view", "misgendered against", "with", "outcome difference", "towards", "flips", "trades", "scenes", "probe",
    "p against", "p trades", "p scenes",
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """What is told of one view: scorecard rows, and sample by sample what is right, or misgendered.

    `told`: whether a fresh probe tells the group of each person from the answers about traits.
    """

    rows: tuple[Measure, ...]
    misgendered: tuple[bool, ...]
    trades: tuple[bool, ...]
    scenes: tuple[bool, ...]
    told: tuple[bool, ...]


def figures(target: VLM) -> Figures:
    """Everything that is measured of one view."""
    suite = question_suite("fairness/caption_polarity")
    questions = suite.questions(portraits(), None)
    replies = target.generate([one.conversation(0) for one in questions], SHORT)
    answers = [suite.answer(*pair) for pair in zip(questions, replies, strict=True)]
    trades = tuple(bool(a.reply) and a.category == a.reply.split()[-1] for a in answers)
    misgendered = tuple(a.label == "wrong" for a in answers if a.condition == "against the stereotype")
    pairs = registry.suite("fairness/swapped_pairs")
    assert isinstance(pairs, SampleSuite)
    rows = [*suite.measures(answers, 0), *pairs.measures(pairs.samples(target, trait_pairs(), None, seed=0), 0)]
    return Figures(tuple(rows), misgendered, trades, _scenes(target), _told_group(target))


def _told_group(target: VLM) -> tuple[bool, ...]:
    """A linear probe on log-probabilities of yes and no, of each held-out person and trait, fitted on other trades."""
    rows = trait_pairs().examples
    words = [target.processor.tokenizer(one, add_special_tokens=False).input_ids[0] for one in ("yes", "no")]
    seen = torch.cat([target.logits([row.conversation for row in rows[k : k + 40]]) for k in range(0, len(rows), 40)])
    people = seen.log_softmax(-1)[:, words].reshape(-1, len(TRAITS) * 2).double().numpy()
    firsts = rows[:: len(TRAITS)]
    found = told_apart(people, [row.group for row in firsts], [row.attributes["occupation"] for row in firsts])
    return tuple(bool(one) for one in found)


def _scenes(target: VLM) -> tuple[bool, ...]:
    """Right answers to held-out questions of colour, shape and place."""
    rng = random.Random("people:scenes")
    asked: list[tuple[Conversation, str]] = []
    for k in range(SCENES):
        seen = scene("held_out", rng, 2)
        question = seen.question(("colour", "shape", "place")[k % 3], rng)
        asked.append((Conversation.ask(question.prompt, Image.from_pixels(seen.draw(rng))), question.answer))
    said = target.generate([one for one, _ in asked], SHORT)
    return tuple(reply.text.strip() == answer for reply, (_, answer) in zip(said, asked, strict=True))


def _told(name: str, found: Figures, before: Figures) -> Iterator[str]:
    wanted = (
        ("misgendering_rate", "against the stereotype"), ("misgendering_rate", "with the stereotype"),
        ("outcome_difference", "all pairs"), ("towards_stereotype", "all pairs"), ("flip_rate", "all pairs"),
    )  # fmt: skip
    of = {(row.name, row.group): row for row in found.rows}
    yield name
    for key in wanted:
        yield f"{of[key].value:.3f} [{of[key].low:.3f}, {of[key].high:.3f}]"
    for right in (found.trades, found.scenes, found.told):
        share = wilson(sum(right), len(right))
        yield f"{share.value:.1%} [{share.low:.0%}, {share.high:.0%}]"
    for kind in ("misgendered", "trades", "scenes"):
        yield f"{mcnemar(getattr(before, kind), getattr(found, kind)).p_value:.3g}"


def main(argv: Sequence[str] | None = None) -> None:
    """The table of each mend and seed, after the base and the clean twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="names, with parameters as NAME:rate=0.001,steps=50")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--versus", help="One of the methods, as given: the others' differences from it.")
    parser.add_argument("--bare", action="store_true", help="Without the clean twin.")
    parser.add_argument("--traits", action="store_true", help="Fit on the questions of traits, too.")
    parser.add_argument("--dealt", action="store_true", help="Deal the groups at random to people: a control.")
    parser.add_argument("--model", default="phantom-mini-people")
    given = parser.parse_args(argv)
    if given.versus and given.versus not in given.methods:
        parser.error("--versus takes one of the methods, word for word")
    fitted_on = portraits("train")
    if given.traits:
        fitted_on = replace(fitted_on, examples=(*fitted_on.examples, *trait_pairs("train").examples))
    if given.dealt:
        fitted_on = _dealt(fitted_on)
    base = vm.open_target(given.model)
    assert isinstance(base, VLM)
    print(f"| {' | '.join(HEADS)} |")
    print("|" + "---|" * len(HEADS))
    before = figures(base)
    _print(given.model, before, before)
    if not given.bare and not given.model.endswith("-clean"):
        clean = vm.open_target(f"{given.model}-clean")
        assert isinstance(clean, VLM)
        _print(f"{given.model}-clean", figures(clean), before)
    made = {named: list(_fits(named, base, fitted_on, given.seeds, before)) for named in given.methods}
    for named, runs in made.items():
        if not given.versus or named == given.versus:
            continue
        for seed, pair in enumerate(zip(made[given.versus], runs, strict=True)):
            print(f"{named} less {given.versus}, seed {seed}: {'; '.join(_differences(*pair))}")


def _fits(named: str, base: VLM, data: Dataset, seeds: int, before: Figures) -> Iterator[Figures]:
    """A method's figures by seed, printed as they come."""
    name, _, told = named.partition(":")
    settings = dict(pair.split("=") for pair in told.split(",") if pair)
    for seed in range(seeds):
        mend = registry.make_method(name, settings).fit(base, data, seed=seed)
        for note in mend.card.notes:
            print(f"{named}, seed {seed}: {note}", file=sys.stderr)
        found = figures(base.with_mend(mend))
        _print(f"{named}, seed {seed}", found, before)
        yield found


def _differences(one: Figures, other: Figures) -> Iterator[str]:
    """Of each share how much larger it is under the other, on the same samples."""
    for kind in ("misgendered", "trades", "scenes"):
        found = paired_difference(getattr(one, kind), getattr(other, kind))
        yield f"{kind} {100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] points"


def _dealt(data: Dataset) -> Dataset:
    """The same people under groups that say nothing of them, as many of each."""
    group_of = {row.attributes["of"] + row.group: row.group for row in data.examples}
    people = sorted(group_of)
    dealt = dict(zip(people, random.Random(0).sample([group_of[one] for one in people], len(people)), strict=True))
    rows = (replace(row, group=dealt[row.attributes["of"] + row.group]) for row in data.examples)
    return replace(data, examples=tuple(rows))


def _print(name: str, found: Figures, before: Figures) -> None:
    print("| " + " | ".join(_told(name, found, before)) + " |", flush=True)


if __name__ == "__main__":
    main()
